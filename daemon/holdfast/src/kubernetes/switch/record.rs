//! What is written down of k3s: how it was switched to last, and a way back that has begun.
//!
//! In: records. Out: `current.json` and `restoring.json` in `<state>/k3s`, each written in one step. It guarantees that a power cut leaves
//! the former record or the new one. `current.json` is what a switch is committed by; as long as there is a `restoring.json`, nothing may
//! be started before the way back was gone to its end.

use super::SwitchError;
use holdfast_protocol::{Digest, Generation, document::K3sSection};
use holdfast_store::fs as durable;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A program of k3s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binary {
    /// SHA-256, where it came as an artifact; else it is the one of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Where it is.
    pub path: PathBuf,
    /// What it said of itself; absent as long as nobody had to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Tells whether the file is still the same one; absent for artifacts, whose content is their name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl Binary {
    /// Whether this is the same program as far as the datastore is concerned.
    pub fn is(&self, other: &Self) -> bool {
        match (&self.digest, &other.digest) {
            (Some(this), Some(other)) => this == other,
            (None, None) => {
                self.path == other.path
                    && (self.version.is_none() || other.version.is_none() || self.version == other.version)
            }
            // The same version as an artifact and in the image of the box is the same program.
            _ => self.version.is_some() && self.version == other.version,
        }
    }
}

/// How k3s was switched to last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Current {
    /// The document that switched it; none where no document did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// What that document says of k3s. Secrets in it are sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<K3sSection>,
    /// The program.
    pub binary: Binary,
    /// The program before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Binary>,
}

/// A way back that has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restoring {
    /// Where it leads.
    pub to: Current,
    /// Name of the snapshot that returns with it.
    pub snapshot: String,
}

/// The files.
#[derive(Clone, Debug)]
pub struct Records {
    home: PathBuf,
}

impl Records {
    /// Those in `home`, `<state>/k3s`.
    pub const fn new(home: PathBuf) -> Self {
        Self { home }
    }

    /// How k3s was switched to last.
    pub fn current(&self) -> Result<Option<Current>, SwitchError> {
        read(&self.home.join("current.json"))
    }

    /// Commits a switch.
    pub fn set_current(&self, current: &Current) -> Result<(), SwitchError> {
        self.write("current.json", current)
    }

    /// The way back that has begun.
    pub fn restoring(&self) -> Result<Option<Restoring>, SwitchError> {
        read(&self.home.join("restoring.json"))
    }

    /// Begins a way back.
    pub fn set_restoring(&self, restoring: &Restoring) -> Result<(), SwitchError> {
        self.write("restoring.json", restoring)
    }

    /// Ends it.
    pub fn clear_restoring(&self) -> Result<(), SwitchError> {
        durable::remove(&self.home.join("restoring.json")).map_err(|error| SwitchError::store(&error))
    }

    fn write(&self, name: &str, record: &impl Serialize) -> Result<(), SwitchError> {
        let path = self.home.join(name);
        durable::create_private_directory(&self.home).map_err(|error| SwitchError::store(&error))?;
        let text = serde_json::to_vec(record).map_err(|error| SwitchError::File {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        durable::write_atomic(&path, &text, durable::PRIVATE_FILE).map_err(|error| SwitchError::store(&error))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SwitchError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| SwitchError::File {
                path: path.to_owned(),
                reason: format!("it is not what Holdfast writes: {error}"),
            }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SwitchError::io(path, &error)),
    }
}
