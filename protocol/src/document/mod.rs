//! The desired state of one node: what must run, in full, signed by the hub. Nothing is a delta.

mod artifact;
mod k3s;
mod os;
mod policy;
mod probe;
mod sealed;
mod validate;

pub use artifact::{Artifact, ArtifactSource, MAX_ARTIFACT_BYTES};
pub use k3s::{Datastore, K3sJoin, K3sRole, K3sSection, K3sSite, Registries};
pub use os::{MAX_OS_VERSION_BYTES, OsSection, is_os_version};
pub use policy::{DriftPolicy, FailurePolicy, MaintenanceWindow, Policy, Weekday};
pub use probe::{Probe, ProbeCheck, ProbeTarget};
pub use sealed::Sealed;
pub use validate::InvalidDocument;

#[cfg(doc)]
use crate::MAX_INLINE_BYTES;
use crate::{Digest, Generation, NodeId, SchemaVersion};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The most apps in one document.
pub const MAX_APPS: usize = 256;
/// The most Kubernetes objects in one document, over all apps and blobs.
pub const MAX_OBJECTS: usize = 5_000;
/// The largest blob of manifests, in bytes (16 MiB).
pub const MAX_MANIFEST_BLOB_BYTES: u64 = 16 * 1024 * 1024;

/// Desired state, version 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredState {
    /// Version of this document's schema.
    pub schema: SchemaVersion,
    /// The one node that it is for.
    pub node: NodeId,
    /// Its place in the order of the node's documents.
    pub generation: Generation,
    /// When the hub made it; for people, never for decisions.
    pub issued_at: Timestamp,
    /// The release that it was rendered from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseRef>,
    /// The Kubernetes of the box; left as it is where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k3s: Option<K3sSection>,
    /// The operating system of the box; left as it is where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<OsSection>,
    /// The apps, all of them: what is not named is removed.
    #[serde(default)]
    pub apps: Vec<App>,
    /// How to treat them.
    #[serde(default)]
    pub policy: Policy,
    /// Fields of a newer minor version, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Name and digest of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseRef {
    /// Name that the operator gave.
    pub name: String,
    /// Digest of its content.
    pub digest: Digest,
}

/// One app: a named set of Kubernetes objects with a health of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// Name of the app, a DNS-1123 label, unique in the document.
    pub name: String,
    /// Namespace for namespaced objects that name none; `default` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Where its objects are.
    pub manifests: Vec<ManifestSource>,
    /// Kubernetes Secrets whose values only this box can read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SealedSecret>,
    /// Archives of container images that it needs, so that it starts without a registry; by architecture as k3s names it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, Vec<Artifact>>,
    /// What it must answer to count as ready, beside the readiness of its objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
    /// Whether its failure fails the document.
    #[serde(default, skip_serializing_if = "is_rollback")]
    pub on_failure: FailurePolicy,
    /// Fields of a newer minor version, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

// serde hands a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_rollback(value: &FailurePolicy) -> bool {
    *value == FailurePolicy::RollBack
}

/// A Kubernetes Secret whose values are sealed to the box. It becomes an object like any other, in the box's memory only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedSecret {
    /// Name of the Secret.
    pub name: String,
    /// Its namespace; that of the app where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its type; `Opaque` where absent.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// By key: the value, sealed under the name `secret/<source>`, where the source is the name that the operator stored it under.
    pub data: BTreeMap<String, SealedValue>,
}

/// One value of a sealed Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedValue {
    /// Name that the operator stored it under.
    pub source: String,
    /// The value; absent in a release, which is for many boxes, and filled in for each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
}

/// Objects in the document itself, or in a blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ManifestSource {
    /// Kubernetes objects as JSON; at most [`MAX_INLINE_BYTES`] an app.
    Inline(Vec<Value>),
    /// A JSON array of Kubernetes objects, fetched by digest.
    Blob(BlobRef),
}

/// A blob by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobRef {
    /// Digest of the whole content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Checks that a value has what every Kubernetes object has: `apiVersion`, `kind` and `metadata.name`, and that name and namespace
/// can be part of a request.
///
/// Lists (`kind: List`) must be split and `generateName` is refused: an object without a fixed name can be neither updated nor pruned.
pub fn check_object(value: &Value) -> Result<(), String> {
    let text = |pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let Some(kind) = text("/kind") else {
        return Err("has no kind".into());
    };
    if text("/apiVersion").is_none() {
        return Err(format!("{kind} has no apiVersion"));
    }
    if kind == "List"
        || value
            .get("items")
            .is_some_and(|items| items.is_array() && kind.ends_with("List"))
    {
        return Err(format!("{kind} is a list; give its items one by one"));
    }
    let Some(name) = text("/metadata/name") else {
        return Err(format!(
            "{kind} has no metadata.name (generateName is not supported: the object could never be updated)"
        ));
    };
    if !is_path_segment(name) {
        return Err(format!(
            "{kind} has the name {name:?}, which Kubernetes never takes: it may not be \".\" or \"..\", and hold no '/', '%', '?', '#', space or control character"
        ));
    }
    match value.pointer("/metadata/namespace") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(namespace)) if namespace.is_empty() || validate::is_label(namespace) => Ok(()),
        Some(other) => Err(format!(
            "{kind} {name} has the namespace {other}: use 1 to 63 lower-case letters, digits and '-', starting and ending with a letter or digit"
        )),
    }
}

/// Whether an object of some kind may have this name. Names are part of request paths: what changes the meaning of a path would turn
/// "delete this object" into "delete all of them".
fn is_path_segment(name: &str) -> bool {
    !matches!(name, "." | "..")
        && !name.chars().any(|character| {
            matches!(character, '/' | '%' | '?' | '#') || character.is_whitespace() || character.is_control()
        })
}
