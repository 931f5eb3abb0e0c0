//! Pairs of a program and the datastore that it left: what a way back needs.
//!
//! In: the datastore, while k3s stands still. Out: `<state>/k3s/snapshots/<generation>/{state.db,pair.json}`, named after the document that
//! switched away from it (or after the version of a new image of the box). It guarantees that a pair is there whole or not at all, that its datastore was read page by page and found
//! intact, and that no more than the newest few are kept.

use super::{Binary, SwitchError};
use crate::kubernetes::{
    datastore::{DatastoreError, database, snapshots},
    install::digest_of,
};
use holdfast_protocol::{Digest, Generation, document::K3sSection};
use holdfast_store::fs as durable;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Pairs that are kept: of the last switch, and of the one before it.
const KEPT: usize = 2;
/// Room that must be left beside a snapshot, in bytes: for the journals of both databases.
const MARGIN: u64 = 16 << 20;

/// What the datastore was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Kept {
    /// kine's SQLite, in `state.db`.
    Sqlite {
        /// Of the file.
        digest: Digest,
    },
    /// Embedded etcd, which k3s snapshots by itself (`etcd-snapshot`): members of a cluster cannot go back one by one.
    Etcd,
    /// None yet, or none on this box.
    Nothing,
}

/// A program and the datastore that it left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pair {
    /// Name of its directory: the document that switched away from it, or the version that the box's image came with.
    pub name: String,
    /// Rises with each pair.
    #[serde(default)]
    pub sequence: u64,
    /// Version that was switched to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_version: Option<String>,
    /// The document that it had been switched to by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// What that document says of k3s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<K3sSection>,
    /// The program.
    pub binary: Binary,
    /// What became of the datastore.
    pub datastore: Kept,
}

/// All pairs of a box.
#[derive(Clone, Debug)]
pub struct Pairs {
    root: PathBuf,
}

impl Pairs {
    /// Those in `<home>/snapshots`.
    pub fn new(home: &Path) -> Self {
        Self {
            root: home.join("snapshots"),
        }
    }

    /// Name of a pair.
    pub fn name(undone_by: Generation) -> String {
        undone_by.to_string()
    }

    /// Makes sure that there is room for a snapshot of `database`.
    pub fn check_room(&self, database: &Path) -> Result<(), SwitchError> {
        let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        let log = snapshots_log(database);
        let needed = size(database) + size(&log) + MARGIN;
        durable::create_private_directory(&self.root).map_err(|error| SwitchError::store(&error))?;
        let found = nix::sys::statvfs::statvfs(&self.root)
            .map_err(|error| SwitchError::io(&self.root, &io::Error::from(error)))?;
        let free = found.blocks_available().saturating_mul(found.fragment_size());
        if free < needed {
            return Err(SwitchError::NoRoom {
                path: self.root.clone(),
                needed,
                free,
            });
        }
        Ok(())
    }

    /// Takes a snapshot of `database` and writes it down with what ran on it. k3s must not run. `database` need not exist.
    pub fn take(&self, database: &Path, mut pair: Pair) -> Result<(), SwitchError> {
        let name = pair.name.clone();
        pair.sequence = self.list().first().map_or(1, |newest| newest.sequence + 1);
        let unfinished = self.root.join(format!(".{name}.unfinished"));
        remove_directory(&unfinished)?;
        let taken = Self::fill(database, &unfinished, &mut pair);
        if taken.is_err() {
            // On a full disk, it must not take up what little is left.
            let _ = remove_directory(&unfinished);
        }
        taken?;
        let directory = self.root.join(&name);
        remove_directory(&directory)?;
        fs::rename(&unfinished, &directory).map_err(|error| SwitchError::io(&directory, &error))?;
        durable::sync_directory_of(&directory).map_err(|error| SwitchError::store(&error))?;
        self.keep_newest();
        Ok(())
    }

    fn fill(database: &Path, directory: &Path, pair: &mut Pair) -> Result<(), SwitchError> {
        durable::create_private_directory(directory).map_err(|error| SwitchError::store(&error))?;
        pair.datastore = if database.with_file_name("etcd").exists() {
            Kept::Etcd
        } else if database.exists() {
            let copy = directory.join("state.db");
            database::copy(database, &copy)?;
            database::check(&copy)?;
            Kept::Sqlite {
                digest: digest_of(&copy)?,
            }
        } else {
            Kept::Nothing
        };
        let path = directory.join("pair.json");
        let text = serde_json::to_vec(&pair).map_err(|error| SwitchError::File {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        durable::write_atomic(&path, &text, durable::PRIVATE_FILE).map_err(|error| SwitchError::store(&error))
    }

    /// All pairs, the newest first.
    pub fn list(&self) -> Vec<Pair> {
        let mut all: Vec<Pair> = fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let directory = entry.ok()?.path();
                let text = fs::read(directory.join("pair.json")).ok()?;
                let pair: Pair = serde_json::from_slice(&text).ok()?;
                (directory.file_name()?.to_str()? == pair.name).then_some(pair)
            })
            .collect();
        all.sort_by_key(|pair| std::cmp::Reverse(pair.sequence));
        all
    }

    /// The snapshot of a pair, as it can be put back.
    pub fn snapshot(&self, name: &str, digest: Digest) -> snapshots::Snapshot {
        snapshots::Snapshot {
            path: self.root.join(name).join("state.db"),
            sequence: 0,
            digest,
        }
    }

    /// The pair of this name.
    pub fn get(&self, name: &str) -> Option<Pair> {
        self.list().into_iter().find(|pair| pair.name == name)
    }

    /// Makes sure that the datastore of a pair can come back.
    pub fn verify(&self, pair: &Pair) -> Result<(), SwitchError> {
        let Kept::Sqlite { digest } = pair.datastore else {
            return Ok(());
        };
        let snapshot = self.snapshot(&pair.name, digest);
        if digest_of(&snapshot.path)? == digest {
            return Ok(());
        }
        Err(DatastoreError::Damaged {
            path: snapshot.path,
            reason: "its content is not what was written".into(),
        }
        .into())
    }

    fn keep_newest(&self) {
        for old in self.list().into_iter().skip(KEPT) {
            let directory = self.root.join(&old.name);
            if let Err(error) = remove_directory(&directory) {
                tracing::warn!(%error, "an old snapshot of the datastore cannot be removed");
            }
        }
    }
}

fn snapshots_log(database: &Path) -> PathBuf {
    let real = fs::read_link(database).unwrap_or_else(|_| database.to_owned());
    let mut name = real.into_os_string();
    name.push("-wal");
    name.into()
}

fn remove_directory(path: &Path) -> Result<(), SwitchError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SwitchError::io(path, &error)),
        _ => Ok(()),
    }
}
