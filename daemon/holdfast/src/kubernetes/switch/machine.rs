//! k3s and its datastore over a restart of the machine into another operating system, and back.
//!
//! In: the document that wants the other system. Out: before it, a k3s that stands still and its pair on the disk; after a system that did not
//! come up, the datastore as it was. It guarantees that the pair is whole before the machine restarts, and that nothing is started after a failed
//! trial before the datastore is back.

use super::{
    Inner, Kept, SwitchError, Switcher,
    pair::Pairs,
    record::{Current, Restoring},
};
use crate::{failpoint, kubernetes::control::Order};
use holdfast_core::failure::Failure;
use holdfast_protocol::{Generation, Problem};

impl Switcher {
    /// Stops k3s and keeps its datastore with the program that wrote it. It stands still after that, until [`Self::go_on`] or the next start.
    ///
    /// # Errors
    /// Why not; k3s runs on.
    pub async fn keep_for_restart(&self, generation: Generation) -> Result<(), Failure> {
        self.with_current(move |inner, current| {
            Box::pin(async move { inner.keep_for_restart(current, generation).await })
        })
        .await
    }

    /// Lets k3s run again where the machine did not restart.
    ///
    /// # Errors
    /// None, but for the form.
    pub async fn go_on(&self) -> Result<(), Failure> {
        self.with_current(|inner, current| {
            Box::pin(async move {
                inner.run(current).await;
                Ok(())
            })
        })
        .await
    }

    /// Before [`Self::take_up`]: has the datastore put back that was kept for this document. Gives whether there is one to put back.
    ///
    /// # Errors
    /// Why it stays as it is.
    pub fn put_back_after_restart(&self, generation: Generation) -> Result<bool, Problem> {
        self.inner
            .put_back_after_restart(generation)
            .map_err(|error| error.failure().problem)
    }
}

impl Inner {
    async fn keep_for_restart(
        &self,
        current: &mut Current,
        generation: Generation,
    ) -> Result<(), SwitchError> {
        if !self.settings.kubernetes.supervise {
            return Ok(());
        }
        if current.binary.version.is_none() {
            match self.ask(&current.binary.path).await {
                Ok(version) => current.binary.version = Some(version.to_string()),
                Err(error) => tracing::warn!(%error, "k3s does not say its version"),
            }
        }
        let kept = async {
            let (pairs, database) = (self.pairs.clone(), self.place.database());
            super::work::blocking(move || pairs.check_room(&database)).await?;
            self.records.set_current(current)?;
            self.control.give(Order::Stop).await?;
            failpoint::reach("os-stopped");
            self.take_pair(current, &current.binary, name(generation)).await
        };
        let kept = kept.await;
        if kept.is_err() {
            self.run(current).await;
        }
        kept
    }

    fn put_back_after_restart(&self, generation: Generation) -> Result<bool, SwitchError> {
        let Some(pair) = self.pairs.get(&name(generation)) else {
            return Ok(false);
        };
        // Members of a cluster cannot go back one by one. Where there was nothing, what the failed system made is no one's.
        if !self.settings.kubernetes.supervise || pair.datastore == Kept::Etcd {
            return Ok(false);
        }
        if self.records.restoring()?.is_some() {
            return Ok(true);
        }
        self.pairs.verify(&pair)?;
        let mut binary = pair.binary;
        if binary.digest.is_none() {
            // The file came back with the system; by its version it is known as the one that wrote this.
            binary.file = self.own_binary().file;
        }
        self.records.set_restoring(&Restoring {
            to: Current {
                generation: pair.generation,
                section: pair.section,
                binary,
                previous: None,
            },
            snapshot: pair.name,
        })?;
        Ok(true)
    }
}

fn name(generation: Generation) -> String {
    format!("os-{}", Pairs::name(generation))
}
