//! Puts the files where k3s reads them, and opens what is sealed on the way there.

use super::{
    ConfigFile, FileContent, K3sConfig,
    files::{self, yaml},
};
use crate::{
    codes, identity,
    kubernetes::address::{self, AddressError},
    settings::Settings,
};
use holdfast_protocol::{
    Problem,
    document::{K3sSection, Sealed, SealedValue},
    seal::{SealError, SealingKey, Zeroizing},
    sealing::{JOIN_TOKEN_NAME, secret_name},
};
use holdfast_store::fs as store_fs;
use serde_json::{Map, Value};
use std::{fs, path::Path};

/// Why a configuration cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A sealed value cannot be opened.
    #[error("{place}: {source}")]
    Sealed {
        /// What it is for.
        place: String,
        /// Why.
        source: SealError,
    },
    /// A sealed value is not there, or the box has no key for it.
    #[error("{place}: {reason}")]
    Missing {
        /// What it is for.
        place: String,
        /// What is missing.
        reason: &'static str,
    },
    /// Credentials are not in the form that k3s takes.
    #[error("{place}: the credentials are no JSON object with username and password")]
    Credentials {
        /// What they are for.
        place: String,
    },
    /// A file cannot be written.
    #[error("{0}")]
    File(String),
    /// The address of the node cannot be put on its interface.
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl ConfigError {
    /// The form in which people see it.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Sealed { place, source } => crate::sealed::problem(place, source),
            Self::Missing { .. } => Problem::new(
                codes::SEALED_VALUE_UNUSABLE,
                self.to_string(),
                "seal the value to this node and assign the release again: holdfastctl secret set",
            ),
            Self::Credentials { .. } => Problem::new(
                codes::SEALED_VALUE_UNUSABLE,
                self.to_string(),
                "store it anew as {\"username\":\"…\",\"password\":\"…\"}: holdfastctl secret set",
            ),
            Self::Address(error) => error.problem(),
            Self::File(_) => Problem::new(
                codes::KUBERNETES_FILE,
                self.to_string(),
                "check space, owner and mode of that path",
            ),
        }
    }
}

/// Checks that everything in a section that is sealed opens, and writes nothing.
pub fn check(section: &K3sSection, key: Option<&SealingKey>) -> Result<(), ConfigError> {
    // What is sealed comes from the document alone, whatever the settings of the box are.
    files::all(&Settings::default(), section)
        .iter()
        .filter_map(|(_, content)| content.as_ref())
        .try_for_each(|content| open(content, key).map(drop))
}

impl K3sConfig {
    /// Puts the node's address on its interface, writes every file that is not as it must be, and removes those that must not be.
    /// `config.yaml` itself is written by whoever starts k3s.
    pub fn put_in_place(&self, settings: &Settings) -> Result<(), ConfigError> {
        let key = if self.files.iter().any(ConfigFile::is_sealed) {
            identity::load_sealing(&settings.identity_dir())
                .map_err(|error| ConfigError::File(error.to_string()))?
        } else {
            None
        };
        address::ensure(self.address.as_ref())?;
        for file in &self.files {
            let content = open(&file.content, key.as_ref())?;
            write(&file.path, content.as_bytes(), file.mode)?;
        }
        for path in &self.absent {
            match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(unwritable(path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl ConfigFile {
    fn is_sealed(&self) -> bool {
        match &self.content {
            FileContent::Plain(_) => false,
            FileContent::Token(_) => true,
            FileContent::Registries { credentials, .. } => !credentials.is_empty(),
        }
    }
}

fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::File(format!("cannot write {}: {error}", path.display()))
}

/// Writes a file that is not there with this content; flash that holds it already is spared.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), ConfigError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode_of = |path| fs::metadata(path).map(|found| found.permissions().mode() & 0o7777);
    if fs::read(path).is_ok_and(|found| found == content) && mode_of(path).is_ok_and(|found| found == mode) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        store_fs::create_private_directory(directory).map_err(|error| unwritable(path, &error))?;
    }
    store_fs::write_atomic(path, content, mode).map_err(|error| unwritable(path, &error))
}

fn open(content: &FileContent, key: Option<&SealingKey>) -> Result<Zeroizing<String>, ConfigError> {
    let content = match content {
        FileContent::Plain(text) => text.clone(),
        FileContent::Token(sealed) => {
            let place = "k3s.join.token";
            let value = opened(place, JOIN_TOKEN_NAME, Some(sealed), key)?;
            // k3s trims it, and its own file ends with a line end too.
            format!("{}\n", text(place, &value)?)
        }
        FileContent::Registries { plain, credentials } => with_credentials(plain, credentials, key)?,
    };
    Ok(Zeroizing::new(content))
}

fn text<'a>(place: &str, value: &'a [u8]) -> Result<&'a str, ConfigError> {
    std::str::from_utf8(value).map_err(|_| ConfigError::Credentials {
        place: place.to_owned(),
    })
}

fn with_credentials<'a>(
    plain: &Map<String, Value>,
    credentials: impl IntoIterator<Item = (&'a String, &'a SealedValue)>,
    key: Option<&SealingKey>,
) -> Result<String, ConfigError> {
    let mut all = plain.clone();
    let mut configs = taken(&mut all, "configs");
    for (registry, value) in credentials {
        let place = format!("k3s.registries.credentials.{registry}");
        let bytes = opened(&place, &secret_name(&value.source), value.sealed.as_ref(), key)?;
        let auth: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|_| ConfigError::Credentials { place: place.clone() })?;
        if auth.is_empty() || !auth.values().all(Value::is_string) {
            return Err(ConfigError::Credentials { place });
        }
        let mut config = taken(&mut configs, registry);
        config.insert("auth".into(), auth.into());
        configs.insert(registry.clone(), config.into());
    }
    if !configs.is_empty() {
        all.insert("configs".into(), configs.into());
    }
    Ok(yaml(&all))
}

/// The map below `key`, taken out; an empty one where there is none.
fn taken(map: &mut Map<String, Value>, key: &str) -> Map<String, Value> {
    match map.remove(key) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn opened(
    place: &str,
    name: &str,
    sealed: Option<&Sealed>,
    key: Option<&SealingKey>,
) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    let missing = |reason| ConfigError::Missing {
        place: place.to_owned(),
        reason,
    };
    let sealed = sealed.ok_or_else(|| missing("the document holds no value for this box"))?;
    let key = key.ok_or_else(|| missing("this box has no sealing key"))?;
    key.open(name, sealed).map_err(|source| ConfigError::Sealed {
        place: place.to_owned(),
        source,
    })
}
