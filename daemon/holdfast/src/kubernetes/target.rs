//! What k3s is to be: program, version, configuration, datastore.
//!
//! In: settings and a document's k3s section. Out: a [`K3sTarget`] that says all that a running k3s was started with, so that two of them
//! tell whether anything has to be done.

use super::{install::file_identity, k3s_config::K3sConfig};
use holdfast_protocol::{
    Digest,
    document::{Datastore, K3sRole},
};
use std::path::PathBuf;

/// A k3s, as it is started.
#[derive(Clone, Debug, PartialEq)]
pub struct K3sTarget {
    /// Program: a path, or a name in PATH.
    pub binary: PathBuf,
    /// SHA-256 of the program, where it came as an artifact.
    pub digest: Option<Digest>,
    /// What [`file_identity`] said of the program when it was found to fit the datastore; absent for artifacts, whose content is their name.
    pub file: Option<String>,
    /// As `k3s --version` prints it, where it is known.
    pub version: Option<String>,
    /// Whether the box has a control plane.
    pub role: K3sRole,
    /// Its files.
    pub config: K3sConfig,
    /// Where its state is kept.
    pub datastore: Datastore,
}

impl K3sTarget {
    /// Changes with everything that a running k3s cannot take up by itself.
    pub fn identity(&self) -> Digest {
        let mut parts = self.config.digest.to_string();
        if let Some(digest) = self.digest {
            parts.push_str("\0binary\0");
            parts.push_str(&digest.to_string());
        }
        if self.datastore != Datastore::Persistent {
            parts.push_str("\0ram");
        }
        if self.role != K3sRole::Server {
            parts.push_str("\0agent");
        }
        // With nothing of that, a k3s that was started by the configuration alone is adopted and not restarted.
        if parts == self.config.digest.to_string() {
            return self.config.digest;
        }
        Digest::of(parts.as_bytes())
    }

    /// Whether another program is at its place than the one that this was made for, or none any more where it came as an artifact. A program
    /// of the box that is missing for now is not another one.
    pub fn is_exchanged(&self) -> bool {
        let found = file_identity(&self.binary);
        match (&self.digest, &self.file) {
            (Some(_), _) => found.is_none(),
            (None, Some(_)) => found.is_some() && found != self.file,
            (None, None) => false,
        }
    }

    /// Subcommand of k3s.
    pub const fn command(&self) -> &'static str {
        match self.role {
            K3sRole::Server => "server",
            K3sRole::Agent => "agent",
        }
    }
}
