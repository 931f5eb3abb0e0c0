//! Private keys on disk: PKCS #8 in PEM, mode 0600, made on the first start only.

use super::FirstStart;
use crate::{codes as hub_codes, files};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_protocol::Problem;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::{rand::SystemRandom, signature::Ed25519KeyPair};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use std::{io, path::Path};

/// Why a key or certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Others can read it.
    #[error("private key {path} can be read by others (mode bits {mode:03o} beyond the owner's)")]
    ModeTooWide {
        /// The file.
        path: String,
        /// The permission bits of group and others.
        mode: u32,
    },
    /// It is gone, while the database is there.
    #[error("{path} is missing, though the database of this hub exists")]
    Missing {
        /// The file.
        path: String,
    },
    /// It cannot be read, parsed, made or written.
    #[error("{path}: {reason}")]
    Unusable {
        /// The file, or what was to be made.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl KeyError {
    pub(super) fn io(path: &Path, error: &io::Error) -> Self {
        Self::unusable(path, error)
    }

    pub(super) fn unusable(path: &Path, reason: &impl ToString) -> Self {
        Self::Unusable {
            path: path.display().to_string(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn issue(reason: &impl ToString) -> Self {
        Self::Unusable {
            path: "certificate".to_owned(),
            reason: reason.to_string(),
        }
    }

    /// What a person is told, with what to do.
    pub fn problem(&self) -> Problem {
        let (code, action) = match self {
            Self::ModeTooWide { path, .. } => (
                hub_codes::KEY_MODE_TOO_WIDE,
                format!("run `chmod 600 {path}`; if others were on this machine, treat the key as stolen"),
            ),
            Self::Missing { .. } => (
                hub_codes::KEYS_MISSING,
                "restore the `keys` directory from the backup of the data directory: new keys would lock out every node"
                    .to_owned(),
            ),
            Self::Unusable { .. } => (
                hub_codes::KEY_FILE_UNUSABLE,
                "check owner and mode of the hub's `keys` directory, or restore it from a backup".to_owned(),
            ),
        };
        Problem::new(code, self.to_string(), action)
    }
}

/// The CA's key: ECDSA P-256, which every TLS stack knows.
pub(super) fn certificate_key(path: &Path, first_start: FirstStart) -> Result<KeyPair, KeyError> {
    let pem = read_or_make(path, first_start, || {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| KeyError::issue(&error))?;
        Ok(key.serialize_pem())
    })?;
    KeyPair::from_pem(&pem).map_err(|error| KeyError::unusable(path, &error))
}

/// A key that signs documents: Ed25519.
pub(super) fn signing_key(path: &Path, first_start: FirstStart) -> Result<Ed25519KeyPair, KeyError> {
    let pem = read_or_make(path, first_start, || {
        let der =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|error| KeyError::issue(&error))?;
        Ok(pem("PRIVATE KEY", der.as_ref()))
    })?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| KeyError::unusable(path, &error))?;
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
        .map_err(|error| KeyError::unusable(path, &error))
}

fn read_or_make(
    path: &Path,
    first_start: FirstStart,
    make: impl FnOnce() -> Result<String, KeyError>,
) -> Result<String, KeyError> {
    if !path.exists() {
        if first_start == FirstStart::No {
            return Err(KeyError::Missing {
                path: path.display().to_string(),
            });
        }
        files::write(path, make()?.as_bytes(), files::PRIVATE).map_err(|error| KeyError::io(path, &error))?;
    }
    let mode = files::foreign_mode(path).map_err(|error| KeyError::io(path, &error))?;
    if mode != 0 {
        return Err(KeyError::ModeTooWide {
            path: path.display().to_string(),
            mode,
        });
    }
    std::fs::read_to_string(path).map_err(|error| KeyError::io(path, &error))
}

/// PEM (RFC 7468) of some DER.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}
