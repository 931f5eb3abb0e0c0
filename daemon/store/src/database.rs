//! The database file: opening, settings, migrations.
//!
//! In: a path. Out: a connection whose content was checked. Guarantees: a migration is one transaction, so that a power cut leaves
//! the old schema or the new, and a copy of the old is kept first; a file of a newer version, of another program, or damaged is refused by name and left as it is.

use crate::{StoreError, former};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::Path};

/// "hfnd", marks the file as Holdfast's in its header.
pub(crate) const APPLICATION_ID: i64 = 0x6866_6e64;

/// The newest schema version that this build knows: the number of migrations.
pub(crate) const SCHEMA_VERSION: i64 = 2;

/// Migrations in order. Never change one that was released.
const MIGRATIONS: [&str; SCHEMA_VERSION as usize] =
    [include_str!("schema_1.sql"), include_str!("schema_2.sql")];

/// Settings of the connection.
///
/// - WAL with `synchronous = FULL`: a commit is one fsync of the log, durable when it returns, and an idle database writes nothing.
/// - The log is written back after 256 pages (1 MiB) and cut to that size, so it cannot grow.
/// - 256 KiB of page cache and no memory map: the memory of the whole node is counted.
const SETTINGS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA cache_size = -256;
    PRAGMA mmap_size = 0;
    PRAGMA temp_store = MEMORY;
    PRAGMA wal_autocheckpoint = 256;
    PRAGMA journal_size_limit = 1048576;
";

/// Opens the database, made anew where there is none, and checks it.
pub(crate) fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error: rusqlite::Error| StoreError::from_sqlite(path, &error);
    if former::take_back(path, SCHEMA_VERSION)? {
        tracing::warn!(path = %path.display(), "the copy of the store from before a newer version is in use");
    }
    make_private(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    // SQLite falls back to reading alone by itself.
    if connection.is_readonly("main").map_err(failed)? {
        return Err(StoreError::read_only(path));
    }
    connection.set_prepared_statement_cache_capacity(0);
    // Waiting cannot help: whoever holds the file holds it for life.
    connection
        .busy_timeout(std::time::Duration::ZERO)
        .map_err(failed)?;
    // Before anything is read: the index of the log is then in the heap. Otherwise it would be a file of its own, which cannot be made
    // on a full disk, and the store could not even be read there. No second process can get in either.
    connection
        .pragma_update(None, "locking_mode", "EXCLUSIVE")
        .map_err(failed)?;

    let read = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application_id = read("application_id").map_err(failed)?;
    let version = read("user_version").map_err(failed)?;
    let objects: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    let is_new = application_id == 0 && version == 0 && objects == 0;
    if application_id != APPLICATION_ID && !is_new {
        return Err(StoreError::Foreign {
            path: path.to_owned(),
            application_id,
        });
    }
    if version > SCHEMA_VERSION {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found: version,
            known: SCHEMA_VERSION,
        });
    }

    connection.execute_batch(SETTINGS).map_err(failed)?;
    if version < SCHEMA_VERSION {
        // Without room for it the box goes on all the same: most never need it.
        if !is_new && let Err(error) = former::keep(&connection, path, version) {
            tracing::warn!(%error, "the store cannot be copied before its schema is changed");
        }
        migrate(&mut connection, version).map_err(failed)?;
    }
    check(&connection, path)?;
    Ok(connection)
}

/// SQLite would make the file readable by everyone; its log takes the mode of the file.
pub(crate) fn make_private(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(crate::fs::PRIVATE_FILE)
        .open(path);
    match made {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(StoreError::from_io(path, &error))
        }
        _ => Ok(()),
    }
}

fn migrate(connection: &mut Connection, version: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// SQLite's own check of all pages. It reads the whole file, which is a few pages to a few MiB.
fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let result: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| StoreError::from_sqlite(path, &error))?;
    if result == "ok" {
        Ok(())
    } else {
        Err(StoreError::Corrupt {
            path: path.to_owned(),
            detail: result,
        })
    }
}
