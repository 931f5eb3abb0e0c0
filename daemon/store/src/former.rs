//! The database as it was before a newer version of Holdfast changed its schema.
//!
//! In: a database that is about to be migrated. Out: `node.db.schema-VERSION` beside it, by SQLite's own backup, for the version that it came
//! from: a box that falls back to its earlier operating system has the earlier Holdfast again. Guarantees: the copy has its name only when it is
//! whole on the disk; it is gone once a document was good under the newer schema, so that nothing long outdated is ever taken back.

use crate::{StoreError, fs};
use rusqlite::{Connection, backup::Backup};
use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where the copy of this schema version is.
pub(crate) fn path(database: &Path, version: i64) -> PathBuf {
    database.with_file_name(format!("node.db.schema-{version}"))
}

/// Keeps `database`, which has this schema version. All pages are read in one transaction.
pub(crate) fn keep(connection: &Connection, database: &Path, version: i64) -> Result<(), StoreError> {
    let target = path(database, version);
    let part = target.with_extension("part");
    // One that was cut off would be added to.
    fs::remove(&part)?;
    super::database::make_private(&part)?;
    let written = |error: rusqlite::Error| StoreError::from_sqlite(&part, &error);
    let mut copy = Connection::open(&part).map_err(written)?;
    // A copy that is cut off is begun anew, so it needs no journal.
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -256;")
        .map_err(written)?;
    Backup::new(connection, &mut copy)
        .and_then(|backup| backup.run_to_completion(i32::MAX, Duration::ZERO, None))
        .map_err(written)?;
    drop(copy);
    let named = File::open(&part)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(&part, &target));
    named.map_err(|error| StoreError::from_io(&part, &error))?;
    fs::sync_directory_of(&target)
}

/// Has the copy of this schema version be the database, where there is one and no database. Gives whether there was.
pub(crate) fn take_back(database: &Path, version: i64) -> Result<bool, StoreError> {
    let copy = path(database, version);
    if database.exists() || !copy.exists() {
        return Ok(false);
    }
    std::fs::rename(&copy, database).map_err(|error| StoreError::from_io(&copy, &error))?;
    fs::sync_directory_of(database)?;
    Ok(true)
}

/// Removes the copies of all schema versions before this one.
pub(crate) fn forget(database: &Path, version: i64) {
    for earlier in 1..version {
        let copy = path(database, earlier);
        if copy.exists()
            && let Err(error) = fs::remove(&copy)
        {
            tracing::warn!(%error, "the store's copy of an earlier schema stays");
        }
    }
}
