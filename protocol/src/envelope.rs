//! The signed envelope: DSSE v1 (<https://github.com/secure-systems-lab/dsse>), as in-toto and sigstore use it.
//!
//! What is signed is not the payload alone but its pre-authentication encoding, which binds the payload's type, so that a
//! document of one type can never pass for another. The payload's bytes are kept exactly as signed and are parsed only
//! after the signatures have been checked.

use crate::{
    Digest, MAX_ENVELOPE_BYTES,
    trust::{Algorithm, Role, TrustPolicy, base64_bytes},
};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Payload type of a desired-state document.
pub const DESIRED_STATE_TYPE: &str = "application/vnd.holdfast.desired-state.v1+json";
/// Payload type of a statement of the current time.
pub const TIME_TYPE: &str = "application/vnd.holdfast.time.v1+json";

/// The most signatures that an envelope may carry; more is refused before any is checked.
pub const MAX_SIGNATURES: usize = 16;

/// A payload with its type and signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Media type of the payload; part of what is signed.
    pub payload_type: String,
    /// The payload's exact bytes (base64 on the wire).
    #[serde(with = "base64_bytes")]
    pub payload: Vec<u8>,
    /// Signatures over [`Envelope::pre_authentication_encoding`].
    pub signatures: Vec<Signature>,
}

/// One signature of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Name of the key that signed; a hint only, checked against the trusted keys.
    pub keyid: String,
    /// The signature's bytes (base64 on the wire).
    #[serde(with = "base64_bytes")]
    pub sig: Vec<u8>,
}

/// Why an envelope cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Larger than [`MAX_ENVELOPE_BYTES`].
    #[error(
        "the envelope has {bytes} bytes; at most {MAX_ENVELOPE_BYTES} are accepted: move manifests into blobs"
    )]
    TooLarge {
        /// Size of the envelope that came, in bytes.
        bytes: usize,
    },
    /// Not a DSSE envelope.
    #[error("not a DSSE envelope: {reason}")]
    Malformed {
        /// What the JSON parser says.
        reason: String,
    },
    /// No signature at all.
    #[error("the envelope carries no signature")]
    Unsigned,
    /// More signatures than anyone needs.
    #[error("the envelope carries {found} signatures; at most {MAX_SIGNATURES} are accepted")]
    TooManySignatures {
        /// How many there are.
        found: usize,
    },
    /// Too few good signatures.
    #[error(
        "{valid} of {threshold} needed signatures are by a trusted key with the role {role:?}; signed by: {signers}"
    )]
    Untrusted {
        /// Number of different trusted keys that signed rightly.
        valid: usize,
        /// Number that is needed.
        threshold: usize,
        /// The role that is needed.
        role: Role,
        /// Key names that the envelope gives.
        signers: String,
    },
}

impl Envelope {
    /// Signs `payload` with each of `keys`.
    pub fn sign(payload_type: &str, payload: Vec<u8>, keys: &[&Ed25519KeyPair]) -> Self {
        let mut envelope = Self {
            payload_type: payload_type.to_owned(),
            payload,
            signatures: Vec::new(),
        };
        let message = envelope.pre_authentication_encoding();
        envelope.signatures = keys
            .iter()
            .map(|key| Signature {
                keyid: Digest::of(key.public_key().as_ref()).to_string(),
                sig: key.sign(&message).as_ref().to_vec(),
            })
            .collect();
        envelope
    }

    /// Reads an envelope from its JSON form; checks size and shape, not trust.
    pub fn from_json(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(EnvelopeError::TooLarge { bytes: bytes.len() });
        }
        serde_json::from_slice(bytes).map_err(|error| EnvelopeError::Malformed {
            reason: error.to_string(),
        })
    }

    /// The envelope's JSON form.
    pub fn to_json(&self) -> Vec<u8> {
        // A struct of strings and byte arrays always serialises.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `DSSEv1 LEN(type) type LEN(payload) payload`: the bytes that are signed, as the DSSE specification defines them.
    pub fn pre_authentication_encoding(&self) -> Vec<u8> {
        let head = format!(
            "DSSEv1 {} {} {} ",
            self.payload_type.len(),
            self.payload_type,
            self.payload.len()
        );
        [head.as_bytes(), &self.payload].concat()
    }

    /// Checks that enough different trusted keys with `role` signed. Unknown keys are passed over; a wrong signature of a known key
    /// counts for nothing.
    pub fn verify(&self, trust: &TrustPolicy, role: Role) -> Result<(), EnvelopeError> {
        if self.signatures.is_empty() {
            return Err(EnvelopeError::Unsigned);
        }
        if self.signatures.len() > MAX_SIGNATURES {
            return Err(EnvelopeError::TooManySignatures {
                found: self.signatures.len(),
            });
        }
        let message = self.pre_authentication_encoding();
        let valid: BTreeSet<Digest> = trust
            .keys
            .iter()
            .filter(|key| key.roles.contains(&role) && key.key_id == Digest::of(&key.public))
            .filter(|key| {
                let Algorithm::Ed25519 = key.algorithm;
                let public = UnparsedPublicKey::new(&ED25519, &key.public);
                let name = key.key_id.to_string();
                self.signatures.iter().any(|signature| {
                    signature.keyid == name && public.verify(&message, &signature.sig).is_ok()
                })
            })
            .map(|key| key.key_id)
            .collect();
        let threshold = trust.threshold(role);
        if valid.len() >= threshold {
            return Ok(());
        }
        let signers: Vec<_> = self
            .signatures
            .iter()
            .map(|signature| signature.keyid.chars().take(80).collect::<String>())
            .collect();
        Err(EnvelopeError::Untrusted {
            valid: valid.len(),
            threshold,
            role,
            signers: signers.join(", "),
        })
    }
}

/// A signed statement of the current time, for boxes without a battery clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeStatement {
    /// The hub's time.
    pub time: jiff::Timestamp,
}
