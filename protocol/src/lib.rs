//! The contract of Holdfast: everything the node and the hub say to each other, and nothing else.
//!
//! What is here: identifiers, the signed envelope, the desired-state document, reports and events, enrolment,
//! MQTT topics and the operator API's types. All of it is JSON on the wire, in camelCase, with RFC 3339 times.
//!
//! Compatibility: every document carries a [`SchemaVersion`]. Fields that a newer minor version adds are kept (in `extra`)
//! and ignored; a document with an unknown major version is refused by name.

pub mod codes;
pub mod document;
pub mod enrol;
pub mod envelope;
pub mod event;
mod ids;
pub mod operator;
pub mod personal;
mod problem;
pub mod report;
#[cfg(feature = "seal")]
pub mod seal;
pub mod sealing;
#[cfg(feature = "tls")]
pub mod tls;
pub mod token;
pub mod topic;
pub mod trust;
pub mod variable;
mod version;

pub use ids::{Digest, Generation, InvalidDigest, InvalidGeneration, InvalidName, NodeId};
pub use problem::Problem;
pub use version::{InvalidSchemaVersion, SchemaVersion, UnsupportedMajor};

/// The largest envelope that is accepted anywhere, in bytes of its JSON form (1 MiB).
///
/// Above it, content belongs into blobs. MQTT brokers are configured with the same limit plus room for the topic.
pub const MAX_ENVELOPE_BYTES: usize = 1024 * 1024;

/// The largest sum of inline manifests per app, in bytes of compact JSON (16 KiB); above it a blob is used.
pub const MAX_INLINE_BYTES: usize = 16 * 1024;
