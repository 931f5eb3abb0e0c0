//! The store as a whole: opening, setting a damaged one aside, values that stand alone.
//!
//! In: the state directory. Out: a [`Store`], shared by all parts of the node. Guarantees: one writer; the highest accepted
//! generation and the sequences are the higher of those in the database and in the floor file.

use crate::{
    StoreError, database,
    desired::read_highest,
    floor::{Floor, SEQUENCE_BLOCK},
    former, fs,
    outbox::Outbox,
};
use holdfast_core::admission::Highest;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Damaged files that are kept; older ones are deleted, so that a failing disk is not filled too.
const KEPT_DAMAGED_FILES: usize = 2;

/// Bounds of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The most events that wait for the hub.
    pub outbox_max_events: usize,
    /// The most bytes of events that wait for the hub.
    pub outbox_max_bytes: u64,
    /// Documents that the history tells of.
    pub history: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            outbox_max_events: 2_000,
            outbox_max_bytes: 1024 * 1024,
            history: 32,
        }
    }
}

/// A database that was damaged, or is of a newer version, and was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// When.
    pub at: Timestamp,
    /// Where the damaged file is now; the place of the database itself where nothing was left of it.
    pub path: PathBuf,
    /// What was wrong with it.
    pub detail: String,
    /// Whether it is sound, and of a newer version of Holdfast.
    #[serde(default)]
    pub newer: bool,
}

/// What the node keeps. All methods take `&self` and may be called from any thread; they run one after the other.
pub struct Store {
    pub(crate) path: PathBuf,
    floor_path: PathBuf,
    pub(crate) options: Options,
    inner: Mutex<Inner>,
}

pub(crate) struct Inner {
    pub(crate) connection: Connection,
    pub(crate) outbox: Outbox,
    pub(crate) floor: Floor,
    /// Whether the file holds less than `floor`.
    floor_is_dirty: bool,
    /// The last status sequence given out; none before the first of this start.
    status_sequence: Option<u64>,
}

impl Inner {
    /// Takes changed values into the floor, and the bound of event sequences with them.
    pub(crate) fn raise_floor(&mut self, change: impl FnOnce(&mut Floor)) {
        let before = self.floor;
        change(&mut self.floor);
        let last = self.outbox.last_sequence();
        if last > self.floor.event_sequence_bound {
            self.floor.event_sequence_bound = last.next_multiple_of(SEQUENCE_BLOCK);
        }
        self.floor_is_dirty |= self.floor != before;
    }
}

impl Store {
    /// Opens the store below a state directory, and makes it where there is none.
    ///
    /// # Errors
    /// Every [`StoreError`] but `NotNewer`. After `Corrupt`, [`Store::open_or_quarantine`] goes on with a fresh file.
    pub fn open(state_directory: &Path, options: Options) -> Result<Self, StoreError> {
        Self::open_and_compare(state_directory, options).map(|(store, _)| store)
    }

    /// Opens the store, and says whether the database has lost what the floor file knows of.
    fn open_and_compare(state_directory: &Path, options: Options) -> Result<(Self, bool), StoreError> {
        let directory = state_directory.join("store");
        fs::create_private_directory(&directory)?;
        let path = directory.join("node.db");
        let floor_path = directory.join("floor.json");
        let on_disk = Floor::read(&floor_path)?;
        let connection = database::open(&path).map_err(|error| {
            if on_disk.is_some() {
                damaged_header(error)
            } else {
                error
            }
        })?;
        let sqlite = |error: rusqlite::Error| StoreError::from_sqlite(&path, &error);

        let in_database = Floor {
            highest: read_highest(&connection, &path)?,
            event_sequence_bound: read_number(&connection, "event_sequence", &path)?,
            status_sequence_bound: 0,
        };
        let floor = on_disk.unwrap_or_default().merged(in_database);
        let outbox = Outbox::load(
            &connection,
            floor.event_sequence_bound,
            in_database.event_sequence_bound,
        )
        .map_err(sqlite)?;
        let store = Self {
            path,
            floor_path,
            options,
            inner: Mutex::new(Inner {
                connection,
                outbox,
                floor,
                floor_is_dirty: on_disk != Some(floor),
                status_sequence: None,
            }),
        };
        // What SQLite's check cannot see, damage within a value, must not first come up when the node counts on it.
        store.history(usize::MAX)?;
        store.check_inventory()?;
        store.failures()?;
        store.check_running()?;
        // A crash between a commit and the floor file's write is made good here.
        store.flush_floor()?;
        let is_lost = in_database.highest.is_none() && floor.highest.is_some();
        Ok((store, is_lost))
    }

    /// Opens the store; a damaged database is set aside and a fresh one made. What must not be lost comes from the floor file,
    /// the desired state comes again from the hub, and until then whatever runs keeps running. One of a newer version, which a box has that
    /// fell back to its earlier system, is set aside too: in its place comes the copy from before its schema was changed, where there is one.
    pub fn open_or_quarantine(
        state_directory: &Path,
        options: Options,
        now: Timestamp,
    ) -> Result<(Self, Option<Quarantined>), StoreError> {
        let (store, quarantined) = match Self::open_and_compare(state_directory, options) {
            Ok((store, false)) => return Ok((store, None)),
            // It was told before, and the hub has not sent a document since.
            Ok((store, true)) if store.quarantined()?.is_some() => return Ok((store, None)),
            // A power cut between setting a file aside and writing that down, or someone who deleted it.
            Ok((store, true)) => {
                let lost = Quarantined {
                    at: now,
                    path: store.path.clone(),
                    detail: "the database is empty although documents were accepted before".into(),
                    newer: false,
                };
                (store, lost)
            }
            Err(StoreError::Corrupt { detail, .. }) => {
                let path = set_aside(&state_directory.join("store").join("node.db"), "damaged", now)?;
                let damaged = Quarantined {
                    at: now,
                    path,
                    detail,
                    newer: false,
                };
                (Self::open(state_directory, options)?, damaged)
            }
            Err(StoreError::Newer { path, found, known }) => {
                let instead = if former::path(&path, known).exists() {
                    "the copy from before that is in use: what was accepted and noted since is lost"
                } else {
                    "there is no copy from before that: it begins empty, and what runs keeps running"
                };
                let newer = Quarantined {
                    at: now,
                    path: set_aside(&path, "newer", now)?,
                    detail: format!("its schema version is {found}, this one knows {known}; {instead}"),
                    newer: true,
                };
                // A file that cannot be used is no reason to stand still.
                let (store, _) = Self::open_or_quarantine(state_directory, options, now)?;
                (store, newer)
            }
            Err(error) => return Err(error),
        };
        let text = serde_json::to_string(&quarantined).unwrap_or_default();
        store.write(|transaction| write_meta(transaction, "quarantined", &text))?;
        Ok((store, Some(quarantined)))
    }

    /// The last time that a damaged database was set aside, as far as the present one knows.
    pub fn quarantined(&self) -> Result<Option<Quarantined>, StoreError> {
        let text = self.read(|connection| read_meta(connection, "quarantined"))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Frees the database's pages that are held in memory; they are read again when they are needed.
    pub fn shrink_memory(&self) -> Result<(), StoreError> {
        self.read(|connection| connection.execute_batch("PRAGMA shrink_memory"))
    }

    /// The highest generation ever accepted, for [`holdfast_core::admission::admit`].
    pub fn highest(&self) -> Result<Option<Highest>, StoreError> {
        let Some((generation, digest)) = self.lock().floor.highest else {
            return Ok(None);
        };
        let stored = self.read(|connection| {
            connection
                .query_row(
                    "SELECT 1 FROM desired WHERE epoch = ?1 AND counter = ?2 AND digest = ?3 AND envelope IS NOT NULL",
                    (generation.epoch, as_i64(generation.counter), digest.to_string()),
                    |_| Ok(()),
                )
                .optional()
        })?;
        Ok(Some(Highest {
            generation,
            digest,
            stored: stored.is_some(),
        }))
    }

    /// The next sequence of status reports: higher than every one before, over restarts too. Writes once in a thousand.
    pub fn next_status_sequence(&self) -> Result<u64, StoreError> {
        let mut inner = self.lock();
        let bound = inner.floor.status_sequence_bound;
        let next = inner.status_sequence.unwrap_or(bound) + 1;
        if next > bound {
            inner.floor.status_sequence_bound = bound + SEQUENCE_BLOCK;
            inner.floor_is_dirty = true;
            if let Err(error) = self.flush(&mut inner) {
                inner.floor.status_sequence_bound = bound;
                return Err(error);
            }
        }
        inner.status_sequence = Some(next);
        Ok(next)
    }

    /// Brings the floor file up to date, where it is not.
    ///
    /// It is left behind by [`Store::commit`] alone, so that a commit waits for one fsync only: call this after the document was
    /// acknowledged. Every other write does it by itself.
    pub fn flush_floor(&self) -> Result<(), StoreError> {
        self.flush(&mut self.lock())
    }

    fn flush(&self, inner: &mut Inner) -> Result<(), StoreError> {
        if inner.floor_is_dirty {
            inner.floor.write(&self.floor_path)?;
            inner.floor_is_dirty = false;
        }
        Ok(())
    }

    /// Brings the floor file up to date after a write that is stored already: a failure is told and tried again with the next one.
    pub(crate) fn try_flush(&self, inner: &mut Inner) {
        if let Err(error) = self.flush(inner) {
            tracing::warn!(%error, "the floor file cannot be brought up to date");
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic within a transaction rolls it back, so the content behind a poisoned lock is sound.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        read(&self.lock().connection).map_err(|error| self.sqlite(&error))
    }

    /// Runs one transaction.
    pub(crate) fn write<T>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut inner = self.lock();
        in_transaction(&mut inner.connection, write).map_err(|error| self.sqlite(&error))
    }

    pub(crate) fn sqlite(&self, error: &rusqlite::Error) -> StoreError {
        StoreError::from_sqlite(&self.path, error)
    }
}

pub(crate) fn in_transaction<T>(
    connection: &mut Connection,
    write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = write(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

pub(crate) fn read_meta(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection
        .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
        .optional()
}

pub(crate) fn write_meta(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )?;
    Ok(())
}

fn read_number(connection: &Connection, name: &str, path: &Path) -> Result<u64, StoreError> {
    let text = read_meta(connection, name).map_err(|error| StoreError::from_sqlite(path, &error))?;
    match text {
        None => Ok(0),
        Some(text) => text.parse().map_err(|_| StoreError::Corrupt {
            path: path.to_owned(),
            detail: format!("{name} is {text:?}"),
        }),
    }
}

/// SQLite's integers are signed. Counters are at most `i64::MAX` by their own rule.
pub(crate) fn as_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A foreign or impossible header beside an intact floor file of our own is damage, not another program's file.
fn damaged_header(error: StoreError) -> StoreError {
    match error {
        StoreError::Foreign { path, application_id } => StoreError::Corrupt {
            path,
            detail: format!("its application id is {application_id:#010x}"),
        },
        // No release raises the schema version by a thousand.
        StoreError::Newer { path, found, known } if found - known > 1_000 => StoreError::Corrupt {
            path,
            detail: format!("its schema version is {found}"),
        },
        other => other,
    }
}

/// Renames the database and its log after `why`, and keeps only the newest few of such files.
fn set_aside(path: &Path, why: &str, now: Timestamp) -> Result<PathBuf, StoreError> {
    let failed = |path: &Path, error: &std::io::Error| StoreError::from_io(path, error);
    let stamp = now.strftime("%Y%m%dT%H%M%S%3fZ").to_string();
    let prefix = format!("node.db.{why}-");
    let target = path.with_file_name(format!("{prefix}{stamp}"));
    std::fs::rename(path, &target).map_err(|error| failed(path, &error))?;
    for suffix in ["-wal", "-journal", "-shm"] {
        let with_suffix = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        match std::fs::rename(with_suffix(path), with_suffix(&target)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(path, &error));
            }
            _ => {}
        }
    }
    let directory = path.parent().unwrap_or(path);
    let mut damaged: Vec<_> = std::fs::read_dir(directory)
        .map_err(|error| failed(directory, &error))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
        .collect();
    // By the time in their names, newest last; a log sorts right behind its database.
    damaged.sort();
    let databases: Vec<_> = damaged.iter().filter(|path| !is_log(path)).cloned().collect();
    let superfluous = databases.len().saturating_sub(KEPT_DAMAGED_FILES);
    if let Some(first_kept) = databases.get(superfluous) {
        for path in damaged.iter().take_while(|path| *path < first_kept) {
            let _ = std::fs::remove_file(path);
        }
    }
    fs::sync_directory_of(path)?;
    Ok(target)
}

fn is_log(path: &Path) -> bool {
    let name = path.to_string_lossy();
    ["-wal", "-journal", "-shm"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}
