//! Artifacts: content that is named by its SHA-256 and can be had from several places.

use crate::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The largest artifact, in bytes (8 GiB).
pub const MAX_ARTIFACT_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// Content by its digest: a k3s binary, an archive of container images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// SHA-256 of the whole content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// File name, for people and for tools that look at it: `k3s-airgap-images-arm64.tar.zst`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where it can be had beside the node's own store, the image of the box and the hub, which are always asked first, in that order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<ArtifactSource>,
    /// Fields of a newer minor version, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A place that an artifact can be had from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ArtifactSource {
    /// A repository of an OCI registry (Harbor, Distribution), `harbor.example.com/edge/k3s`; the blob in it has the artifact's digest.
    Oci(String),
    /// An `https` address; redirects are followed.
    Url(String),
}
