//! The start of the daemon: k3s runs as it was switched to last, whatever happened in between.
//!
//! In: the records, and the programs as they are on the disk now. Out: an order to run. It guarantees that a k3s which runs as written down
//! is never touched; that a way back which was broken off is gone to its end before anything is started; and that a program which came
//! with another image of the box meets the datastore of its own version where there is one.

use super::{Binary, Current, Document, Inner, SwitchError, artifact};
use crate::kubernetes::{control::Order, install::file_identity};
use holdfast_protocol::Generation;
use tokio::sync::{Mutex, OwnedMutexGuard};

impl Inner {
    pub(super) async fn take_up(
        &self,
        mut current: OwnedMutexGuard<Option<Current>>,
        known: Option<Document>,
    ) {
        if !self.settings.kubernetes.supervise {
            let unknown = self.unknown(known);
            self.run(&unknown).await;
            *current = Some(unknown);
            return;
        }
        if let Some(restoring) = told(self.records.restoring()) {
            tracing::warn!("bringing k3s back was broken off; going on with it");
            *current = Some(self.finish_going_back(restoring).await);
            return;
        }
        let mut found = told(self.records.current()).unwrap_or_else(|| self.unknown(known));
        if (self.control.give(Order::Adopt(self.target_of(&found))).await).is_ok() {
            // From now on it is also to be started again when it ends.
            self.run(&found).await;
            *current = Some(found);
            return;
        }
        match self.match_program(&mut found).await {
            Ok(()) => {
                self.run(&found).await;
                *current = Some(found);
            }
            Err(other) => *current = Some(*other),
        }
    }

    /// For as long as the daemon runs: whenever k3s is to be started and another program is there than the one that ran, brings that program
    /// and the datastore together before it starts. Where somebody else gives another order first, there is nothing left to do.
    pub(super) async fn meet_exchanged_programs(&self, current: &Mutex<Option<Current>>) {
        loop {
            self.control.exchanged().await;
            let mut current = current.lock().await;
            let Some(found) = current.as_mut().filter(|_| self.control.waits_for_program()) else {
                continue;
            };
            match self.match_program(found).await {
                Ok(()) => self.run(found).await,
                Err(other) => *found = *other,
            }
        }
    }

    /// Makes the record fit the program that is there now. The error is a record that another way has led to already.
    async fn match_program(&self, current: &mut Current) -> Result<(), Box<Current>> {
        if let Some(digest) = current.binary.digest {
            if self.versions.has(digest) {
                return Ok(());
            }
            if let Some(artifact) = artifact(current.section.as_ref())
                && artifact.digest == digest
                && self.install(artifact).await.is_ok()
            {
                return Ok(());
            }
            tracing::error!(%digest, "the k3s that ran is gone; the one of the settings takes its place");
        } else {
            let found = file_identity(&current.binary.path);
            // One that is missing for now is compared when it is back.
            if current.binary.file.is_none() || found.is_none() || current.binary.file == found {
                return Ok(());
            }
        }
        let mut next = self.own_binary();
        match self.ask(&next.path).await {
            Ok(version) => next.version = Some(version.to_string()),
            Err(error) => tracing::warn!(%error, "the k3s of the settings does not say its version"),
        }
        self.meet(current, next).await
    }

    /// Another program is there than the one that ran: an image or a package of the box brought it, or took it back.
    async fn meet(&self, current: &mut Current, next: Binary) -> Result<(), Box<Current>> {
        let former = current.binary.clone();
        if next.version.is_some() && next.version == former.version {
            current.binary = next;
        } else if let Some(pair) = former
            .version
            .as_ref()
            .and_then(|version| self.pair_for(&next, Some(version)))
        {
            // The image went back to what it was. So does what ran on it.
            let to = Document {
                generation: pair.generation.unwrap_or(Generation { epoch: 0, counter: 0 }),
                section: pair.section.clone(),
            };
            match self.go_back(current, to, next.clone(), pair).await {
                Ok(_) => return Err(Box::new(current.clone())),
                Err(error) => {
                    tracing::error!(%error, "the datastore of this k3s cannot be put back; it starts on what is there");
                }
            }
            current.binary = next;
        } else {
            let name = format!("image-{}", next.version.as_deref().unwrap_or("unknown"));
            tracing::warn!(from = ?former.version, to = ?next.version, "another k3s is on the box");
            // k3s must come up all the same.
            let stopped = self.control.give(Order::Stop).await;
            let taken = match stopped {
                Ok(()) => self.take_pair(current, &next, name).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = taken {
                tracing::error!(%error, "no snapshot of the datastore before the first start of this k3s");
            }
            current.previous = Some(former);
            current.binary = next;
        }
        if let Err(error) = self.records.set_current(current) {
            tracing::error!(%error, "it cannot be written down how k3s is started");
        }
        self.tidy(current);
        Ok(())
    }

    /// Once k3s is ready, asks which version it is, so that another one is known as such at the next start. Not before: a start must
    /// not take longer for it.
    pub(super) async fn learn_version(&self, current: &Mutex<Option<Current>>) {
        let mut kubernetes = self.kubernetes.clone();
        let ready = kubernetes.wait_for(|state| state.cluster.is_some()).await;
        if ready.map(drop).is_err() || !self.settings.kubernetes.supervise {
            return;
        }
        let mut current = current.lock().await;
        let Some(current) = current.as_mut() else { return };
        let written = told(self.records.current()).is_some_and(|written| written == *current);
        if current.binary.version.is_none() {
            match self.ask(&current.binary.path).await {
                Ok(version) => current.binary.version = Some(version.to_string()),
                Err(error) => tracing::warn!(%error, "k3s does not say its version"),
            }
        } else if written {
            return;
        }
        if let Err(error) = self.records.set_current(current) {
            tracing::warn!(%error, "it cannot be written down how k3s was started");
        }
    }
}

/// A record, where there is one that can be read. One that cannot must not keep k3s from running.
fn told<T>(read: Result<Option<T>, SwitchError>) -> Option<T> {
    read.unwrap_or_else(|error| {
        tracing::error!(%error, "a record of k3s cannot be read; going on without it");
        None
    })
}
