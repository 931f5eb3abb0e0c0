//! Checks before anything is touched: can this document work on this box?
//!
//! In: a document whose blobs and artifacts are here, and what is known of the box. Out: nothing, or a [`Failure`] with the first cause.
//! It guarantees: nothing is changed; only what is certain is a refusal, whatever could be another way in a minute passes or is retryable;
//! nothing waits for a link. In the order of asking: sealed values, place of the datastore, version of Kubernetes, free space, the program
//! that k3s would be (installed beside the one that runs, and asked what it is), kinds and schemas (a dry run of what would be written),
//! memory, images.

mod dry_run;
mod images;
mod memory;
pub(crate) mod os;
mod quantity;
mod space;
mod version;

use crate::{
    apply::Objects,
    artifacts::Fetcher,
    codes,
    kubernetes::{
        Cluster, KubernetesError,
        datastore::DatastoreError,
        switch::{Switcher, Wanted},
    },
    reconcile::system::System,
    sealed,
};
use holdfast_core::{
    failure::Failure,
    object::{ObjectKey, PreparedObject},
    plan::plan,
    reconcile::DocumentRef,
};
use holdfast_protocol::{
    Digest, Problem,
    document::{DesiredState, K3sRole},
};
use std::{
    collections::{BTreeSet, HashSet},
    path::PathBuf,
    sync::Arc,
};

/// What is known of the box.
pub struct Preflight {
    /// Documents and their objects.
    pub objects: Objects,
    /// Kubernetes, while it is ready.
    pub cluster: Option<Arc<Cluster>>,
    /// Requests at the same time, at most.
    pub concurrency: usize,
    /// Version of the Kubernetes that runs, or ran last.
    pub version: Option<String>,
    /// Knows whether the document changes k3s.
    pub switcher: Arc<Switcher>,
    /// The operating system, where documents decide it.
    pub system: Option<Arc<System>>,
    /// Whether no document runs yet.
    pub is_first: bool,
    /// Artifacts of documents that ran: their images are unpacked already.
    pub unpacked: BTreeSet<Digest>,
    /// Where k3s keeps images and datastore.
    pub data_dir: PathBuf,
    /// Asks registries for images; absent where none is to be asked.
    pub registries: Option<Fetcher>,
}

impl Preflight {
    /// Checks the document.
    ///
    /// # Errors
    /// The first thing that keeps it from working; retryable where it can be otherwise later, such as a Kubernetes that is not ready.
    pub async fn check(&self, document: &DocumentRef) -> Result<(), Failure> {
        let verified = self.objects.document(document).map_err(|failure| *failure)?;
        let answer = self.check_state(document, verified.state()).await;
        // The next use of the document needs no second look at the disk, unless it is kept waiting.
        if answer.is_ok() && verified.state().policy.windows.is_empty() {
            self.objects.hand_over(verified);
        }
        answer
    }

    async fn check_state(&self, document: &DocumentRef, state: &DesiredState) -> Result<(), Failure> {
        let is_agent = (state.k3s.as_ref()).is_some_and(|k3s| k3s.role == K3sRole::Agent);
        if is_agent && !state.apps.is_empty() {
            return Err(refused(
                codes::KUBERNETES_AGENT_APPS,
                "agents take no apps: this box would be an agent of k3s, which has no API to apply them to"
                    .into(),
                "give them to a server of the site",
            ));
        }
        os::check(self.system.as_deref(), document).await?;
        let sealing = self.objects.identity.borrow().sealing.clone();
        sealed::check(state, sealing.as_deref()).map_err(|problem| Failure::of_document(problem, false))?;
        let changes_kubernetes = !self.switcher.is_as_wanted(state.k3s.as_ref()).await;
        if changes_kubernetes {
            self.switcher
                .check_datastore(state.k3s.as_ref())
                .map_err(|error| {
                    let is_certain = matches!(error, DatastoreError::NotInMemory { .. });
                    Failure::of_document(error.problem(), !is_certain)
                })?;
        }
        let wanted = state.k3s.as_ref().and_then(|k3s| k3s.version.as_deref());
        if let (Some(running), Some(wanted)) = (self.version.as_deref(), wanted) {
            version::check(running, wanted).map_err(|failure| *failure)?;
        }
        space::check(&self.data_dir, document, &self.unpacked, changes_kubernetes)
            .map_err(|failure| *failure)?;
        if changes_kubernetes {
            let to = Wanted {
                generation: document.generation,
                section: state.k3s.as_ref(),
            };
            // The program that is wanted, asked what it is: not only once the one that runs was stopped for it.
            self.switcher.check(to).await?;
        }
        // Whether the agent itself works is seen after the gate, by its kubelet.
        if is_agent {
            return Ok(());
        }
        let Some(cluster) = &self.cluster else {
            // Where the document brings Kubernetes up or changes it, what needs it shows after the switch, which can be undone.
            if changes_kubernetes || self.is_first {
                return Ok(());
            }
            let error = KubernetesError::Unreachable {
                what: "the check of the document".into(),
                reason: "Kubernetes is not ready".into(),
            };
            return Err(Failure::of_document(error.problem(), true));
        };
        let objects = self
            .objects
            .prepare(state, Some(cluster))
            .await
            .map_err(|failure| *failure)?;
        let inventory = self
            .objects
            .store
            .inventory()
            .map_err(|error| Failure::of_document(error.problem(), true))?;
        let plan = plan(document.generation, &objects, &inventory, state.policy.prune);
        let changed: HashSet<_> = plan
            .steps
            .iter()
            .flat_map(|step| step.create.iter().chain(&step.update))
            .map(|planned| &planned.key)
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        let look = Look {
            cluster,
            concurrency: self.concurrency,
            document,
            objects: &objects,
            changed,
            owned: inventory.iter().map(|entry| &entry.key).collect(),
            changes_kubernetes,
        };
        dry_run::check(&look).await?;
        if let Some(pods) = memory::check(&look).await?
            && let Some(fetcher) = &self.registries
        {
            images::check(fetcher, &look, state, &pods).await?;
        }
        Ok(())
    }
}

/// A document held against a Kubernetes that is ready.
struct Look<'a> {
    cluster: &'a Cluster,
    concurrency: usize,
    document: &'a DocumentRef,
    /// All objects, in the order of applying.
    objects: &'a [PreparedObject],
    /// Those that would be written.
    changed: HashSet<&'a ObjectKey>,
    /// What Holdfast applied before.
    owned: HashSet<&'a ObjectKey>,
    changes_kubernetes: bool,
}

impl<'a> Look<'a> {
    /// Objects that would be written and whose app may not fail alone.
    fn changed(&self) -> impl Iterator<Item = &'a PreparedObject> + '_ {
        self.objects.iter().filter(|object| {
            self.changed.contains(&object.key) && !self.document.isolated.contains(&object.app)
        })
    }
}

/// A refusal for good.
fn refused(code: &'static str, message: String, action: &str) -> Failure {
    Failure::of_document(Problem::new(code, message, action), false)
}
