//! A document's objects, made ready from what is on this box alone.
//!
//! In: a reference to a stored document. Out: its prepared objects. It guarantees that nothing of a stored document has an effect before
//! it passed admission again, and that nobody keeps the bodies in memory for longer than they are needed.

use crate::{identity::Identity, kubernetes::Cluster, sealed};
use holdfast_core::{
    admission::VerifiedDocument,
    failure::Failure,
    object::{ObjectKey, PrepareError, PreparedObject, Scope, Scopes, prepare_document_opened},
    reconcile::DocumentRef,
};
use holdfast_protocol::{
    Problem, codes as protocol_codes,
    document::{BlobRef, DesiredState},
};
use holdfast_store::{Blobs, Store};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// Where documents and their blobs are.
#[derive(Clone)]
pub struct Objects {
    /// Documents.
    pub store: Arc<Store>,
    /// Blobs.
    pub blobs: Blobs,
    /// The node's name and the keys it trusts.
    pub identity: watch::Receiver<Arc<Identity>>,
    fresh: Arc<Mutex<Option<VerifiedDocument>>>,
}

impl Objects {
    /// Documents of this store.
    pub fn new(store: Arc<Store>, blobs: Blobs, identity: watch::Receiver<Arc<Identity>>) -> Self {
        Self {
            store,
            blobs,
            identity,
            fresh: Arc::default(),
        }
    }

    /// Takes a document that has just passed admission, so that its first use needs no second look at the disk.
    pub fn hand_over(&self, document: VerifiedDocument) {
        *self.fresh.lock().unwrap_or_else(PoisonError::into_inner) = Some(document);
    }

    /// A stored document, after it passed admission again.
    pub fn document(&self, document: &DocumentRef) -> Result<VerifiedDocument, Box<Failure>> {
        // Taken out, not copied: nobody keeps the document in memory after its first use.
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(fresh) = fresh.filter(|fresh| fresh.digest() == document.digest) {
            return Ok(fresh);
        }
        let stored = self
            .store
            .document(document.digest)
            .map_err(|error| Failure::of_document(error.problem(), true))?;
        let Some(stored) = stored else {
            let problem = Problem::new(
                protocol_codes::INTERNAL,
                format!("document {} is not stored any more", document.generation),
                "publish anew",
            );
            return Err(Failure::of_document(problem, false).into());
        };
        let identity = self.identity.borrow().clone();
        identity
            .readmit(&stored.envelope)
            .map_err(|rejection| Failure::of_document(rejection.problem, false).into())
    }

    /// The objects of a document, in the order of applying. Kinds that nobody knows yet are asked for at `cluster`, where there is one.
    pub async fn prepare(
        &self,
        state: &DesiredState,
        cluster: Option<&Cluster>,
    ) -> Result<Vec<PreparedObject>, Box<Failure>> {
        let objects = self.prepare_with(state, &Scopes::default())?;
        let Some(cluster) = cluster else {
            return Ok(objects);
        };
        let kinds: BTreeSet<_> = objects
            .iter()
            .map(|object| (object.key.api_version.clone(), object.key.kind.clone()))
            .collect();
        let mut scopes = Scopes::default();
        let mut wrong = false;
        for (api_version, kind) in kinds {
            // A kind that is not served yet comes with a definition of the document, or its objects fail by name.
            let Ok(served) = cluster.kind(&api_version, &kind).await else {
                continue;
            };
            let scope = if served.namespaced {
                Scope::Namespaced
            } else {
                Scope::Cluster
            };
            scopes.learn(&served.resource.group, &kind, scope);
            wrong |= objects
                .iter()
                .filter(|object| object.key.api_version == api_version && object.key.kind == kind)
                .any(|object| object.key.namespace.is_some() != served.namespaced);
        }
        if wrong {
            return self.prepare_with(state, &scopes);
        }
        Ok(objects)
    }

    fn prepare_with(
        &self,
        state: &DesiredState,
        scopes: &Scopes,
    ) -> Result<Vec<PreparedObject>, Box<Failure>> {
        let sealing = self.identity.borrow().sealing.clone();
        prepare_document_opened(
            state,
            scopes,
            |blob: &BlobRef| self.blobs.read(blob.digest),
            |place, value| sealed::open(place, value, sealing.as_deref()).map(|value| value.to_string()),
        )
        .map_err(|error| {
            let (problem, retryable) = match error {
                PrepareError::Blob(error) => (error.problem(), true),
                PrepareError::Refused(problem) => (problem, false),
            };
            Failure::of_document(problem, retryable).into()
        })
    }

    /// Those of a document's objects that `keys` names.
    pub async fn some(
        &self,
        document: &DocumentRef,
        keys: &BTreeSet<ObjectKey>,
        cluster: &Cluster,
    ) -> Result<Vec<PreparedObject>, Box<Failure>> {
        let verified = self.document(document)?;
        let mut objects = self.prepare(verified.state(), Some(cluster)).await?;
        objects.retain(|object| keys.contains(&object.key));
        Ok(objects)
    }
}
