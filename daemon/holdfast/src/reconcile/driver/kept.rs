//! The documents that matter, and that what they need stays on the disk.

use super::Driver;
use holdfast_core::reconcile::{DocumentRef, JournalStep, deadline_after_restarts};
use holdfast_protocol::{
    Digest,
    document::{DesiredState, K3sSection, Policy},
};
use holdfast_store::StoredDocument;
use std::{collections::BTreeSet, sync::Arc};

/// What a document says that is needed beside its objects.
#[derive(Clone)]
pub(super) struct Known {
    /// What the machine knows of it.
    pub(super) reference: DocumentRef,
    /// Its apps.
    pub(super) apps: Vec<String>,
    /// What it says of k3s.
    pub(super) k3s: Option<Arc<K3sSection>>,
    /// How it wants to be treated.
    pub(super) policy: Arc<Policy>,
}

/// Documents that are remembered before those are looked for that matter no more.
const MANY: usize = 16;

impl Driver {
    pub(super) fn remember(&mut self, reference: &DocumentRef, state: &DesiredState) {
        let known = Known {
            reference: reference.clone(),
            apps: state.apps.iter().map(|app| app.name.clone()).collect(),
            k3s: state.k3s.clone().map(Arc::new),
            policy: Arc::new(state.policy.clone()),
        };
        self.known.insert(reference.digest, known);
        if self.known.len() > MANY
            && let Ok(kept) = self.parts.objects.store.kept()
        {
            self.known.retain(|digest, _| kept.contains(digest));
        }
    }

    pub(super) fn section(&self, digest: Digest) -> Option<Arc<K3sSection>> {
        self.known.get(&digest)?.k3s.clone()
    }

    /// Counts this start where it fell into the change to `document`; gives the seconds that the change still has.
    pub(super) fn deadline_left(&self, document: &DocumentRef, step: &JournalStep) -> Option<u32> {
        match step {
            JournalStep::Switching | JournalStep::Applying | JournalStep::Applied => {
                let counted = self.parts.objects.store.count_restart(document.digest);
                self.parts.recorder.check(counted.as_ref().err());
                let restarts = counted.ok()?;
                Some(deadline_after_restarts(document.ready_deadline_seconds, restarts))
            }
            // Restarts are what a switch of the operating system is made of; it has a bound of its own. A way back never gives up.
            JournalStep::SwitchingOs
            | JournalStep::RollingBack { .. }
            | JournalStep::Accepted
            | JournalStep::Proven
            | JournalStep::Failed { .. }
            | JournalStep::RolledBack { .. } => None,
        }
    }

    /// A stored document, where it passes admission again.
    pub(super) fn recover(&mut self, stored: &StoredDocument) -> Option<DocumentRef> {
        if let Some(known) = self.known.get(&stored.digest) {
            return Some(known.reference.clone());
        }
        let identity = self.parts.objects.identity.borrow().clone();
        match identity.readmit(&stored.envelope) {
            Ok(document) => {
                let reference = DocumentRef::of(&document);
                self.remember(&reference, document.state());
                Some(reference)
            }
            Err(rejection) => {
                let problem = rejection.problem;
                tracing::error!(%problem, generation = %stored.generation, "a stored document is trusted no more; what runs keeps running");
                let now = self.parts.recorder.floor.now();
                self.parts.recorder.conditions.set("document", problem, now);
                let discarded = self.parts.objects.store.discard(stored.digest);
                self.stored(discarded);
                None
            }
        }
    }

    /// Removes blobs that no document needs which is kept: those that run, that come next, and that can be gone back to.
    pub(super) fn collect_garbage(&mut self) {
        let store = self.parts.objects.store.clone();
        let kept = match store.kept() {
            Ok(kept) => kept,
            // Without knowing what is needed, nothing is removed.
            Err(error) => return self.parts.recorder.check(Some(&error)),
        };
        let mut needed = BTreeSet::new();
        let mut digests = BTreeSet::new();
        for digest in kept {
            let stored = match self.known.get(&digest) {
                Some(_) => None,
                None => store.document(digest).ok().flatten(),
            };
            let reference = match stored {
                Some(stored) => self.recover(&stored),
                None => self.known.get(&digest).map(|known| known.reference.clone()),
            };
            if let Some(reference) = reference {
                digests.insert(digest);
                needed.extend(reference.blobs.iter().map(|blob| blob.digest));
                needed.extend(reference.artifacts.iter().map(|artifact| artifact.digest));
            }
        }
        self.known.retain(|digest, _| digests.contains(digest));
        match self.parts.objects.blobs.collect_garbage(&needed) {
            Ok(collected) if collected.blobs > 0 => {
                tracing::info!(
                    blobs = collected.blobs,
                    bytes = collected.bytes,
                    "removed blobs that nothing needs"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "blobs that nothing needs cannot be removed"),
        }
    }
}
