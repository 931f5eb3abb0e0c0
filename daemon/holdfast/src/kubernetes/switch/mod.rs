//! Brings k3s to what a document says, and back.
//!
//! ```text
//! there: install → stop → snapshot, with the program as a pair → current.json → start
//! back:  verify  → restoring.json → stop → snapshot back → current.json → remove restoring.json → start
//! ```
//!
//! In: the k3s section of a document. Out: a k3s that runs so (or is on its way up), or a reason why not. It guarantees that nothing is
//! touched where everything is as wanted already; that each program runs on the datastore that it wrote itself or that the version before
//! it wrote, never on a half restored one; and that after a power cut anywhere, one of the two pairs runs.
//!
//! What stays as it is on both ways: `server/token` and `server/tls` of k3s. They are the cluster's identity, not the version's: each
//! version reads those of the others, and certificates that were made in between are trusted by the same authorities before and after.

mod error;
mod machine;
mod pair;
mod record;
mod resume;
mod work;

pub use error::SwitchError;
pub use pair::{Kept, Pair};
pub use record::{Binary, Current};

use super::{
    KubernetesState,
    care::snapshot_directory,
    control::Control,
    datastore::{DatastoreError, Place, Snapshots},
    install::Versions,
    k3s_config,
    target::K3sTarget,
};
use crate::settings::Settings;
use futures::future::BoxFuture;
use holdfast_core::{failure::Failure, reconcile::ARCHITECTURE};
use holdfast_protocol::{
    Generation, NodeId,
    document::{Artifact, Datastore, K3sRole, K3sSection},
};
use holdfast_store::Blobs;
use pair::Pairs;
use record::Records;
use std::{
    future::{Ready, ready},
    sync::{Arc, Mutex as SyncMutex, PoisonError},
};
use tokio::{
    sync::{Mutex, oneshot, watch},
    task::JoinSet,
};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switched {
    /// Nothing: everything was as wanted.
    AlreadyRight,
    /// k3s was started as wanted.
    Done,
}

/// What a document changes of k3s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// Its configuration: it is restarted.
    Configuration,
    /// The program: it is stopped, its datastore is snapshotted, another one is started.
    Program {
        /// What the program that runs says of itself.
        from: Option<String>,
        /// What the wanted one says.
        to: Option<String>,
    },
}

/// Where a document wants k3s to be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The document.
    pub generation: Generation,
    /// What it says of k3s.
    pub section: Option<&'a K3sSection>,
}

/// The same, for work that outlives whoever asked for it.
#[derive(Clone, Debug)]
struct Document {
    generation: Generation,
    section: Option<K3sSection>,
}

impl From<Wanted<'_>> for Document {
    fn from(wanted: Wanted<'_>) -> Self {
        Self {
            generation: wanted.generation,
            section: wanted.section.cloned(),
        }
    }
}

/// Switches k3s. One at a time; whoever comes second waits. Work that has begun goes on to its end even if nobody waits for it any more;
/// only the end of this ends it.
pub struct Switcher {
    inner: Arc<Inner>,
    /// How k3s was switched to last; taken for as long as somebody switches it. None before [`Switcher::take_up`].
    current: Arc<Mutex<Option<Current>>>,
    tasks: SyncMutex<JoinSet<()>>,
}

struct Inner {
    settings: Arc<Settings>,
    node: NodeId,
    blobs: Blobs,
    control: Control,
    kubernetes: watch::Receiver<KubernetesState>,
    place: Place,
    versions: Versions,
    records: Records,
    pairs: Pairs,
}

impl Switcher {
    /// A switcher that gives its orders through `control`. Nothing runs before [`Self::take_up`].
    pub fn new(
        settings: Arc<Settings>,
        node: NodeId,
        blobs: Blobs,
        control: Control,
        kubernetes: watch::Receiver<KubernetesState>,
    ) -> Self {
        let home = settings.state_dir.join("k3s");
        let inner = Inner {
            place: Place::new(
                &settings.kubernetes.data_dir,
                settings.kubernetes.datastore_ram_dir.clone(),
                Snapshots::new(snapshot_directory(&settings)),
            ),
            versions: Versions::new(home.clone()),
            records: Records::new(home.clone()),
            pairs: Pairs::new(&home),
            settings,
            node,
            blobs,
            control,
            kubernetes,
        };
        Self {
            inner: Arc::new(inner),
            current: Arc::default(),
            tasks: SyncMutex::default(),
        }
    }

    /// At the start of the daemon, once: lets k3s run as it was switched to last, and goes to its end what a power cut broke off. `known` is
    /// the document that is kept up, for a box whose last switch was not written down. Does not wait; whoever switches after this does.
    pub fn take_up(&self, known: Option<Wanted<'_>>) -> Ready<()> {
        let known = known.map(Document::from);
        // Nobody has it yet: this is the first to want it.
        let Ok(current) = self.current.clone().try_lock_owned() else {
            return ready(());
        };
        let (inner, shared) = (self.inner.clone(), self.current.clone());
        self.spawn(async move {
            inner.take_up(current, known).await;
            tokio::join!(
                inner.learn_version(&shared),
                inner.meet_exchanged_programs(&shared)
            );
        });
        ready(())
    }

    /// What a document with this section would change, checked as far as it can be without touching what runs: the program is installed
    /// beside the one that runs and asked for its version, and there must be room for a snapshot.
    ///
    /// # Errors
    /// Why it cannot work.
    pub async fn check(&self, to: Wanted<'_>) -> Result<Change, Failure> {
        let to = Document::from(to);
        self.with_current(|inner, current| Box::pin(async move { inner.check(current, &to).await }))
            .await
    }

    /// Brings k3s to what a document says. Answers once it was started, before it is ready; whether it becomes ready is seen by who waits
    /// for that. An older minor version is gone to only where a snapshot of what it wrote is there, which then returns with it.
    ///
    /// # Errors
    /// Why k3s runs on as before.
    pub async fn switch(&self, to: Wanted<'_>) -> Result<Switched, Failure> {
        let to = Document::from(to);
        self.with_current(|inner, current| Box::pin(inner.switch(current, to)))
            .await
    }

    /// Brings k3s back to what `to` says. Where the document `undo` had switched it to another version, program and datastore return as a pair.
    ///
    /// # Errors
    /// As for [`Self::switch`].
    pub async fn restore(&self, to: Wanted<'_>, undo: Generation) -> Result<Switched, Failure> {
        let to = Document::from(to);
        self.with_current(move |inner, current| Box::pin(inner.restore(current, to, undo)))
            .await
    }

    /// Whether a document with this section changes nothing of k3s, as far as can be seen without asking a program.
    pub async fn is_as_wanted(&self, section: Option<&K3sSection>) -> bool {
        let current = self.current.lock().await;
        let Some(current) = &*current else { return false };
        !self.inner.settings.kubernetes.supervise || self.inner.is_same(current, section)
    }

    /// Whether the datastore can be where a document with this section wants it. Changes nothing.
    pub fn check_datastore(&self, section: Option<&K3sSection>) -> Result<(), DatastoreError> {
        let role = section.map(|section| section.role).unwrap_or_default();
        let inner = &self.inner;
        if !inner.settings.kubernetes.supervise
            || role == K3sRole::Agent
            || inner.datastore(section) != Datastore::Ram
        {
            return Ok(());
        }
        inner.place.check_memory()
    }

    /// Runs work that must not be broken off with the record in hand.
    async fn with_current<T, W>(&self, work: W) -> Result<T, Failure>
    where
        T: Send + 'static,
        W: for<'a> FnOnce(&'a Inner, &'a mut Current) -> BoxFuture<'a, Result<T, SwitchError>>
            + Send
            + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let (inner, current) = (self.inner.clone(), self.current.clone());
        self.spawn(async move {
            let mut current = current.lock_owned().await;
            let current = current.get_or_insert_with(|| inner.unknown(None));
            // Nobody may be waiting any more.
            let _ = answer.send(work(&inner, current).await);
        });
        match answered.await {
            Ok(result) => result.map_err(|error| error.failure()),
            // Only the end of the daemon ends it so.
            Err(_) => std::future::pending().await,
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }
}

impl Inner {
    /// The record of a k3s that nobody wrote down: the program of the settings.
    fn unknown(&self, known: Option<Document>) -> Current {
        let (generation, section) = match known {
            Some(known) => (Some(known.generation), known.section),
            None => (None, None),
        };
        Current {
            generation,
            section,
            binary: self.own_binary(),
            previous: None,
        }
    }

    fn target(&self, section: Option<&K3sSection>, binary: &Binary) -> K3sTarget {
        K3sTarget {
            binary: binary.path.clone(),
            digest: binary.digest,
            file: binary.file.clone(),
            version: binary.version.clone(),
            role: section.map(|section| section.role).unwrap_or_default(),
            config: k3s_config::render(&self.settings, &self.node, section),
            datastore: self.datastore(section),
        }
    }

    fn datastore(&self, section: Option<&K3sSection>) -> Datastore {
        section
            .and_then(|section| section.datastore)
            .unwrap_or_else(|| self.settings.kubernetes_datastore())
    }

    fn target_of(&self, current: &Current) -> Arc<K3sTarget> {
        Arc::new(self.target(current.section.as_ref(), &current.binary))
    }
}

/// The program that a section names for this machine.
fn artifact(section: Option<&K3sSection>) -> Option<&Artifact> {
    section?.binaries.get(ARCHITECTURE)
}
