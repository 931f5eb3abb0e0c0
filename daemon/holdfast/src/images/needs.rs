//! Which images the documents of this box need: those of the document that runs, of the newest, and of the one that a rollback goes back to.

use super::reference;
use crate::identity::Identity;
use holdfast_core::{object::each_element, reconcile::ARCHITECTURE};
use holdfast_protocol::{
    Digest,
    document::{Artifact, DesiredState, ManifestSource},
};
use holdfast_store::{Blobs, Store, StoreError};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

/// What is to be on the box.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Archives that are in the store, by digest.
    pub archives: BTreeMap<Digest, Artifact>,
    /// Full names of images that pods name.
    pub references: BTreeSet<String>,
}

impl Needs {
    /// What the stored documents need. A document that is trusted no more needs nothing.
    pub fn of(store: &Store, blobs: &Blobs, identity: &Identity) -> Result<Self, StoreError> {
        let stored = store.recover()?;
        let mut needs = Self::default();
        for document in [stored.newest, stored.applied, stored.fallback]
            .into_iter()
            .flatten()
        {
            if let Ok(document) = identity.readmit(&document.envelope) {
                needs.add(document.state(), blobs);
            }
        }
        Ok(needs)
    }

    fn add(&mut self, state: &DesiredState, blobs: &Blobs) {
        let of_k3s = state.k3s.iter().map(|k3s| &k3s.images);
        let of_apps = state.apps.iter().map(|app| &app.images);
        for archive in of_k3s
            .chain(of_apps)
            .filter_map(|images| images.get(ARCHITECTURE))
            .flatten()
        {
            if blobs.contains(archive.digest, archive.size) {
                self.archives.insert(archive.digest, archive.clone());
            }
        }
        for source in state.apps.iter().flat_map(|app| &app.manifests) {
            match source {
                ManifestSource::Inline(objects) => {
                    for object in objects {
                        reference::of_object(object, &mut self.references);
                    }
                }
                ManifestSource::Blob(blob) => {
                    // One that is not here yet is looked at when it is.
                    let Ok(content) = blobs.read(blob.digest) else {
                        continue;
                    };
                    // One object at a time: a thousand of them at once would be megabytes. What is no list of objects, admission refuses.
                    let _ = each_element(&content, |_, object| {
                        reference::of_object(&object, &mut self.references);
                        Ok::<_, Infallible>(())
                    });
                }
            }
        }
    }
}
