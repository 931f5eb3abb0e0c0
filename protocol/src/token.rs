//! Enrolment tokens: `hf1.` + base64url of a JSON object + `.` + 8 hex digits of a checksum.
//!
//! The checksum (the first 4 bytes of the SHA-256 of all that stands before it) is no security: it tells a token that was cut short
//! or mistyped from one that is wrong, before anything is sent.

use crate::Digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What every token of this version starts with.
pub const PREFIX: &str = "hf1.";

/// Length of the secret in bytes (256 bits).
pub const SECRET_BYTES: usize = 32;

/// The longest text that is looked at, in bytes.
const MAX_TEXT_BYTES: usize = 4096;

/// A token as the operator hands it to a box. The hub keeps only [`EnrolmentToken::secret_hash`].
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    /// Where to enrol: an `https://` URL.
    pub hub_url: String,
    /// SHA-256 of the SubjectPublicKeyInfo (DER) of the hub's CA key; absent where the hub's certificate comes from public roots.
    pub ca_pin: Option<Digest>,
    /// Public name of the token.
    pub id: String,
    /// The secret part.
    pub secret: [u8; SECRET_BYTES],
}

#[derive(Serialize, Deserialize)]
struct Body {
    u: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p: Option<Digest>,
    i: String,
    s: String,
}

/// Why a token's text cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Cut short or altered.
    #[error("the token is incomplete or was altered (its checksum does not fit): copy it whole, in one line")]
    Truncated,
    /// Another version.
    #[error("the token starts with {found:?}; this build reads tokens that start with {PREFIX:?}")]
    Version {
        /// What it starts with, at most 8 characters.
        found: String,
    },
    /// Not a token at all.
    #[error("the token cannot be read: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
}

impl InvalidToken {
    /// Name of the problem, from [`crate::codes`].
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Truncated => crate::codes::TOKEN_TRUNCATED,
            Self::Version { .. } | Self::Malformed { .. } => crate::codes::TOKEN_MALFORMED,
        }
    }
}

impl EnrolmentToken {
    /// Hash of the secret, as the hub stores it.
    ///
    /// One round of SHA-256 is enough here: the secret is 256 random bits, which no one can guess, however fast the hash.
    pub fn secret_hash(secret: &[u8]) -> Digest {
        Digest::of(secret)
    }
}

impl fmt::Display for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = Body {
            u: self.hub_url.clone(),
            p: self.ca_pin,
            i: self.id.clone(),
            s: URL_SAFE_NO_PAD.encode(self.secret),
        };
        let json = serde_json::to_vec(&body).map_err(|_| fmt::Error)?;
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json));
        write!(f, "{text}.{}", checksum(&text))
    }
}

/// Shows everything but the secret.
impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolmentToken")
            .field("hub_url", &self.hub_url)
            .field("ca_pin", &self.ca_pin)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl FromStr for EnrolmentToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let malformed = |reason: &str| InvalidToken::Malformed {
            reason: reason.to_owned(),
        };
        if text.is_empty() {
            return Err(malformed("it is empty"));
        }
        if text.len() > MAX_TEXT_BYTES {
            return Err(malformed("it is longer than any token"));
        }
        let Some(rest) = text.strip_prefix(PREFIX) else {
            if PREFIX.starts_with(text) {
                return Err(InvalidToken::Truncated);
            }
            return Err(InvalidToken::Version {
                found: text.chars().take(8).collect(),
            });
        };
        if !rest
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        {
            return Err(malformed("it holds characters that no token has"));
        }
        let Some((encoded, sum)) = rest.split_once('.') else {
            return Err(InvalidToken::Truncated);
        };
        if checksum(&format!("{PREFIX}{encoded}")) != sum {
            return Err(InvalidToken::Truncated);
        }
        let json = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| malformed("its body is not base64url"))?;
        let body: Body =
            serde_json::from_slice(&json).map_err(|_| malformed("its body is not what a hub writes"))?;
        if !body.u.starts_with("https://") {
            return Err(malformed("its hub address is not an https:// URL"));
        }
        let secret = URL_SAFE_NO_PAD
            .decode(&body.s)
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        let Some(secret) = secret else {
            return Err(malformed("its secret does not have 32 bytes"));
        };
        Ok(Self {
            hub_url: body.u,
            ca_pin: body.p,
            id: body.i,
            secret,
        })
    }
}

fn checksum(text: &str) -> String {
    Digest::of(text.as_bytes()).hex()[..8].to_owned()
}
