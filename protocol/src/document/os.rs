//! The operating system of the box, as a release wants it.

use super::Artifact;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The longest version of an operating system image, in bytes: it is part of a partition's label, which has room for 36 characters.
pub const MAX_OS_VERSION_BYTES: usize = 20;

/// The operating system that the box must run. Absent in a document, it is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OsSection {
    /// Version of the image, `IMAGE_VERSION` of its `os-release`: letters, digits, `.`, `-`, `~` and `^`, at most
    /// [`MAX_OS_VERSION_BYTES`].
    pub version: String,
    /// By architecture as k3s names it (`amd64`, `arm64`): the signed manifest of the image, a DSSE envelope whose payload says which
    /// chunks the image is made of and where they are.
    pub images: BTreeMap<String, Artifact>,
    /// The most bytes a second that are fetched for it; as fast as the link goes where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes_per_second: Option<u64>,
    /// Fields of a newer minor version, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Whether `version` can be the version of an image.
pub fn is_os_version(version: &str) -> bool {
    !version.is_empty()
        && version.len() <= MAX_OS_VERSION_BYTES
        && version.starts_with(|first: char| first.is_ascii_alphanumeric())
        && version
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-~^".contains(&byte))
}
