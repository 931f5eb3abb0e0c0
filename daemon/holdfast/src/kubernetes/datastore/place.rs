//! Where the datastore is: on the disk as k3s has it by itself, or in memory behind a symbolic link.
//!
//! In: where it is wanted, while k3s stands still. Out: a `server/db/state.db` that k3s opens as always. It guarantees that a move is one
//! rename: before it k3s finds the datastore where it was, after it where it is wanted, both times whole; and that a power cut loses
//! nothing but what was not in a snapshot.
//!
//! SQLite puts its log and index beside the file that a link leads to, so that the link alone stays on the disk. A link that leads nowhere,
//! as after a boot, makes SQLite begin an empty database there: k3s needs no other setting than its own.

use super::{
    DatastoreError, database,
    snapshots::{Restored, Snapshot, Snapshots, place, remove, sync_directory},
};
use crate::failpoint;
use holdfast_protocol::document::Datastore;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::{
    fs::{self, DirBuilder},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt as _, symlink},
    path::{Path, PathBuf},
};

/// Files of a SQLite database beside itself.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// The places of one box.
#[derive(Clone, Debug)]
pub struct Place {
    home: PathBuf,
    memory: PathBuf,
    snapshots: Snapshots,
}

/// What [`Place::prepare`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// What came back from a snapshot, where anything had to.
    pub restored: Option<Restored>,
    /// Whether the datastore was moved between disk and memory.
    pub moved: bool,
}

impl Place {
    /// For the k3s in `data_dir`, with `memory` on a tmpfs.
    pub fn new(data_dir: &Path, memory: PathBuf, snapshots: Snapshots) -> Self {
        Self {
            home: data_dir.join("server/db"),
            memory,
            snapshots,
        }
    }

    /// The database, as k3s opens it.
    pub fn database(&self) -> PathBuf {
        self.home.join("state.db")
    }

    fn in_memory(&self) -> PathBuf {
        self.memory.join("state.db")
    }

    /// The file that is written to: the one in memory, where the datastore is there.
    pub fn real_database(&self) -> PathBuf {
        let database = self.database();
        fs::read_link(&database).unwrap_or(database)
    }

    /// Brings the datastore where it is wanted. k3s must not run.
    pub fn prepare(&self, wanted: Datastore) -> Result<Prepared, DatastoreError> {
        match wanted {
            Datastore::Persistent => self.to_disk(),
            Datastore::Ram => self.to_memory(),
        }
    }

    /// Whether the datastore can be held in memory: without changing anything, so that what is not there yet is where its nearest
    /// directory above is.
    pub fn check_memory(&self) -> Result<(), DatastoreError> {
        let there = self
            .memory
            .ancestors()
            .find(|path| !path.as_os_str().is_empty() && path.exists());
        require_memory(there.unwrap_or(&self.memory)).map_err(|error| match error {
            DatastoreError::NotInMemory { found, .. } => DatastoreError::NotInMemory {
                path: self.memory.clone(),
                found,
            },
            error => error,
        })
    }

    fn to_memory(&self) -> Result<Prepared, DatastoreError> {
        let etcd = self.home.join("etcd");
        if etcd.exists() {
            return Err(DatastoreError::NotSqlite { path: etcd });
        }
        make_directory(&self.memory)?;
        require_memory(&self.memory)?;
        let database = self.database();
        let in_memory = self.in_memory();
        let moved = match fs::symlink_metadata(&database) {
            Ok(found) if found.is_file() => {
                fold_log(&database)?;
                self.snapshots.take(&database)?;
                clear(&in_memory)?;
                true
            }
            Ok(_) if fs::read_link(&database).is_ok_and(|target| target != in_memory) => {
                // Another directory was set before. What is there still is the newest; else a snapshot is.
                let former = self.real_database();
                if former.is_file() {
                    fold_log(&former)?;
                    self.snapshots.take(&former)?;
                }
                clear(&in_memory)?;
                true
            }
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(DatastoreError::from_io(&database, &error)),
        };
        let mut prepared = Prepared {
            restored: None,
            moved,
        };
        if !in_memory.exists() {
            clear(&in_memory)?;
            prepared.restored = Some(self.snapshots.restore(&in_memory)?);
        }
        if moved {
            make_directory(&self.home)?;
            self.replace(|beside| symlink(&in_memory, beside))?;
        }
        Ok(prepared)
    }

    fn to_disk(&self) -> Result<Prepared, DatastoreError> {
        let database = self.database();
        let Ok(in_memory) = fs::read_link(&database) else {
            return Ok(Prepared::default());
        };
        let incoming = self.home.join(".incoming.db");
        clear(&incoming)?;
        let mut restored = None;
        if in_memory.is_file() {
            fold_log(&in_memory)?;
            database::copy(&in_memory, &incoming)?;
            database::quick_check(&incoming)?;
        } else {
            restored = Some(self.snapshots.restore(&incoming)?);
        }
        if incoming.exists() {
            self.replace(|beside| fs::rename(&incoming, beside))?;
        } else {
            remove(&database)?;
            sync_directory(&self.home)?;
        }
        clear(&in_memory)?;
        // From now on they are of the past, and must never come back over what the disk holds.
        for old in self.snapshots.list() {
            remove(&old.path)?;
        }
        Ok(Prepared {
            restored,
            moved: true,
        })
    }

    /// Puts a snapshot in the place of the datastore, whatever that is. k3s must not run, nor be started before this succeeded: what is there
    /// goes first.
    pub fn put_back(&self, snapshot: &Snapshot) -> Result<(), DatastoreError> {
        if fs::read_link(self.database()).is_ok() {
            // As the newest snapshot it comes back into memory before the next start, and after a power cut too.
            self.snapshots.take(&snapshot.path)?;
            return clear(&self.real_database());
        }
        make_directory(&self.home)?;
        self.remove_log()?;
        failpoint::reach("restore-halfway");
        match place(snapshot, &self.database()) {
            // What is there is of no use any more; without it there is room.
            Err(DatastoreError::NoSpace { .. }) => {
                remove(&self.database())?;
                place(snapshot, &self.database())?;
            }
            other => other?,
        }
        sync_directory(&self.home)
    }

    /// Removes the datastore, so that k3s begins an empty one. k3s must not run.
    pub fn remove(&self) -> Result<(), DatastoreError> {
        clear(&self.real_database())?;
        for old in self.snapshots.list() {
            remove(&old.path)?;
        }
        if self.home.is_dir() {
            sync_directory(&self.home)?;
        }
        Ok(())
    }

    /// A log without its database would be taken for that of the next one.
    fn remove_log(&self) -> Result<(), DatastoreError> {
        let database = self.database();
        for suffix in BESIDE {
            remove(&with_suffix(&database, suffix))?;
        }
        sync_directory(&self.home)
    }

    /// Puts what `make` makes in the place of the database, in one step.
    fn replace(&self, make: impl Fn(&Path) -> std::io::Result<()>) -> Result<(), DatastoreError> {
        let database = self.database();
        let beside = self.home.join(".moving.db");
        remove(&beside)?;
        make(&beside)
            .and_then(|()| fs::rename(&beside, &database))
            .map_err(|error| DatastoreError::from_io(&database, &error))?;
        for suffix in BESIDE {
            remove(&with_suffix(&database, suffix))?;
        }
        sync_directory(&self.home)
    }
}

/// Writes what is in the log of a database that nobody uses into the database itself, so that it is one file.
fn fold_log(database: &Path) -> Result<(), DatastoreError> {
    if !with_suffix(database, "-wal").exists() {
        return Ok(());
    }
    let failed = |error: rusqlite::Error| DatastoreError::from_sqlite(database, &error);
    let connection = database::open_to_write(database)?;
    let busy: i64 = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(failed)?;
    if busy != 0 {
        return Err(DatastoreError::Sqlite {
            path: database.to_owned(),
            reason: "another process still uses it".into(),
        });
    }
    Ok(())
}

/// A path with more at its end.
pub(in crate::kubernetes) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes a database and its files.
fn clear(database: &Path) -> Result<(), DatastoreError> {
    remove(database)?;
    BESIDE
        .iter()
        .try_for_each(|suffix| remove(&with_suffix(database, suffix)))
}

fn make_directory(path: &Path) -> Result<(), DatastoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| DatastoreError::from_io(path, &error))
}

fn require_memory(path: &Path) -> Result<(), DatastoreError> {
    let found = statfs(path).map_err(|error| DatastoreError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    if found.filesystem_type() == TMPFS_MAGIC {
        return Ok(());
    }
    Err(DatastoreError::NotInMemory {
        path: path.to_owned(),
        found: format!(
            "a file system of type {:#x}, not tmpfs",
            found.filesystem_type().0
        ),
    })
}
