//! Kubernetes objects as the document gives them, made ready to apply.
//!
//! In: a document's apps and their blobs. Out: [`PreparedObject`]s, each with its key, its place in the order of applying, its
//! exact body and the digest of that body. Guarantees: no two have the same identity; every one names its app in a label; the
//! same input gives the same digest, whatever the order of its keys.

mod prepare;
mod scope;
mod sealed;
#[cfg(test)]
mod sealed_tests;
#[cfg(test)]
mod tests;
mod wave;

pub use prepare::{
    PrepareError, PreparedObject, each_element, prepare, prepare_document, prepare_document_opened,
};
pub use scope::{Scope, Scopes};
pub use wave::Wave;

use serde::{Deserialize, Serialize};
use std::fmt;

/// Label that says who manages an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`], and the field manager of server-side apply.
pub const MANAGER: &str = "holdfast";
/// Label that says to which app of the document an object belongs.
pub const APP_LABEL: &str = "holdfast.dev/app";
/// Annotation by which an object is kept when it leaves the document: [`PRUNE_NEVER`].
pub const PRUNE_ANNOTATION: &str = "holdfast.dev/prune";
/// The one value that [`PRUNE_ANNOTATION`] knows.
pub const PRUNE_NEVER: &str = "never";

/// What names an object in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectKey {
    /// Group and version as manifests write it: `apps/v1`, `v1`.
    pub api_version: String,
    /// Kind: `Deployment`.
    pub kind: String,
    /// Namespace; none for objects of the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// What an object is apart from the version it is written in: the same object can be read and written in several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Namespace; none for objects of the whole cluster.
    pub namespace: Option<&'a str>,
    /// Name.
    pub name: &'a str,
}

impl ObjectKey {
    /// API group; empty for the core group.
    pub fn group(&self) -> &str {
        group_of(&self.api_version)
    }

    /// Version within the group: `v1`.
    pub fn version(&self) -> &str {
        self.api_version
            .split_once('/')
            .map_or(self.api_version.as_str(), |(_, version)| version)
    }

    /// What the object is, whatever version it is written in.
    pub fn identity(&self) -> Identity<'_> {
        Identity {
            group: self.group(),
            kind: &self.kind,
            namespace: self.namespace.as_deref(),
            name: &self.name,
        }
    }

    /// When it is applied, and, backwards, when it is deleted.
    pub fn wave(&self) -> Wave {
        Wave::of(self.group(), &self.kind)
    }
}

/// `Deployment shop/web`, `Namespace shop`.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

pub(crate) fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}
