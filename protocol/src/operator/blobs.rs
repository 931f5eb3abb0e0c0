//! Blobs at the hub: what is there, how it gets there, and how it goes.

use crate::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A blob at the hub: manifests, a k3s binary, an archive of images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BlobInfo {
    /// SHA-256 of its content.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was uploaded last.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// The operator who uploaded it first.
    pub created_by: String,
    /// Releases that name it.
    pub releases: Vec<String>,
    /// Nodes whose present document names it.
    pub nodes: u32,
}

/// Asks for the removal of blobs that no release and no document names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CollectBlobs {
    /// Only those that were uploaded before so many seconds; at least 600, so that the upload for a release to come is left alone.
    pub older_than_seconds: u64,
    /// Whether they are only named.
    #[serde(default)]
    pub dry_run: bool,
}

/// Blobs that were removed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CollectedBlobs {
    /// The blobs.
    pub blobs: Vec<BlobInfo>,
    /// Their size in bytes, together.
    pub bytes: u64,
}

/// Begins the upload of a blob, or asks where one goes on that was cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BeginUpload {
    /// The blob's size in bytes.
    pub size: u64,
}

/// How far the upload of a blob is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BlobUpload {
    /// SHA-256 of the blob's content.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// Bytes that the hub has: the next piece begins there.
    pub received: u64,
    /// Whether the blob is whole, checked and known.
    pub complete: bool,
}
