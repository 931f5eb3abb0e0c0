//! Values that only one box can read.

use crate::Digest;
use serde::{Deserialize, Serialize};

/// A value sealed to a box's own key: HPKE (RFC 9180) in base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305.
///
/// `info` is `holdfast sealed v1`; the additional data is the name that the value is used under, so that a value cannot be moved to
/// another place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sealed {
    /// SHA-256 of the recipient's raw public key: tells a box whose key was replaced at once.
    pub key: Digest,
    /// Encapsulated key, 32 bytes, base64url without padding.
    pub encapsulated: String,
    /// Ciphertext with its tag, base64url without padding.
    pub ciphertext: String,
}
