//! Keeps the datastore from growing without bounds: it is looked at, told of, and compacted when it is quiet.
//!
//! In: the live database and the limits. Out: what is too large, as a problem. It guarantees that nothing is written below the limits, and
//! that a compaction which takes long is broken off without harm: k3s waits for the lock of the database no longer than [`LONGEST`].

use super::{DatastoreError, database, place::with_suffix};
use crate::{codes, settings::ByteSize};
use holdfast_protocol::Problem;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Longest time that a compaction may hold the lock. kine gives up a write after 30 seconds.
pub const LONGEST: Duration = Duration::from_secs(10);

/// Sizes above which somebody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the database.
    pub database: ByteSize,
    /// Of its log.
    pub log: ByteSize,
}

/// Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Of the database.
    pub database: u64,
    /// Of its log.
    pub log: u64,
}

/// How large the database is. Two looks into a directory.
pub fn size(database: &Path) -> Size {
    let of = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    Size {
        database: of(database),
        log: of(&with_suffix(database, "-wal")),
    }
}

impl Limits {
    /// What is too large, in words.
    pub fn problem(&self, database: &Path, size: Size) -> Option<Problem> {
        let (found, limit, code, what) = if size.log > self.log.0 {
            (
                size.log,
                self.log,
                codes::DATASTORE_LOG_LARGE,
                "the log of the datastore",
            )
        } else if size.database > self.database.0 {
            (
                size.database,
                self.database,
                codes::DATASTORE_LARGE,
                "the datastore",
            )
        } else {
            return None;
        };
        Some(Problem::new(
            code,
            format!(
                "{what} {} has {} MiB; the limit is {} MiB",
                database.display(),
                found >> 20,
                limit.0 >> 20
            ),
            "find out what writes so much: kubectl get events -A, then custom resources; the limits are kubernetes.datastore_limit and kubernetes.datastore_log_limit",
        ))
    }

    /// Gives back what is not needed, where a limit is exceeded: the log is written back and cut, and a database of which at least half is
    /// free is rewritten. Answers whether anything was done.
    pub fn compact(&self, database: &Path) -> Result<bool, DatastoreError> {
        let before = size(database);
        if before.log <= self.log.0 && before.database <= self.database.0 {
            return Ok(false);
        }
        let failed = |error: rusqlite::Error| DatastoreError::from_sqlite(database, &error);
        let connection = database::open_to_write(database)?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
        let deadline = Instant::now() + LONGEST;
        connection
            .progress_handler(10_000, Some(move || Instant::now() > deadline))
            .map_err(failed)?;
        let read = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
        // Busy is no error here: a reader holds on to the log, and the next quiet moment comes.
        read("PRAGMA wal_checkpoint(TRUNCATE)").map_err(failed)?;
        if before.database > self.database.0 {
            let pages = read("PRAGMA page_count").map_err(failed)?;
            let free = read("PRAGMA freelist_count").map_err(failed)?;
            if free.saturating_mul(2) >= pages {
                connection.execute_batch("VACUUM").map_err(failed)?;
                read("PRAGMA wal_checkpoint(TRUNCATE)").map_err(failed)?;
            }
        }
        Ok(size(database) != before)
    }
}
