//! What can be wrong with an image on its way.

use crate::codes;
use holdfast_protocol::{Digest, Problem, UnsupportedMajor, envelope::EnvelopeError};

/// Why a manifest or a chunk cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OsError {
    /// Larger than any manifest may be.
    #[error("the manifest has {bytes} bytes; at most {max} are accepted")]
    TooLarge {
        /// Its size, in bytes.
        bytes: usize,
        /// The most that is accepted, in bytes.
        max: usize,
    },
    /// Not an envelope, or signed by nobody who is trusted.
    #[error("the manifest of the OS image: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Signed, but not as a manifest.
    #[error("the envelope holds {found:?}, not the manifest of an OS image")]
    WrongType {
        /// Payload type that it has.
        found: String,
    },
    /// Not the JSON of a manifest.
    #[error("the manifest of the OS image cannot be read: {reason}")]
    Malformed {
        /// What the JSON parser says.
        reason: String,
    },
    /// Of a later major version.
    #[error("the manifest of the OS image: {0}")]
    Schema(#[from] UnsupportedMajor),
    /// A value that no image can have.
    #[error("the manifest of the OS image: {field} {reason}")]
    Invalid {
        /// Where it is, such as `usr.chunks[3]`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A chunk whose frame does not hold what the manifest says.
    #[error("chunk {digest} of the OS image is damaged: {reason}")]
    Damaged {
        /// The chunk.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
}

impl OsError {
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// The same for people and for the hub.
    pub fn problem(&self) -> Problem {
        let (code, action) = match self {
            Self::Envelope(EnvelopeError::Unsigned | EnvelopeError::Untrusted { .. }) => (
                codes::OS_MANIFEST_UNTRUSTED,
                "sign the image with the keys that the running OS was built with, and publish it again",
            ),
            Self::Damaged { .. } => (
                codes::OS_CHUNK_DAMAGED,
                "push the image again with holdfastctl os push; the box tries its other sources",
            ),
            _ => (
                codes::OS_MANIFEST_INVALID,
                "build the image again, and push it with holdfastctl os push",
            ),
        };
        Problem::new(code, self.to_string(), action)
    }
}
