//! The operating system as the exchange of it asks for it: see [`Slots`].

use super::{Booted, Os, Staged, Wanted, booted, error::Fault};
use crate::{
    artifacts::Fetcher,
    reconcile::system::{Running, Slots},
    settings::Settings,
};
use futures::future::BoxFuture;
use holdfast_core::{failure::Failure, reconcile::OsRef};
use holdfast_os::Architecture;
use holdfast_protocol::Problem;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// The slots of this machine; none where it runs no image. Without a fetcher they are only for looking and for going back.
///
/// # Errors
/// Why they cannot be read though it runs one.
pub fn open(settings: &Settings, fetcher: Option<Fetcher>) -> Result<Option<Arc<dyn Slots>>, Problem> {
    let os = Os::new(settings, fetcher);
    let told = |fault: Fault| fault.problem();
    let Some(booted) = booted(&os.places).map_err(told)? else {
        return Ok(None);
    };
    if os.fetcher.is_some()
        && let Err(fault) = super::settle(&os.places)
    {
        tracing::warn!(%fault, "the name of the running image is not put right");
    }
    Ok(Some(Arc::new(Machine {
        os,
        running: Running {
            version: booted.version,
            slot: booted.slot.name().to_owned(),
        },
        staged: Mutex::new(None),
    })))
}

struct Machine {
    os: Os,
    running: Running,
    /// What was staged last, so that it need not be looked at again to be armed.
    staged: Mutex<Option<Staged>>,
}

impl Machine {
    fn wanted(os: &OsRef) -> Result<Wanted, Fault> {
        let own = Architecture::current().map_or("this processor", Architecture::name);
        let manifest = os.manifest.clone().ok_or_else(|| Fault::Architecture {
            version: os.version.clone(),
            found: "other processors".into(),
            own: own.into(),
        })?;
        Ok(Wanted {
            version: os.version.clone(),
            manifest,
            max_bytes_per_second: os.max_bytes_per_second,
        })
    }

    async fn staged(&self, os: &OsRef) -> Result<Staged, Failure> {
        let wanted = Self::wanted(os)?;
        let staged = self.os.stage(&wanted, CancellationToken::new()).await?;
        *self.staged.lock().unwrap_or_else(PoisonError::into_inner) = Some(staged.clone());
        Ok(staged)
    }

    fn look(&self) -> Option<Booted> {
        booted(&self.os.places).unwrap_or_else(|fault| {
            tracing::warn!(%fault, "the slots cannot be looked at");
            None
        })
    }
}

impl Slots for Machine {
    fn running(&self) -> &Running {
        &self.running
    }

    fn is_on_trial(&self, written: bool) -> bool {
        self.os.is_on_trial().unwrap_or(written)
    }

    fn other(&self) -> Option<String> {
        self.look()
            .and_then(|booted| booted.other)
            .map(|other| other.version)
    }

    fn spent(&self) -> Option<String> {
        super::spent(&self.os.places).unwrap_or_default()
    }

    fn check<'a>(&'a self, os: &'a OsRef) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async {
            if os.version != self.running.version {
                return self.os.check(&Self::wanted(os)?).await;
            }
            match Self::wanted(os) {
                Ok(wanted) => self.os.check_running(&wanted).await,
                // It is of no other version that it would have to be fetched for.
                Err(_) => Ok(()),
            }
        })
    }

    fn stage<'a>(&'a self, os: &'a OsRef) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async { self.staged(os).await.map(drop) })
    }

    fn arm<'a>(&'a self, os: &'a OsRef) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async {
            let known = self.staged.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let digest = os.manifest.as_ref().map(|manifest| manifest.digest);
            let staged = match known {
                Some(staged) if Some(staged.digest) == digest => staged,
                _ => self.staged(os).await?,
            };
            self.os.install(&staged).await
        })
    }

    fn disarm<'a>(&'a self, version: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.os.disarm(version))
    }

    fn return_to<'a>(&'a self, version: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.os.go_back_to(version))
    }
}
