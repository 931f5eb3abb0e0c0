//! What can go wrong when k3s is switched, told apart by what a person must do.

use crate::{
    codes,
    kubernetes::{KubernetesError, datastore::DatastoreError},
};
use holdfast_core::failure::Failure;
use holdfast_protocol::{Digest, Problem, codes as protocol_codes};
use holdfast_store::StoreError;
use nix::errno::Errno;
use std::{
    io,
    path::{Path, PathBuf},
};

/// A failure to switch. k3s runs as it did before, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    /// The program is not in the store.
    #[error("the k3s {digest} is not in the store")]
    ArtifactMissing {
        /// Its digest.
        digest: Digest,
    },
    /// The store has another content under this name.
    #[error("the k3s {digest} in the store has the content of {found}")]
    ArtifactDamaged {
        /// Its digest.
        digest: Digest,
        /// What it is.
        found: Digest,
    },
    /// The program does not say which version it is.
    #[error("{} does not say its version: {reason}", program.display())]
    VersionUnknown {
        /// The program.
        program: PathBuf,
        /// Why.
        reason: String,
    },
    /// The program is another version than the document says.
    #[error("the document wants k3s {wanted}, but {} is {found}", program.display())]
    WrongVersion {
        /// The program.
        program: PathBuf,
        /// What the document says.
        wanted: String,
        /// What the program says.
        found: String,
    },
    /// Newer by more than one minor version.
    #[error(
        "k3s cannot go from {from} to {to} in one step: Kubernetes is upgraded one minor version at a time"
    )]
    Skips {
        /// Version that runs.
        from: String,
        /// Version that is wanted.
        to: String,
    },
    /// An older minor version, and no snapshot of the datastore that it wrote.
    #[error(
        "k3s cannot go back from {from} to {to}: there is no snapshot of the datastore from before {from}"
    )]
    Downgrade {
        /// Version that runs.
        from: String,
        /// Version that is wanted.
        to: String,
    },
    /// No room for a snapshot.
    #[error("a snapshot of the datastore needs {needed} bytes at {}, and {free} are free", path.display())]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// No space left on the disk.
    #[error("{}: no space left", path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// The file system does not do what it is asked to.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// The datastore's files.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    /// k3s itself.
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
}

impl SwitchError {
    /// Sorts an error of the file system.
    pub fn io(path: &Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => Self::DiskFull { path },
            _ => Self::File {
                path,
                reason: error.to_string(),
            },
        }
    }

    /// Sorts an error of the store's files.
    pub fn store(error: &StoreError) -> Self {
        match error {
            StoreError::DiskFull { path } => Self::DiskFull { path: path.clone() },
            other => Self::File {
                path: PathBuf::from("the store"),
                reason: other.to_string(),
            },
        }
    }

    /// Whether the same can succeed later without another document.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::ArtifactMissing { .. }
            | Self::ArtifactDamaged { .. }
            | Self::NoRoom { .. }
            | Self::DiskFull { .. }
            | Self::File { .. }
            | Self::Kubernetes(_) => true,
            Self::Datastore(error) => !error.is_damage(),
            Self::VersionUnknown { .. }
            | Self::WrongVersion { .. }
            | Self::Skips { .. }
            | Self::Downgrade { .. } => false,
        }
    }

    /// The form in which people see it.
    pub fn problem(&self) -> Problem {
        let (code, action) = match self {
            Self::ArtifactMissing { .. } | Self::ArtifactDamaged { .. } => {
                (codes::KUBERNETES_ARTIFACT, "nothing: it is fetched again")
            }
            Self::VersionUnknown { .. } => (
                codes::KUBERNETES_VERSION_UNKNOWN,
                "publish a document whose k3s binary is one of this architecture",
            ),
            Self::WrongVersion { .. } => (
                codes::KUBERNETES_WRONG_VERSION,
                "correct k3s.version or k3s.binaries of the release; without a binary in it, install the wanted k3s on the box",
            ),
            Self::Skips { .. } => (
                codes::KUBERNETES_VERSION_SKIPPED,
                "publish a release with the next minor version first, then this one",
            ),
            Self::Downgrade { .. } => (
                codes::KUBERNETES_DOWNGRADE,
                "publish a release with the version that runs, or a newer one",
            ),
            Self::NoRoom { .. } | Self::DiskFull { .. } => (
                protocol_codes::DISK_FULL,
                "free space on that file system; what runs keeps running",
            ),
            Self::File { .. } => (codes::KUBERNETES_FILE, "check space, owner and mode of that path"),
            Self::Datastore(error) => return error.problem(),
            Self::Kubernetes(error) => return error.problem(),
        };
        Problem::new(code, self.to_string(), action)
    }

    /// The form in which the reconcile machine sees it.
    pub fn failure(&self) -> Failure {
        Failure::of_document(self.problem(), self.is_retryable())
    }
}
