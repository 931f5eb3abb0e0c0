//! What is known of kine's database: how it is copied while it is written to, checked, compared, and moved on in time.
//!
//! In: paths of databases. Out: copies and answers. It guarantees that a copy is of one moment, that the live database is only read here,
//! and that whoever follows a copy of an older moment cannot take its revisions for those of a later one.
//!
//! The table is `kine (id, name, created, deleted, create_revision, prev_revision, lease, value, old_value)`; the id is the revision of
//! the whole store and the resource version of the object. Source: kine v0.16, `pkg/drivers/sqlite` and `pkg/drivers/generic`.

use super::DatastoreError;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, backup::Backup};
use std::{fs::File, path::Path, time::Duration};

/// How long to wait for a lock of the live database. kine holds one for as long as it writes a row; `VACUUM` at its start takes longer.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// Keys whose changes are no reason to write to the flash: they come back by themselves within seconds, and are written while nothing
/// happens. Leases and heartbeats of nodes, events, the API server's own lease, and kine's own rows.
const VOLATILE: &str = "name LIKE '/registry/leases/%' OR name LIKE '/registry/events/%' OR name LIKE '/registry/masterleases/%' \
     OR name LIKE '/registry/minions/%' OR name = 'compact_rev_key' OR name LIKE 'gap-%'";

/// How far the revisions of an older copy are moved on. As etcd's documentation of `--bump-revision` has it: a node that writes 1,500 times
/// a second needs a week for it.
const BUMP: i64 = 1_000_000_000;

/// Tells two states of a database apart, apart from what changes by itself. Every change of an object gives it a new, higher id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    objects: i64,
    newest: i64,
    sum: i64,
}

/// Opens a database without the right to change it.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, DatastoreError> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// Opens a database that exists.
pub(super) fn open_to_write(path: &Path) -> Result<Connection, DatastoreError> {
    open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

fn open(path: &Path, access: OpenFlags) -> Result<Connection, DatastoreError> {
    let failed = |error: rusqlite::Error| DatastoreError::from_sqlite(path, &error);
    let connection =
        Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
    connection.busy_timeout(LOCK_PATIENCE).map_err(failed)?;
    // The memory of the whole node is counted: 256 KiB of page cache are enough to copy and to check.
    connection
        .execute_batch("PRAGMA cache_size = -256; PRAGMA mmap_size = 0;")
        .map_err(failed)?;
    Ok(connection)
}

/// Copies the database `live`, which may be in use, as it is at one moment, to `copy`, which must not exist; synced to its disk.
///
/// All pages are taken within one read transaction: in WAL mode it hinders no writer, and no writer makes it begin anew.
pub fn copy(live: &Path, copy: &Path) -> Result<(), DatastoreError> {
    let failed = |error: rusqlite::Error| DatastoreError::from_sqlite(live, &error);
    let written = |error: rusqlite::Error| DatastoreError::from_sqlite(copy, &error);
    let source = open_to_read(live)?;
    let mut target = Connection::open(copy).map_err(written)?;
    // A copy that is broken off is thrown away as a whole, so that it needs no journal of its own.
    target
        .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -256;")
        .map_err(written)?;
    {
        let backup = Backup::new(&source, &mut target).map_err(failed)?;
        backup
            .run_to_completion(i32::MAX, Duration::from_millis(50), None)
            .map_err(written)?;
    }
    drop(target);
    File::open(copy)
        .and_then(|file| file.sync_all())
        .map_err(|error| DatastoreError::from_io(copy, &error))
}

/// Reads all pages and indexes, and makes sure that it is kine's.
///
/// # Errors
/// [`DatastoreError::Damaged`] with the first finding.
pub fn check(path: &Path) -> Result<(), DatastoreError> {
    check_with(path, "PRAGMA integrity_check(1)")
}

/// As [`check`], without comparing the indexes with the table: a fraction of the time.
pub fn quick_check(path: &Path) -> Result<(), DatastoreError> {
    check_with(path, "PRAGMA quick_check(1)")
}

fn check_with(path: &Path, pragma: &str) -> Result<(), DatastoreError> {
    let damaged = |reason: &str| DatastoreError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    // SQLite takes an empty file for an empty database; kine's never is one.
    let size = std::fs::metadata(path)
        .map_err(|error| DatastoreError::from_io(path, &error))?
        .len();
    if size == 0 {
        return Err(damaged("the file is empty"));
    }
    let connection = open_to_read(path)?;
    let failed = |error: rusqlite::Error| DatastoreError::from_sqlite(path, &error);
    let result: String = connection
        .query_row(pragma, [], |row| row.get(0))
        .map_err(failed)?;
    if result != "ok" {
        return Err(damaged(&result));
    }
    let table: Option<i64> = connection
        .query_row("SELECT 1 FROM sqlite_schema WHERE name = 'kine'", [], |row| {
            row.get(0)
        })
        .optional()
        .map_err(failed)?;
    table.map(drop).ok_or_else(|| damaged("it has no table kine"))
}

/// The present state of a database, which may be in use. Reads two indexes: some 10 ms for 20,000 rows.
pub fn fingerprint(path: &Path) -> Result<Fingerprint, DatastoreError> {
    let sql = format!(
        "SELECT count(*), coalesce(max(live.id), 0), coalesce(sum(live.id), 0) FROM kine AS live \
         JOIN (SELECT max(id) AS id FROM kine WHERE NOT ({VOLATILE}) GROUP BY name) AS newest ON newest.id = live.id \
         WHERE live.deleted = 0"
    );
    open_to_read(path)?
        .query_row(&sql, [], |row| {
            Ok(Fingerprint {
                objects: row.get(0)?,
                newest: row.get(1)?,
                sum: row.get(2)?,
            })
        })
        .map_err(|error| DatastoreError::from_sqlite(path, &error))
}

/// Moves a copy of an older moment on in time: its next revision is far above all that were given out since, and all before it count as
/// compacted. Clients that remember a later revision are told so (410 Gone) and list anew, where they would else miss that what they know
/// never happened. The same as `etcdutl snapshot restore --bump-revision 1000000000 --mark-compacted`.
pub(super) fn move_on(path: &Path) -> Result<(), DatastoreError> {
    let failed = |error: rusqlite::Error| DatastoreError::from_sqlite(path, &error);
    let mut connection = open_to_write(path)?;
    let transaction = connection.transaction().map_err(failed)?;
    let newest: i64 = transaction
        .query_row("SELECT coalesce(max(id), 0) FROM kine", [], |row| row.get(0))
        .map_err(failed)?;
    let revision = newest.saturating_add(BUMP);
    // kine makes this row at its first start; without it, nobody has seen a revision of this database.
    let marked = transaction
        .execute(
            "UPDATE kine SET prev_revision = ?1 WHERE name = 'compact_rev_key'",
            [revision],
        )
        .map_err(failed)?;
    if marked > 0 {
        // What kine itself writes where a revision was left out; it shows such rows to nobody.
        transaction
            .execute(
                "INSERT INTO kine (id, name, created, deleted, create_revision, prev_revision, lease, value, old_value) \
                 VALUES (?1, ?2, 0, 1, 0, 0, 0, NULL, NULL)",
                (revision, format!("gap-{revision}")),
            )
            .map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

/// Removes what k3s keeps in the database of its own certificates, so that it saves those on its disk anew.
pub(in crate::kubernetes) fn forget_bootstrap(path: &Path) -> Result<usize, DatastoreError> {
    open_to_write(path)?
        .execute("DELETE FROM kine WHERE name LIKE '/bootstrap/%'", [])
        .map_err(|error| DatastoreError::from_sqlite(path, &error))
}
