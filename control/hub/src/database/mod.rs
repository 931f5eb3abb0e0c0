//! The hub's database: SQLite by sqlx, one writer connection and a few readers.
//!
//! Guarantees: what a committed transaction says survives a power cut (`synchronous=FULL` on a write-ahead log); writing
//! transactions run one after the other, so that what they read is still true when they commit; a database of a newer
//! release is refused, never changed. The SQL keeps to what PostgreSQL knows too.

pub mod audit;
pub mod blobs;
pub mod documents;
mod error;
pub mod nodes;
pub mod operators;
pub mod releases;
pub mod reports;
pub mod secrets;
pub mod tokens;

pub use error::DatabaseError;

use jiff::Timestamp;
use sqlx::{
    Sqlite, SqlitePool, Transaction,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{path::Path, time::Duration};

/// Result of a database call.
pub type Result<T, E = DatabaseError> = std::result::Result<T, E>;

/// A writing transaction; dropped without commit it changes nothing.
pub type Write = Transaction<'static, Sqlite>;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How long a statement waits for another process that writes, such as `holdfast-hub operator create`.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that only read.
const READERS: u32 = 4;

/// The open database.
#[derive(Clone, Debug)]
pub struct Database {
    writer: SqlitePool,
    reader: SqlitePool,
}

impl Database {
    /// Opens the database file, makes it where it is missing, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            // A connection to a file does not go stale, and a look at it would cost each transaction a turn.
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone().create_if_missing(true))
            .await?;
        MIGRATIONS.run(&writer).await.map_err(|error| match error {
            MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
                DatabaseError::Newer {
                    path: path.display().to_string(),
                    version,
                }
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            other => DatabaseError::Migration(other.to_string()),
        })?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .test_before_acquire(false)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self { writer, reader })
    }

    /// Begins a writing transaction; waits for the one before it.
    pub async fn write(&self) -> Result<Write> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Connections for reading.
    pub fn read(&self) -> &SqlitePool {
        &self.reader
    }

    /// Checks that the database answers.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT value FROM counters WHERE name = 'epoch'")
            .fetch_one(&self.reader)
            .await?;
        Ok(())
    }

    /// Closes all connections after what they are at.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Raises a counter and gives its new value.
async fn next(tx: &mut Write, counter: &str) -> Result<i64> {
    Ok(
        sqlx::query_scalar("UPDATE counters SET value = value + 1 WHERE name = $1 RETURNING value")
            .bind(counter)
            .fetch_one(&mut **tx)
            .await?,
    )
}

/// The time now, as exact as the database keeps it: what is answered and what is stored are the same.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// Time as the database holds it: microseconds since 1970.
pub(crate) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// Time out of the database.
fn timestamp(micros: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(micros).map_err(|error| DatabaseError::value("time", &error))
}

/// A JSON value as the database holds it.
fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| DatabaseError::value("JSON", &error))
}

/// A JSON value out of the database.
fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| DatabaseError::value("JSON", &error))
}

/// A checked text (a name, a digest) out of the database.
fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|error| DatabaseError::value("text", &error))
}
