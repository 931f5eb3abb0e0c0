//! Snapshots of a datastore in memory, on the disk: taken from the live database, restored at boot.
//!
//! In: the live database. Out: `<sequence>-<sha256>.db` in a directory, the two newest kept; the newest intact one, put in place. It
//! guarantees that a snapshot is there whole or not at all, that one which was damaged since is never restored, and that a power cut or a
//! full disk at any moment leaves the former two.

use super::{DatastoreError, database};
use holdfast_protocol::Digest;
use holdfast_store::fs as durable;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// Snapshots that are kept.
const KEPT: usize = 2;
/// Damaged snapshots that are kept, for whoever wants to know why.
const KEPT_DAMAGED: usize = 1;
/// A snapshot that is being written.
const UNFINISHED: &str = ".unfinished";
/// Ends the name of a snapshot that was found damaged.
const DAMAGED: &str = ".damaged";

/// The snapshots in a directory.
#[derive(Clone, Debug)]
pub struct Snapshots {
    directory: PathBuf,
}

/// A snapshot, as its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it is.
    pub path: PathBuf,
    /// Rises with each one.
    pub sequence: u64,
    /// Of its content.
    pub digest: Digest,
}

/// What [`Snapshots::restore`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The snapshot; none where there was none intact, so that Kubernetes begins empty and is filled from the cache.
    pub from: Option<Snapshot>,
    /// Newer ones that were damaged and set aside, with what was wrong.
    pub damaged: Vec<String>,
}

impl Snapshots {
    /// The snapshots in `directory`, which is made with the first one.
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// All of them, the newest first.
    pub fn list(&self) -> Vec<Snapshot> {
        let mut all: Vec<_> = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .filter_map(|entry| parse(entry.ok()?.path()))
            .collect();
        all.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.sequence));
        all
    }

    /// Takes a snapshot of `live`, which may be in use, and removes all but the newest two.
    ///
    /// # Errors
    /// [`DatastoreError`]; a damaged database in particular gives no snapshot, so that it cannot push out the intact ones.
    pub fn take(&self, live: &Path) -> Result<Snapshot, DatastoreError> {
        durable::create_private_directory(&self.directory).map_err(|error| DatastoreError::File {
            path: self.directory.clone(),
            reason: error.to_string(),
        })?;
        let unfinished = self.directory.join(UNFINISHED);
        remove(&unfinished)?;
        // A power cut may have left one too many.
        self.forget_old()?;
        let taken = self.write(live, &unfinished);
        if taken.is_err() {
            // On a full disk, it must not take up what little is left.
            let _ = remove(&unfinished);
        }
        let taken = taken?;
        self.forget_old()?;
        Ok(taken)
    }

    fn forget_old(&self) -> Result<(), DatastoreError> {
        for old in self.list().into_iter().skip(KEPT) {
            remove(&old.path)?;
        }
        Ok(())
    }

    fn write(&self, live: &Path, unfinished: &Path) -> Result<Snapshot, DatastoreError> {
        database::copy(live, unfinished)?;
        database::quick_check(unfinished)?;
        let digest = digest_of(unfinished)?;
        let sequence = self.list().first().map_or(1, |newest| newest.sequence + 1);
        let path = self.directory.join(format!("{sequence:012}-{}.db", digest.hex()));
        fs::rename(unfinished, &path).map_err(|error| DatastoreError::from_io(&path, &error))?;
        sync_directory(&self.directory)?;
        Ok(Snapshot {
            path,
            sequence,
            digest,
        })
    }

    /// Puts the newest intact snapshot to `target`, where nothing may be: checked, and moved on in time. Damaged ones are set aside.
    pub fn restore(&self, target: &Path) -> Result<Restored, DatastoreError> {
        let mut damaged = Vec::new();
        for snapshot in self.list() {
            match place(&snapshot, target) {
                Ok(()) => {
                    return Ok(Restored {
                        from: Some(snapshot),
                        damaged,
                    });
                }
                Err(error) if error.is_damage() => {
                    damaged.push(error.to_string());
                    self.set_aside(&snapshot)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Restored { from: None, damaged })
    }

    fn set_aside(&self, snapshot: &Snapshot) -> Result<(), DatastoreError> {
        let mut name = snapshot.path.clone().into_os_string();
        name.push(DAMAGED);
        fs::rename(&snapshot.path, &name).map_err(|error| DatastoreError::from_io(&snapshot.path, &error))?;
        let mut all: Vec<_> = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.to_string_lossy().ends_with(DAMAGED))
            .collect();
        all.sort();
        for old in all.iter().rev().skip(KEPT_DAMAGED) {
            remove(old)?;
        }
        sync_directory(&self.directory)
    }
}

/// Beside the target first, then in its place.
pub(super) fn place(snapshot: &Snapshot, target: &Path) -> Result<(), DatastoreError> {
    let found = digest_of(&snapshot.path)?;
    if found != snapshot.digest {
        return Err(DatastoreError::Damaged {
            path: snapshot.path.clone(),
            reason: "its content is not what was written".into(),
        });
    }
    let beside = target.with_file_name(UNFINISHED);
    remove(&beside)?;
    let restore = || {
        fs::copy(&snapshot.path, &beside).map_err(|error| DatastoreError::from_io(&beside, &error))?;
        database::check(&beside).map_err(|error| match error {
            DatastoreError::Damaged { reason, .. } => DatastoreError::Damaged {
                path: snapshot.path.clone(),
                reason,
            },
            other => other,
        })?;
        database::move_on(&beside)?;
        File::open(&beside)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&beside, target))
            .map_err(|error| DatastoreError::from_io(target, &error))
    };
    let restored = restore();
    if restored.is_err() {
        let _ = remove(&beside);
    }
    restored
}

fn parse(path: PathBuf) -> Option<Snapshot> {
    let name = path.file_name()?.to_str()?.strip_suffix(".db")?;
    let (sequence, hex) = name.split_once('-')?;
    Some(Snapshot {
        sequence: sequence.parse().ok()?,
        digest: format!("sha256:{hex}").parse().ok()?,
        path,
    })
}

fn digest_of(path: &Path) -> Result<Digest, DatastoreError> {
    let (digest, _) = File::open(path)
        .and_then(Digest::of_reader)
        .map_err(|error| DatastoreError::from_io(path, &error))?;
    Ok(digest)
}

pub(super) fn remove(path: &Path) -> Result<(), DatastoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DatastoreError::from_io(path, &error))
        }
        _ => Ok(()),
    }
}

pub(super) fn sync_directory(directory: &Path) -> Result<(), DatastoreError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| DatastoreError::from_io(directory, &error))
}
