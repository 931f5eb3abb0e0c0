//! Hubs that the operator logged in to: `$XDG_CONFIG_HOME/holdfast/contexts.toml`, mode 0600, for it holds bearer tokens.
//!
//! In: the file, the environment. Out: which hub to talk to, as whom, and how it proves to be that hub. The file is replaced whole
//! (written beside, synced, renamed), so a power cut leaves the old one or the new one.

use crate::{
    codes,
    failure::{Failure, Result},
};
use holdfast_protocol::Digest;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// One hub, as one operator.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Address of the hub.
    pub hub: String,
    /// The operator's bearer token.
    pub token: String,
    /// Name of the operator, as the hub told it at log-in; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Digest of the hub's CA key: the hub must show a certificate signed by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Digest>,
    /// The CA certificates (PEM) that alone may sign the hub's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// All contexts, and which one is used.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that is used where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// All, by name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// Where the contexts are, by the rules of the XDG base directories.
pub fn path() -> Result<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|directory| directory.join("holdfast/contexts.toml"))
        .ok_or_else(|| {
            Failure::new(
                codes::CONTEXT_FILE,
                "there is no place for contexts: neither HOME nor XDG_CONFIG_HOME is set",
                "set XDG_CONFIG_HOME, or name the hub with HOLDFAST_HUB and HOLDFAST_TOKEN",
            )
        })
}

fn failed(path: &Path, what: &str, action: &str) -> Failure {
    Failure::new(codes::CONTEXT_FILE, format!("{}: {what}", path.display()), action)
}

impl Contexts {
    /// Reads the file; none is as good as an empty one.
    pub fn read(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(path, &error.to_string(), "make it readable for you")),
        };
        let mode = fs::metadata(path)
            .map_err(|error| failed(path, &error.to_string(), "make it readable for you"))?
            .permissions()
            .mode()
            & 0o777;
        if mode & 0o077 != 0 {
            return Err(failed(
                path,
                &format!("others may read it (mode {mode:04o}), and it holds your tokens"),
                &format!("chmod 600 {}", path.display()),
            ));
        }
        toml::from_str(&text).map_err(|error| {
            failed(
                path,
                &error.to_string(),
                "mend the file, or remove it and log in again",
            )
        })
    }

    /// Replaces the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self)
            .map_err(|error| failed(path, &error.to_string(), "log in again under a plain name"))?;
        let io =
            |error: std::io::Error| failed(path, &error.to_string(), "make its directory writable for you");
        let directory = path
            .parent()
            .ok_or_else(|| failed(path, "has no directory", "set XDG_CONFIG_HOME"))?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(io)?;
        let beside = path.with_extension(format!("toml.{}", std::process::id()));
        let written = (|| {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, path)?;
            fs::File::open(directory)?.sync_all()
        })();
        if written.is_err() {
            // The half-written file is of no use; that it may stay is no further harm.
            let _ = fs::remove_file(&beside);
        }
        written.map_err(io)
    }

    /// The context of that name, or the current one.
    pub fn find(&self, name: Option<&str>) -> Result<(&str, &Context)> {
        let Some(name) = name.or(self.current.as_deref()) else {
            return Err(Failure::new(
                codes::NOT_LOGGED_IN,
                "no hub is known",
                "log in: holdfastctl login https://HUB --token-file FILE",
            ));
        };
        self.contexts
            .get_key_value(name)
            .map(|(name, context)| (name.as_str(), context))
            .ok_or_else(|| {
                let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
                Failure::new(
                    codes::CONTEXT_UNKNOWN,
                    format!("there is no context {name:?}"),
                    if known.is_empty() {
                        "log in: holdfastctl login https://HUB --token-file FILE".to_owned()
                    } else {
                        format!("use one of: {}", known.join(", "))
                    },
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Contexts {
        let context = Context {
            hub: "https://hub.example:8443".into(),
            token: "hfop_x".into(),
            operator: Some("ada".into()),
            pin: Some(Digest::of(b"key")),
            ca: None,
        };
        Contexts {
            current: Some("default".into()),
            contexts: BTreeMap::from([("default".into(), context)]),
        }
    }

    #[test]
    fn what_is_written_is_private_and_reads_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holdfast/contexts.toml");
        some().write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert!(Contexts::read(&path).unwrap().contexts == some().contexts);
        assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("contexts.toml");
        some().write(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let failure = Contexts::read(&path).err().unwrap();
        assert!(failure.0.action.starts_with("chmod 600"), "{failure}");
    }

    #[test]
    fn an_unknown_context_names_the_known_ones() {
        let failure = some().find(Some("other")).err().unwrap();
        assert_eq!(failure.exit_code(), 4);
        assert!(failure.0.action.contains("default"));
        assert_eq!(
            Contexts::default().find(None).err().unwrap().0.code,
            codes::NOT_LOGGED_IN
        );
    }
}
