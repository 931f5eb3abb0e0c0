//! What the machine knows of a document: enough to lead it on its way, nothing of its objects.

use crate::admission::VerifiedDocument;
use holdfast_protocol::{
    Digest, Generation,
    document::{Artifact, BlobRef, DesiredState, DriftPolicy, FailurePolicy, ManifestSource},
};
use std::collections::BTreeSet;

/// What the machine needs to know of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentRef {
    /// Place in the order of documents.
    pub generation: Generation,
    /// SHA-256 of its payload.
    pub digest: Digest,
    /// Blobs that it needs.
    pub blobs: Vec<BlobRef>,
    /// Seconds within which it must be ready.
    pub ready_deadline_seconds: u32,
    /// What happens on drift.
    pub drift: DriftPolicy,
    /// Seconds that it must stay ready to count as good.
    pub stability_seconds: u32,
    /// Whether the node goes back to the last good generation when it fails.
    pub on_failure: FailurePolicy,
    /// k3s binaries, image archives and the manifest of the operating system that it needs, for this machine's architecture.
    pub artifacts: Vec<Artifact>,
    /// The operating system that it wants; absent where it says nothing of it.
    pub os: Option<OsRef>,
    /// Apps that may fail alone.
    pub isolated: BTreeSet<String>,
}

/// An operating system that a document wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsRef {
    /// Version of the image. No two images have the same.
    pub version: String,
    /// Its signed manifest for this machine's architecture, among [`DocumentRef::artifacts`]; absent where there is none for it.
    pub manifest: Option<Artifact>,
    /// The most bytes a second that are fetched for it.
    pub max_bytes_per_second: Option<u64>,
}

impl DocumentRef {
    /// What the machine needs to know of `document`.
    pub fn of(document: &VerifiedDocument) -> Self {
        let state = document.state();
        let blobs = state
            .apps
            .iter()
            .flat_map(|app| &app.manifests)
            .filter_map(|source| match source {
                ManifestSource::Blob(blob) => Some(blob.clone()),
                ManifestSource::Inline(_) => None,
            })
            .collect();
        Self {
            generation: document.generation(),
            digest: document.digest(),
            blobs,
            ready_deadline_seconds: state.policy.ready_deadline_seconds,
            drift: state.policy.drift,
            stability_seconds: state.policy.stability_seconds,
            on_failure: state.policy.on_failure,
            artifacts: artifacts(state),
            os: state.os.as_ref().map(|os| OsRef {
                version: os.version.clone(),
                manifest: os.images.get(ARCHITECTURE).cloned(),
                max_bytes_per_second: os.max_bytes_per_second,
            }),
            isolated: state
                .apps
                .iter()
                .filter(|app| app.on_failure == FailurePolicy::Isolate)
                .map(|app| app.name.clone())
                .collect(),
        }
    }
}

/// This machine's architecture, as k3s names it.
pub const ARCHITECTURE: &str = match std::env::consts::ARCH.as_bytes() {
    b"aarch64" => "arm64",
    _ => "amd64",
};

fn artifacts(state: &DesiredState) -> Vec<Artifact> {
    let k3s = state.k3s.iter().flat_map(|k3s| {
        let images = k3s.images.get(ARCHITECTURE).into_iter().flatten();
        k3s.binaries.get(ARCHITECTURE).into_iter().chain(images)
    });
    let apps = state
        .apps
        .iter()
        .flat_map(|app| app.images.get(ARCHITECTURE).into_iter().flatten());
    let os = state.os.iter().filter_map(|os| os.images.get(ARCHITECTURE));
    k3s.chain(apps).chain(os).cloned().collect()
}
