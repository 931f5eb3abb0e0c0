//! The key of a box that values are sealed to, and the names that they are sealed under.
//!
//! In: a raw X25519 public key. Out: its text form, its digest, and the statement by which a box says that it is its own. How values
//! are sealed and opened is in [`crate::seal`], which is compiled only where it is needed (feature `seal`).

use crate::{Digest, envelope::Envelope, trust::base64_bytes};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// Payload type of what a box signs to say which sealing key is its own.
pub const SEALING_KEY_TYPE: &str = "application/vnd.holdfast.sealing-key.v1";

/// Name that the join secret of a site is sealed under.
pub const JOIN_TOKEN_NAME: &str = "k3s-token";

/// Name that an operator's secret is sealed under.
pub fn secret_name(source: &str) -> String {
    format!("secret/{source}")
}

/// An X25519 public key; base64url without padding in JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealingPublicKey(pub [u8; 32]);

/// A text is no X25519 public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 32 bytes in base64url without padding")]
pub struct InvalidSealingKey(String);

impl SealingPublicKey {
    /// Name of the key: SHA-256 of its raw bytes, as [`crate::document::Sealed::key`] has it.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl fmt::Display for SealingPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for SealingPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingPublicKey({self})")
    }
}

impl FromStr for SealingPublicKey {
    type Err = InvalidSealingKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSealingKey(text.to_owned());
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        bytes.try_into().map(Self).map_err(|_| invalid())
    }
}

impl Serialize for SealingPublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SealingPublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// A box says which key is its own: signed by its device key, so that nobody between it and whoever looks at the signature can put
/// another key in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealingKeyStatement {
    /// The key.
    pub key: SealingPublicKey,
    /// ECDSA P-256 signature (ASN.1, SHA-256) of [`Self::signed_bytes`] by the device key (base64).
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
}

impl SealingKeyStatement {
    /// What the signature covers: the DSSE pre-authentication encoding of the raw key under [`SEALING_KEY_TYPE`].
    pub fn signed_bytes(key: &SealingPublicKey) -> Vec<u8> {
        Envelope {
            payload_type: SEALING_KEY_TYPE.to_owned(),
            payload: key.0.to_vec(),
            signatures: Vec::new(),
        }
        .pre_authentication_encoding()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_after_its_way_through_text() {
        let key = SealingPublicKey([7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        for bad in ["", "AAAA", &format!("{key}="), &"/".repeat(43)] {
            assert!(bad.parse::<SealingPublicKey>().is_err(), "{bad}");
        }
    }
}
