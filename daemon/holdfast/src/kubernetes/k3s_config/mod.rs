//! The configuration of k3s: what Holdfast needs, what this box's settings add, what the desired state adds, in this order.
//!
//! In: settings and the document's k3s section. Out: all files that k3s is started with, in k3s's own keys, and a digest of everything
//! that a running k3s was started with, so that a change is seen. It guarantees that the same input gives the same bytes, and that
//! what is sealed stays sealed until [`K3sConfig::put_in_place`] writes it where k3s reads it: neither digest, comparison nor debug
//! output holds an opened value.

mod files;
mod keys;
mod place;
#[cfg(test)]
mod tests;

pub use place::{ConfigError, check};

use crate::settings::Settings;
use holdfast_protocol::{
    Digest, NodeId,
    document::{K3sRole, K3sSection, Sealed, SealedValue},
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

/// A rendered configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct K3sConfig {
    /// Text of `config.yaml`.
    pub text: String,
    /// The files beside it.
    pub files: Vec<ConfigFile>,
    /// Files that must not be there: of a configuration that had more.
    pub absent: Vec<PathBuf>,
    /// Whether the box has a control plane.
    pub role: K3sRole,
    /// Address of the node on an interface of its own, with the networks of services that are reached through it.
    pub address: Option<NodeAddress>,
    /// Digest of all of that and of the further arguments; over sealed values as they are sealed.
    pub digest: Digest,
}

/// An address that no network can take away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// The address.
    pub address: IpAddr,
    /// Networks of Kubernetes services, `10.43.0.0/16`: without a route to them, a box without a default route reaches no service.
    pub services: Vec<String>,
}

/// A file beside `config.yaml`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigFile {
    /// Where it is written to.
    pub path: PathBuf,
    /// Its mode.
    pub mode: u32,
    /// What is in it.
    pub content: FileContent,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq)]
pub enum FileContent {
    /// This text.
    Plain(String),
    /// The join secret of the site.
    Token(Box<Sealed>),
    /// `registries.yaml` with the credentials that are still to be opened.
    Registries {
        /// What is not secret, as k3s's file has it.
        plain: Map<String, Value>,
        /// By registry: what goes into its `auth`.
        credentials: BTreeMap<String, SealedValue>,
    },
}

/// Renders all files. Keys of the document win over those of the settings, except the few that tie k3s to this box.
pub fn render(settings: &Settings, node: &NodeId, section: Option<&K3sSection>) -> K3sConfig {
    let none = K3sSection::default();
    let section = section.unwrap_or(&none);
    let (mut files, mut absent) = (Vec::new(), Vec::new());
    for (path, content) in files::all(settings, section) {
        match content {
            Some(content) => files.push(ConfigFile {
                path,
                mode: 0o600,
                content,
            }),
            None => absent.push(path),
        }
    }
    let keys = keys::all(settings, node, section);
    let address = keys::address(settings, section).map(|address| NodeAddress {
        address,
        services: keys::service_networks(&keys),
    });
    let text = keys::text(keys);
    let mut parts = vec![text.clone(), settings.kubernetes.extra_args.join("\0")];
    for file in &files {
        parts.push(file.path.display().to_string());
        parts.push(file.content.as_sealed());
    }
    K3sConfig {
        digest: Digest::of(parts.join("\0").as_bytes()),
        text,
        files,
        absent,
        role: section.role,
        address,
    }
}

impl FileContent {
    /// The content with what is sealed left sealed.
    fn as_sealed(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Token(sealed) => to_json(sealed),
            Self::Registries { plain, credentials } => to_json(&(plain, credentials)),
        }
    }
}

// Maps with text keys and values of JSON: writing them cannot fail.
fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
