//! Admission: the one gate through which a document gets any effect.
//!
//! In: the bytes of an envelope, the keys that are trusted, the node's own name, the highest generation ever accepted.
//! Out: a [`VerifiedDocument`], which only this module can make, or a [`Rejection`] that names what is wrong.
//! Guarantees: nothing of the payload is parsed before enough trusted keys were seen to have signed it; an older document
//! never passes; another document under the same generation never passes and raises an alarm.

pub mod seed;
#[cfg(test)]
mod tests;

use holdfast_protocol::{
    Digest, Generation, NodeId, Problem, SchemaVersion, codes,
    document::DesiredState,
    envelope::{DESIRED_STATE_TYPE, Envelope, EnvelopeError},
    trust::{Role, TrustPolicy},
};
use serde::Deserialize;

/// What payload types of all versions of the desired state begin with.
const DESIRED_STATE_FAMILY: &str = "application/vnd.holdfast.desired-state.v";

/// A document that passed admission. It cannot be made in any other way, so whatever takes one needs no checks of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedDocument {
    state: DesiredState,
    digest: Digest,
    envelope: Vec<u8>,
}

impl VerifiedDocument {
    /// The desired state.
    pub const fn state(&self) -> &DesiredState {
        &self.state
    }

    /// Place in the order of the node's documents.
    pub const fn generation(&self) -> Generation {
        self.state.generation
    }

    /// SHA-256 of the signed payload.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The exact bytes of the envelope as they came.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// Gives the desired state away and frees the envelope.
    pub fn into_state(self) -> DesiredState {
        self.state
    }
}

/// The highest generation that this node ever accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Highest {
    /// The generation.
    pub generation: Generation,
    /// Digest of the payload that was accepted under it.
    pub digest: Digest,
    /// Whether that document is still stored. False after a damaged store was set aside: the same document is then accepted
    /// once more instead of being passed over as a duplicate.
    pub stored: bool,
}

/// What to do with a document that is all right.
// One is made per document and taken apart at once: a box would only add an allocation.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// It is new: store it, acknowledge it, make it so.
    Accept(VerifiedDocument),
    /// It is the newest one already accepted: acknowledge it, do nothing.
    Duplicate {
        /// Its generation.
        generation: Generation,
    },
}

/// Why a document has no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Rejection {
    /// What is wrong.
    pub problem: Problem,
    /// The document's generation, where it could be read from a payload whose signatures are good.
    pub generation: Option<Generation>,
    /// SHA-256 of the payload, where there is one.
    pub digest: Option<Digest>,
    /// Whether someone should look at once: the document was forged or sent astray, or the hub contradicts itself.
    pub alarm: bool,
}

/// Decides on the bytes of an envelope.
///
/// The checks run in this order, the cheap and the distrustful first: size, JSON form, payload type, signatures, major version,
/// form of the payload, addressed node, rules of the schema, order of generations.
pub fn admit(
    bytes: &[u8],
    trust: &TrustPolicy,
    node: &NodeId,
    highest: Option<Highest>,
) -> Result<Admission, Box<Rejection>> {
    in_order(readmit(bytes, trust, node)?, highest)
}

/// Whether a document comes after all that were accepted before.
fn in_order(document: VerifiedDocument, highest: Option<Highest>) -> Result<Admission, Box<Rejection>> {
    let generation = document.generation();
    let Some(highest) = highest else {
        return Ok(Admission::Accept(document));
    };
    let reject = |code, message, action: &str, alarm| {
        Err(Box::new(Rejection {
            problem: Problem::new(code, message, action),
            generation: Some(generation),
            digest: Some(document.digest),
            alarm,
        }))
    };
    if generation < highest.generation {
        return reject(
            codes::GENERATION_OLDER,
            format!(
                "generation {generation} is older than {}, which was accepted before",
                highest.generation
            ),
            "publish anew; where the hub was restored from a backup, run holdfast-hub restored on it",
            false,
        );
    }
    if generation > highest.generation {
        return Ok(Admission::Accept(document));
    }
    if document.digest != highest.digest {
        return reject(
            codes::GENERATION_CONFLICT,
            format!(
                "generation {generation} was accepted before with other content ({}, now {})",
                highest.digest, document.digest
            ),
            "find out who else signs documents; where the hub was restored from a backup, run holdfast-hub restored on it",
            true,
        );
    }
    if highest.stored {
        Ok(Admission::Duplicate { generation })
    } else {
        Ok(Admission::Accept(document))
    }
}

/// Only the schema field: read first, so that an unknown major is named as such and not as some missing field.
#[derive(Deserialize)]
struct SchemaOnly {
    schema: SchemaVersion,
}

/// Checks stored bytes again at start-up: all checks of [`admit`] but the order of generations.
///
/// So a row that someone altered in the database has no effect, and neither has one whose key is trusted no more.
pub fn readmit(bytes: &[u8], trust: &TrustPolicy, node: &NodeId) -> Result<VerifiedDocument, Box<Rejection>> {
    open(bytes, DESIRED_STATE_TYPE, trust, node)
}

/// All checks of one document, of a payload type: those of [`readmit`].
fn open(
    bytes: &[u8],
    payload_type: &str,
    trust: &TrustPolicy,
    node: &NodeId,
) -> Result<VerifiedDocument, Box<Rejection>> {
    let reject = |code: &'static str, message: String, action: &str| Rejection {
        problem: Problem::new(code, message, action),
        generation: None,
        digest: None,
        alarm: false,
    };
    let envelope = Envelope::from_json(bytes).map_err(|error| {
        let (code, action) = match error {
            EnvelopeError::TooLarge { .. } => (
                codes::ENVELOPE_TOO_LARGE,
                "move manifests of the release into blobs",
            ),
            _ => (
                codes::DOCUMENT_MALFORMED,
                "check what publishes to the node's desired topic",
            ),
        };
        reject(code, error.to_string(), action)
    })?;
    let digest = Digest::of(&envelope.payload);
    let reject = |code: &'static str, message: String, action: &str, alarm: bool| Rejection {
        digest: Some(digest),
        alarm,
        ..reject(code, message, action)
    };

    if envelope.payload_type != payload_type {
        let named: String = envelope.payload_type.chars().take(120).collect();
        return Err(Box::new(
            if envelope.payload_type.starts_with(DESIRED_STATE_FAMILY) {
                reject(
                    codes::SCHEMA_UNSUPPORTED,
                    format!(
                        "payload type {named:?} is of another major version; this build reads {payload_type:?}"
                    ),
                    "update holdfast on the node before the hub speaks the new version to it",
                    false,
                )
            } else {
                reject(
                    codes::PAYLOAD_TYPE_UNKNOWN,
                    format!("payload type {named:?} is no desired state ({payload_type:?})"),
                    "check what publishes to the node's desired topic",
                    false,
                )
            },
        ));
    }

    envelope.verify(trust, Role::DesiredState).map_err(|error| {
        let code = match error {
            EnvelopeError::Unsigned => codes::DOCUMENT_UNSIGNED,
            _ => codes::SIGNATURE_INVALID,
        };
        reject(
            code,
            error.to_string(),
            "check the hub's signing keys against those that the node trusts (holdfast doctor)",
            true,
        )
    })?;

    let malformed = |error: serde_json::Error| {
        reject(
            codes::DOCUMENT_MALFORMED,
            format!("the signed payload is not a desired state: {error}"),
            "the hub made a document that this build cannot read: compare their versions",
            false,
        )
    };
    let schema: SchemaOnly = serde_json::from_slice(&envelope.payload).map_err(malformed)?;
    schema.schema.check_supported().map_err(|error| {
        reject(
            codes::SCHEMA_UNSUPPORTED,
            error.to_string(),
            "update holdfast on the node before the hub speaks the new version to it",
            false,
        )
    })?;
    let state: DesiredState = serde_json::from_slice(&envelope.payload).map_err(malformed)?;
    let generation = Some(state.generation);

    if state.node != *node {
        return Err(Box::new(Rejection {
            generation,
            ..reject(
                codes::WRONG_NODE,
                format!("the document is for node {}, this is {node}", state.node),
                "check what publishes to the node's desired topic",
                true,
            )
        }));
    }
    let valid = if payload_type == seed::SEED_TYPE {
        seed::validate(&state)
    } else {
        state.validate()
    };
    valid.map_err(|error| Rejection {
        generation,
        ..reject(
            codes::DOCUMENT_INVALID,
            error.to_string(),
            "correct the release and publish it again",
            false,
        )
    })?;
    Ok(VerifiedDocument {
        state,
        digest,
        envelope: bytes.to_vec(),
    })
}
