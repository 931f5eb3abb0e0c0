//! What can go wrong with the database, told apart by what a person must do.

use crate::codes as hub_codes;
use holdfast_protocol::{Problem, codes};

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A newer release of the hub has changed its schema.
    #[error("database {path} has schema version {version}, which this release of the hub does not know")]
    Newer {
        /// The file.
        path: String,
        /// The first unknown version.
        version: i64,
    },
    /// The schema cannot be brought up to date.
    #[error("the database schema cannot be brought up to date: {0}")]
    Migration(String),
    /// The file is not a database, or damaged.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// No room on the disk.
    #[error("the disk of the database is full: {0}")]
    Full(String),
    /// The file or its file system cannot be written.
    #[error("the database cannot be written: {0}")]
    ReadOnly(String),
    /// A stored value is not what it must be.
    #[error("the database holds a value that is no {what}: {reason}")]
    Value {
        /// What it should be.
        what: &'static str,
        /// Why it is not.
        reason: String,
    },
    /// Anything else.
    #[error("database: {0}")]
    Other(sqlx::Error),
}

impl DatabaseError {
    pub(super) fn value(what: &'static str, reason: &impl ToString) -> Self {
        Self::Value {
            what,
            reason: reason.to_string(),
        }
    }

    /// What a person is told, with what to do.
    pub fn problem(&self) -> Problem {
        let (code, action) = match self {
            Self::Newer { .. } => (
                hub_codes::DATABASE_NEWER,
                "start the newer release of holdfast-hub again, or restore a backup of the database made before it",
            ),
            Self::Corrupt(_) => (
                hub_codes::DATABASE_CORRUPT,
                "stop the hub, keep the file for analysis and restore the newest backup of the data directory",
            ),
            Self::Full(_) => (
                codes::DISK_FULL,
                "free space on the disk of the hub's data directory; the hub goes on by itself",
            ),
            Self::ReadOnly(_) => (
                codes::DISK_READ_ONLY,
                "check owner, mode and mount of the hub's data directory",
            ),
            Self::Migration(_) | Self::Value { .. } | Self::Other(_) => (
                codes::INTERNAL,
                "try again; the hub's log of the same moment says more",
            ),
        };
        Problem::new(code, self.to_string(), action)
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        // SQLite's extended result codes keep the primary code in their low byte: https://sqlite.org/rescode.html
        let primary = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .and_then(|code| code.parse::<u32>().ok())
            .map(|code| code & 0xff);
        let text = || error.to_string();
        match primary {
            Some(8) => Self::ReadOnly(text()),
            Some(11 | 26) => Self::Corrupt(text()),
            Some(13) => Self::Full(text()),
            _ => Self::Other(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{SqlitePool, sqlite::SqliteConnectOptions};
    use std::path::Path;

    async fn open(path: &Path, read_only: bool) -> SqlitePool {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(!read_only)
            .read_only(read_only);
        let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
        pool.connect_with(options).await.unwrap()
    }

    async fn code(pool: &SqlitePool, sql: &'static str) -> String {
        let error = sqlx::query(sql).execute(pool).await.unwrap_err();
        DatabaseError::from(error).problem().code.into_owned()
    }

    #[tokio::test]
    async fn a_full_disk_a_read_only_file_and_damage_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.db");
        let pool = open(&path, false).await;
        sqlx::query("CREATE TABLE t (a TEXT)")
            .execute(&pool)
            .await
            .unwrap();
        // SQLite answers to its own limit as to a full disk.
        sqlx::query("PRAGMA max_page_count = 2")
            .execute(&pool)
            .await
            .unwrap();
        let insert = "INSERT INTO t (a) VALUES (hex(zeroblob(100000)))";
        assert_eq!(code(&pool, insert).await, codes::DISK_FULL);
        assert_eq!(
            code(&pool, "INSERT INTO nothing (a) VALUES (1)").await,
            codes::INTERNAL
        );
        pool.close().await;

        let pool = open(&path, true).await;
        assert_eq!(code(&pool, insert).await, codes::DISK_READ_ONLY);
        pool.close().await;

        let mut content = std::fs::read(&path).unwrap();
        content[..1000].fill(0x5a);
        crate::files::write(&path, &content, crate::files::PRIVATE).unwrap();
        let pool = open(&path, true).await;
        assert_eq!(code(&pool, "SELECT a FROM t").await, hub_codes::DATABASE_CORRUPT);
    }
}
