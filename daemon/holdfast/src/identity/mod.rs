//! Who this box is: its key, its certificate, its hub and the keys that it trusts, below `identity/` in the state directory.
//!
//! ```text
//! identity/device.key        PKCS #8 PEM, 0600; made once, never leaves the box
//! identity/sealing.key       32 raw bytes (X25519), 0600; made once, never leaves the box
//! identity/certificate.pem   the node's certificate chain, its own first
//! identity/hub-ca.pem        CA certificates of the hub
//! identity/node.json         name, hub, brokers, trusted keys; written last
//! identity/seed.json         what vouches for the seed of the image, where it was taken
//! identity/time-floor        newest signed time of the hub
//! ```
//!
//! Every file is replaced atomically. The box is enrolled if and only if `node.json` is there, and it is written only when all else
//! is on the disk: a power cut during enrolment leaves a box that enrols again, with the same key.

pub mod clock;
mod directory;
mod key;
mod sealing;

pub use directory::{check_state_dir, prepare as prepare_state_dir};
pub use key::DeviceKey;
pub use sealing::{load as load_sealing, statement as sealing_statement};

use crate::{codes, seed};
use holdfast_core::admission::{self, Rejection, VerifiedDocument, seed::SeedTrust};
use holdfast_protocol::{
    Digest, NodeId, Problem, SchemaVersion, codes as shared, seal::SealingKey, sealing::SealingKeyStatement,
    trust::TrustPolicy,
};
use holdfast_store::{StoreError, fs as store_fs};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An enrolled node.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the node: certificate common name, MQTT client id and user name, level of its topics.
    pub node: NodeId,
    /// Address of the hub's node API, an `https://` URL.
    pub hub_url: String,
    /// Brokers in the order to try, as `mqtts://host:port`.
    pub brokers: Vec<String>,
    /// Keys that sign documents and time.
    pub trust: TrustPolicy,
    /// Whether the hub's HTTPS certificate may also come from public roots: its token had no pin.
    pub public_roots: bool,
    /// Public name of the token that enrolled it; a file that still holds it is wiped.
    pub enrolled_by: Option<String>,
    /// Certificate chain in PEM, the node's own first.
    pub certificate: String,
    /// CA certificates of the hub in PEM.
    pub ca_certificates: String,
    /// The device key.
    pub key: Arc<DeviceKey>,
    /// What values for this box alone are sealed to; none until the daemon has made one on a box that an older version enrolled.
    pub sealing: Option<Arc<SealingKey>>,
    /// Digest of the sealing key that the hub was told last.
    pub told_sealing: Option<Digest>,
    /// What vouches for the seed of the box's image, where it runs or ran one: it is kept up, and can be gone back to, like any other document.
    pub seed: Option<Arc<SeedTrust>>,
}

/// Why an identity cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Others may read or write what must be private.
    #[error("{} has mode {mode:04o}; others could read or change it", path.display())]
    ModeTooWide {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The widest mode that is accepted.
        wanted: u32,
    },
    /// Another user owns it.
    #[error("{} belongs to user {owner}, not to user {user} that holdfast runs as", path.display())]
    OwnerWrong {
        /// The file or directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who holdfast runs as.
        user: u32,
    },
    /// Reading or writing failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] StoreError),
    /// The content of a file is not what was written there.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer holdfast wrote it.
    #[error("{} has schema {found}; this build reads major version {}", path.display(), SchemaVersion::CURRENT.major)]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: SchemaVersion,
    },
}

impl IdentityError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

impl From<&IdentityError> for Problem {
    fn from(error: &IdentityError) -> Self {
        let (code, action) = match error {
            IdentityError::ModeTooWide { path, wanted, .. } => (
                codes::STATE_MODE_TOO_WIDE,
                format!("run: chmod {wanted:04o} {}", path.display()),
            ),
            IdentityError::OwnerWrong { path, user, .. } => (
                codes::STATE_OWNER_WRONG,
                format!("run: chown -R {user} {}, or run holdfast as its owner", path.display()),
            ),
            IdentityError::Io { path, source, .. } => match StoreError::from_io(path, source) {
                known @ (StoreError::DiskFull { .. } | StoreError::ReadOnly { .. } | StoreError::Forbidden { .. }) => {
                    let Self { code, action, .. } = known.problem();
                    return Self::new(code, error.to_string(), action);
                }
                _ => (
                    codes::STATE_UNUSABLE,
                    format!("check permissions and file system of {}, or set state_dir", path.display()),
                ),
            },
            IdentityError::Write(error) => return error.problem(),
            IdentityError::Damaged { .. } => (
                codes::IDENTITY_DAMAGED,
                "restore the file from a backup, or move the identity directory away and enrol with a new token".into(),
            ),
            IdentityError::TooNew { .. } => (codes::IDENTITY_TOO_NEW, "install the newer holdfast again".into()),
        };
        Self::new(code, error.to_string(), action)
    }
}

/// Replaces `path` with `content`, mode 0600. After a crash there is either the old or the new content, never a mixture.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    Ok(store_fs::write_atomic(path, content, store_fs::PRIVATE_FILE)?)
}

/// `node.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    schema: SchemaVersion,
    node: NodeId,
    hub_url: String,
    brokers: Vec<String>,
    trust: TrustPolicy,
    #[serde(default)]
    public_roots: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enrolled_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told_sealing: Option<Digest>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

const RECORD: &str = "node.json";
const CERTIFICATE: &str = "certificate.pem";
const CA_CERTIFICATES: &str = "hub-ca.pem";

impl Identity {
    /// Whether the box is enrolled, as far as a look at the directory says.
    pub fn exists(directory: &Path) -> bool {
        directory.join(RECORD).exists()
    }

    /// Reads the identity below `directory`; `None` where the box is not enrolled. Modes are checked before anything is read.
    pub fn load(directory: &Path) -> Result<Option<Self>, IdentityError> {
        let path = directory.join(RECORD);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(IdentityError::io("read", &path)(error)),
        };
        directory::check(directory, 0o700)?;
        let damaged = |error: serde_json::Error| IdentityError::Damaged {
            path: path.clone(),
            reason: error.to_string(),
        };
        let value: Value = serde_json::from_slice(&bytes).map_err(damaged)?;
        if let Some(Ok(found)) = value.get("schema").map(SchemaVersion::deserialize)
            && found.check_supported().is_err()
        {
            return Err(IdentityError::TooNew { path, found });
        }
        let record = Record::deserialize(value).map_err(damaged)?;
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(IdentityError::io("read", &path))
        };
        let key = DeviceKey::load(directory)?.ok_or_else(|| IdentityError::Damaged {
            path: directory.join(key::FILE),
            reason: "it is missing".into(),
        })?;
        Ok(Some(Self {
            node: record.node,
            hub_url: record.hub_url,
            brokers: record.brokers,
            trust: record.trust,
            public_roots: record.public_roots,
            enrolled_by: record.enrolled_by,
            certificate: read(CERTIFICATE)?,
            ca_certificates: read(CA_CERTIFICATES)?,
            key: Arc::new(key),
            // Asked for again when the daemon starts: what reads the identity only to look at it makes nothing.
            sealing: sealing::load(directory).unwrap_or_default().map(Arc::new),
            told_sealing: record.told_sealing,
            // A box without it runs what its hub says all the same.
            seed: seed::trust(directory).unwrap_or_default().map(Arc::new),
        }))
    }

    /// The identity of a box that runs the seed of its image and has no hub yet: it trusts the seed alone, and connects to nobody.
    pub fn of_seed(directory: &Path, trust: SeedTrust) -> Result<Self, IdentityError> {
        Ok(Self {
            node: trust.node.clone(),
            hub_url: String::new(),
            brokers: Vec::new(),
            trust: TrustPolicy::default(),
            public_roots: false,
            enrolled_by: None,
            certificate: String::new(),
            ca_certificates: String::new(),
            key: Arc::new(DeviceKey::load_or_make(directory)?),
            sealing: None,
            told_sealing: None,
            seed: Some(Arc::new(trust)),
        })
    }

    /// Checks a stored document again: one of the hub, or the seed.
    pub fn readmit(&self, envelope: &[u8]) -> Result<VerifiedDocument, Box<Rejection>> {
        admission::readmit(envelope, &self.trust, &self.node).or_else(|rejection| match &self.seed {
            Some(seed) if rejection.problem.code == shared::PAYLOAD_TYPE_UNKNOWN => {
                admission::seed::readmit(envelope, seed)
            }
            _ => Err(rejection),
        })
    }

    /// The sealing key below `directory`, made where there is none: a box that an older version enrolled has none yet.
    pub fn load_or_make_sealing(directory: &Path) -> Result<Arc<SealingKey>, IdentityError> {
        sealing::load_or_make(directory).map(Arc::new)
    }

    /// What this box says to the hub of its sealing key; nothing where it has none.
    pub fn sealing_statement(&self) -> Result<Option<SealingKeyStatement>, rcgen::Error> {
        let key = self.sealing.as_ref();
        key.map(|key| sealing::statement(key, &self.key)).transpose()
    }

    /// Whether the hub has yet to be told the sealing key.
    pub fn sealing_untold(&self) -> bool {
        let own = self.sealing.as_ref().map(|key| key.public().digest());
        own.is_some() && own != self.told_sealing
    }

    /// Writes the identity below `directory`, which must hold its key already; `node.json` last.
    pub fn store(&self, directory: &Path) -> Result<(), IdentityError> {
        let record = Record {
            schema: SchemaVersion::CURRENT,
            node: self.node.clone(),
            hub_url: self.hub_url.clone(),
            brokers: self.brokers.clone(),
            trust: self.trust.clone(),
            public_roots: self.public_roots,
            enrolled_by: self.enrolled_by.clone(),
            told_sealing: self.told_sealing,
            extra: Map::new(),
        };
        let path = directory.join(RECORD);
        let json = serde_json::to_vec_pretty(&record)
            .map_err(|error| IdentityError::io("write", &path)(error.into()))?;
        write_private(&directory.join(CERTIFICATE), self.certificate.as_bytes())?;
        write_private(&directory.join(CA_CERTIFICATES), self.ca_certificates.as_bytes())?;
        write_private(&path, &json)
    }
}
