//! Signing a manifest, and believing one: a DSSE envelope by a key with the role `os-image`.

use crate::{Manifest, OsError};
use holdfast_protocol::{
    Digest,
    envelope::{Envelope, EnvelopeError},
    trust::{Role, TrustPolicy},
};
use ring::signature::Ed25519KeyPair;

/// Payload type of a manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.holdfast.os-manifest+json";
/// The largest envelope of a manifest, in bytes (8 MiB). One chunk takes some 80 bytes of it.
pub const MAX_MANIFEST_BYTES: usize = 8 << 20;

/// A manifest that enough trusted keys signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedManifest {
    /// SHA-256 of the envelope: what documents name the image by, and what it is remembered by.
    pub digest: Digest,
    /// What was signed.
    pub manifest: Manifest,
}

impl SignedManifest {
    /// Reads an envelope that one of the keys of `trust` with the role [`Role::OsImage`] signed (or as many as it demands).
    ///
    /// # Errors
    /// [`OsError`]; the payload is not looked at before the signatures are right.
    pub fn verify(bytes: &[u8], trust: &TrustPolicy) -> Result<Self, OsError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(OsError::TooLarge {
                bytes: bytes.len(),
                max: MAX_MANIFEST_BYTES,
            });
        }
        // Not by `Envelope::from_json`: its limit is that of documents, which travel in one message.
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(|error| EnvelopeError::Malformed {
            reason: error.to_string(),
        })?;
        envelope.verify(trust, Role::OsImage)?;
        if envelope.payload_type != MANIFEST_TYPE {
            return Err(OsError::WrongType {
                found: envelope.payload_type.chars().take(80).collect(),
            });
        }
        Ok(Self {
            digest: Digest::of(bytes),
            manifest: Manifest::from_payload(&envelope.payload)?,
        })
    }
}

/// The envelope of a manifest, signed by each of `keys`. The same manifest and keys give the same bytes.
///
/// # Errors
/// What [`Manifest::validate`] says: nothing is signed that no box would take.
pub fn sign(manifest: &Manifest, keys: &[&Ed25519KeyPair]) -> Result<Vec<u8>, OsError> {
    manifest.validate()?;
    let payload = serde_json::to_vec(manifest).map_err(|error| OsError::Malformed {
        reason: error.to_string(),
    })?;
    let bytes = Envelope::sign(MANIFEST_TYPE, payload, keys).to_json();
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(OsError::TooLarge {
            bytes: bytes.len(),
            max: MAX_MANIFEST_BYTES,
        });
    }
    Ok(bytes)
}
