//! Trust: which keys may sign what, and how many of them must.

use crate::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Desired-state documents.
    DesiredState,
    /// Statements of the current time.
    Time,
    /// Manifests of operating system images.
    OsImage,
}

/// Algorithm of a trusted key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Ed25519 (RFC 8032); the public key has 32 bytes, the signature 64.
    Ed25519,
}

/// A public key that the node trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustedKey {
    /// Name of the key: the SHA-256 of its raw public bytes.
    pub key_id: Digest,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its raw public bytes in base64.
    #[serde(with = "base64_bytes")]
    pub public: Vec<u8>,
    /// What it may sign.
    pub roles: Vec<Role>,
}

impl TrustedKey {
    /// An Ed25519 key from its 32 raw public bytes.
    pub fn ed25519(public: &[u8], roles: Vec<Role>) -> Self {
        Self {
            key_id: Digest::of(public),
            algorithm: Algorithm::Ed25519,
            public: public.to_vec(),
            roles,
        }
    }
}

/// The keys that a node trusts, and how many of them must sign for each role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustPolicy {
    /// The trusted keys.
    pub keys: Vec<TrustedKey>,
    /// Number of different keys that must sign, by role; 1 where the role is not named. Never taken as less than 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub thresholds: BTreeMap<Role, u16>,
}

impl TrustPolicy {
    /// How many different keys must sign for `role`.
    pub fn threshold(&self, role: Role) -> usize {
        usize::from(self.thresholds.get(&role).copied().unwrap_or(1).max(1))
    }
}

/// Bytes as standard base64 with padding.
pub(crate) mod base64_bytes {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD
            .decode(String::deserialize(deserializer)?)
            .map_err(|error| D::Error::custom(format!("not base64: {error}")))
    }
}
