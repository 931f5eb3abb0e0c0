//! What can go wrong with the operating system of a box, and whether trying again can help.

use crate::codes;
use holdfast_core::failure::Failure;
use holdfast_os::OsError;
use holdfast_protocol::{Problem, codes as protocol_codes};
use holdfast_store::{BlobError, StoreError};
use std::{io, path::Path};

/// Why work on the operating system stopped.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The box runs no image of Holdfast.
    #[error("this machine does not run an image of Holdfast: {0}")]
    NoImage(String),
    /// A manifest or a chunk is not what it should be.
    #[error(transparent)]
    Image(#[from] OsError),
    /// The keys of the running image cannot be read.
    #[error("the keys that images are signed with cannot be read from {path}: {reason}")]
    Keys {
        /// Their file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The image is for another processor.
    #[error("image {version} is for {found}; this box is {own}")]
    Architecture {
        /// Version of the image.
        version: String,
        /// What it is for.
        found: String,
        /// What the box is.
        own: String,
    },
    /// The document and the manifest name different versions.
    #[error("the document wants image {wanted}, and its manifest is that of {found}")]
    OtherVersion {
        /// Version that the document names.
        wanted: String,
        /// Version that the manifest names.
        found: String,
    },
    /// A version that the box has already, with another content.
    #[error("image {version} is on this box with root hash {own}, and the one that is wanted has {found}")]
    SameVersion {
        /// The version.
        version: String,
        /// Root hash of what is here.
        own: String,
        /// Root hash of what is wanted.
        found: String,
    },
    /// The image is larger than the slot.
    #[error("{what} of image {version} has {needed} bytes; the partition has {room}")]
    SlotTooSmall {
        /// Version of the image.
        version: String,
        /// Which part of it.
        what: &'static str,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that there are.
        room: u64,
    },
    /// The EFI system partition has no room for the kernel image.
    #[error(
        "the EFI system partition has room for {room} bytes; the kernel image of {version} needs {needed}"
    )]
    EspFull {
        /// Version of the image.
        version: String,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that there are, what can be removed included.
        room: u64,
    },
    /// The state partition has no room for the kernel image.
    #[error(
        "the state partition has {room} bytes free; image {version} needs {needed} of it while it is fetched"
    )]
    StateFull {
        /// Version of the image.
        version: String,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that there are.
        room: u64,
    },
    /// There is nothing to go back to.
    #[error("there is no way back to image {version}: {reason}")]
    NoWayBack {
        /// Version that was asked for.
        version: String,
        /// Why it cannot be booted.
        reason: String,
    },
    /// What was written reads back otherwise.
    #[error("the disk gives back other bytes than were written to {what}")]
    ReadBack {
        /// Where.
        what: &'static str,
    },
    /// The pack of the image cannot be fetched.
    #[error("the chunks of image {version} cannot be fetched: {reason}")]
    Unreachable {
        /// Version of the image.
        version: String,
        /// What each source said.
        reason: String,
    },
    /// Every source that has the pack has other bytes than the manifest says.
    #[error("the chunks of image {version} are damaged wherever they were found: {reason}")]
    Tampered {
        /// Version of the image.
        version: String,
        /// Which chunk, and where.
        reason: String,
    },
    /// A file or a disk cannot be read or written.
    #[error("{what}: {error}")]
    Disk {
        /// Which one, and what for.
        what: String,
        /// What the system says.
        error: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob of the store.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// It was cancelled.
    #[error("the work on image {0} was cancelled")]
    Cancelled(String),
    /// Work ended early.
    #[error("work on the operating system ended early: {0}")]
    Internal(String),
}

impl Fault {
    /// A failure of the system with a file or disk.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Disk {
            what: path.display().to_string(),
            error,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoImage(_) => codes::OS_NO_IMAGE,
            Self::Keys { .. } => codes::OS_KEYS_UNREADABLE,
            Self::Architecture { .. } => codes::OS_WRONG_ARCHITECTURE,
            Self::OtherVersion { .. } => holdfast_os::codes::OS_MANIFEST_INVALID,
            Self::SameVersion { .. } => codes::OS_SAME_VERSION,
            Self::SlotTooSmall { .. } => codes::OS_SLOT_TOO_SMALL,
            Self::EspFull { .. } => codes::OS_ESP_FULL,
            Self::StateFull { .. } => protocol_codes::DISK_FULL,
            Self::NoWayBack { .. } => codes::OS_NO_WAY_BACK,
            Self::ReadBack { .. } | Self::Disk { .. } => codes::OS_DISK_FAILED,
            Self::Unreachable { .. } => codes::BLOB_UNREACHABLE,
            Self::Tampered { .. } => holdfast_os::codes::OS_CHUNK_DAMAGED,
            Self::Image(_) | Self::Store(_) | Self::Blob(_) | Self::Cancelled(_) | Self::Internal(_) => {
                protocol_codes::INTERNAL
            }
        }
    }

    fn action(&self) -> &'static str {
        match self {
            Self::NoImage(_) => "flash the box with an image of Holdfast, or publish a release without `os`",
            Self::Keys { .. } => "the image was built without its keys: build it again",
            Self::Architecture { .. } | Self::OtherVersion { .. } => {
                "push the image again with holdfastctl os push, and publish a release that names it"
            }
            Self::SameVersion { .. } => {
                "give the image that differs a version of its own, push it, and publish a release that names it"
            }
            Self::SlotTooSmall { .. } => {
                "build a smaller image; the slots of a box have the size they were flashed with"
            }
            Self::EspFull { .. } => {
                "remove what is not of Holdfast from the EFI system partition, or build a smaller image"
            }
            Self::StateFull { .. } => "make room on the state partition; it is tried again",
            Self::NoWayBack { .. } => {
                "the box stays with what runs; publish a release with the wanted version"
            }
            Self::ReadBack { .. } | Self::Disk { .. } => {
                "it is tried again; if it stays, the disk is failing: replace it"
            }
            Self::Unreachable { .. } => {
                "check the network between the box and these sources; the fetch goes on where it stopped"
            }
            Self::Tampered { .. } => "push the image again with holdfastctl os push",
            Self::Image(_) | Self::Store(_) | Self::Blob(_) | Self::Cancelled(_) | Self::Internal(_) => {
                "it is tried again; report this with the log of the same moment"
            }
        }
    }

    /// The same for people and for the hub.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Image(error) => error.problem(),
            Self::Store(error) => error.problem(),
            Self::Blob(error) => error.problem(),
            _ => Problem::new(self.code(), self.to_string(), self.action()),
        }
    }

    /// Whether the same can succeed later without another document.
    pub const fn retryable(&self) -> bool {
        match self {
            Self::NoImage(_)
            | Self::Image(_)
            | Self::Architecture { .. }
            | Self::OtherVersion { .. }
            | Self::SameVersion { .. }
            | Self::SlotTooSmall { .. }
            | Self::EspFull { .. }
            | Self::NoWayBack { .. }
            | Self::Keys { .. }
            | Self::Tampered { .. } => false,
            Self::StateFull { .. }
            | Self::ReadBack { .. }
            | Self::Unreachable { .. }
            | Self::Disk { .. }
            | Self::Store(_)
            | Self::Blob(_)
            | Self::Cancelled(_)
            | Self::Internal(_) => true,
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::of_document(fault.problem(), fault.retryable())
    }
}
