//! Accepted documents.
//!
//! In: verified documents. Out: what a restart goes on from. Guarantees: when [`Store::commit`] returns, the
//! document survives a power cut; it takes only what admission verified, and nothing older than what was accepted.

use crate::{
    StoreError,
    outbox::queue,
    store::{Store, as_i64, in_transaction, read_meta, write_meta},
};
use holdfast_core::{admission::VerifiedDocument, reconcile::JournalStep};
use holdfast_protocol::{Digest, Generation, event::Event};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, types::Type};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Documents that were seen ready and are kept in full, beside the newest and the running one: what a rollback can go back to.
pub const KEPT_PROVEN: usize = 3;

/// The columns of [`to_stored`].
const STORED: &str = "epoch, counter, digest, accepted_at, step, envelope";
/// Name of the value that holds the digest of the document whose objects are in the cluster.
const RUNNING: &str = "running";

/// A document as it is stored. Its bytes must pass [`holdfast_core::admission::readmit`] before they have any effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDocument {
    /// Place in the order of documents.
    pub generation: Generation,
    /// SHA-256 of the payload.
    pub digest: Digest,
    /// When it was accepted, by the node's clock.
    pub accepted_at: Timestamp,
    /// How far it is.
    pub step: JournalStep,
    /// The exact bytes of the envelope.
    pub envelope: Vec<u8>,
}

/// What a restart goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The newest accepted document.
    pub newest: Option<StoredDocument>,
    /// The document whose objects are in the cluster, where it is another one: the one that was written in full last, or the one that a
    /// rollback goes back to.
    pub applied: Option<StoredDocument>,
    /// Generation of the newest document that was seen ready.
    pub proven: Option<Generation>,
    /// What a rollback of the newest would go back to, or is going back to.
    pub fallback: Option<StoredDocument>,
}

impl Store {
    /// Stores a document as the newest, with the events that tell of it, in one transaction and one fsync. Acknowledge the document
    /// after this returned, then call [`Store::flush_floor`].
    ///
    /// # Errors
    /// `NotNewer` where a newer one (or another of the same generation) was accepted before; the others of [`StoreError`].
    pub fn commit(
        &self,
        document: &VerifiedDocument,
        events: &[Event],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let generation = document.generation();
        let digest = document.digest();
        let mut inner = self.lock();
        if let Some((highest, accepted)) = inner.floor.highest
            && (generation < highest || (generation == highest && digest != accepted))
        {
            return Err(StoreError::NotNewer {
                found: generation,
                highest,
            });
        }
        let inner = &mut *inner;
        let mut outbox = inner.outbox;
        let history = as_i64(self.options.history as u64);
        in_transaction(&mut inner.connection, |transaction| {
            transaction.execute(
                "INSERT INTO desired (epoch, counter, digest, accepted_at, step, envelope)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (epoch, counter) DO UPDATE SET
                     digest = excluded.digest, accepted_at = excluded.accepted_at, step = excluded.step,
                     envelope = excluded.envelope, applied_at = NULL, proven_at = NULL, failed_at = NULL,
                     switching_at = NULL, applying_at = NULL, rolling_back_at = NULL, rolled_back_at = NULL",
                (
                    generation.epoch,
                    as_i64(generation.counter),
                    digest.to_string(),
                    now.to_string(),
                    to_text(&JournalStep::Accepted),
                    document.envelope(),
                ),
            )?;
            transaction.execute(
                "INSERT INTO highest (id, epoch, counter, digest, seal) VALUES (1, ?1, ?2, ?3, ?4)
                 ON CONFLICT (id) DO UPDATE SET
                     epoch = excluded.epoch, counter = excluded.counter, digest = excluded.digest, seal = excluded.seal",
                (
                    generation.epoch,
                    as_i64(generation.counter),
                    digest.to_string(),
                    seal(generation, digest),
                ),
            )?;
            trim(transaction, history)?;
            outbox.push(transaction, &self.options, events)
        })
        .map_err(|error| self.sqlite(&error))?;
        inner.outbox = outbox;
        inner.raise_floor(|floor| floor.highest = Some((generation, digest)));
        Ok(())
    }

    /// What a restart goes on from. Nothing where the document that was accepted last is not stored (any more): an older one
    /// must not take its place.
    pub fn recover(&self) -> Result<Recovered, StoreError> {
        let Some(newest) = self.newest()? else {
            return Ok(Recovered::default());
        };
        let running = self
            .running()?
            .filter(|running| running.generation != newest.generation);
        let kept = self.kept_proven()?;
        let fallback = match &newest.step {
            JournalStep::RollingBack { to, .. } | JournalStep::RolledBack { to, .. } => running
                .iter()
                .chain(&kept)
                .find(|document| document.generation == *to),
            _ => running
                .iter()
                .filter(|running| kept.iter().any(|proven| proven.generation == running.generation))
                .chain(&kept)
                .find(|document| {
                    document.generation != newest.generation
                        && !matches!(
                            document.step,
                            JournalStep::RollingBack { .. } | JournalStep::RolledBack { .. }
                        )
                }),
        }
        .cloned();
        let proven = self.read(|connection| {
            connection
                .query_row(
                    "SELECT epoch, counter FROM desired WHERE proven_at IS NOT NULL
                     ORDER BY epoch DESC, counter DESC LIMIT 1",
                    [],
                    |row| generation(row, 0),
                )
                .optional()
        })?;
        Ok(Recovered {
            newest: Some(newest),
            applied: running,
            proven,
            fallback,
        })
    }

    /// Checks that the name of the running document can be one.
    pub(crate) fn check_running(&self) -> Result<(), StoreError> {
        match self.read(|connection| read_meta(connection, RUNNING))? {
            Some(text) if text.parse::<Digest>().is_err() => Err(StoreError::Corrupt {
                path: self.path.clone(),
                detail: format!("{RUNNING} is {text:?}"),
            }),
            _ => Ok(()),
        }
    }

    /// The document whose objects are in the cluster, as long as its envelope is kept.
    pub fn running(&self) -> Result<Option<StoredDocument>, StoreError> {
        self.read(|connection| {
            connection
                .query_row(
                    &format!(
                        "SELECT {STORED} FROM desired WHERE envelope IS NOT NULL
                         AND digest = (SELECT value FROM meta WHERE name = ?1)
                         ORDER BY epoch DESC, counter DESC LIMIT 1"
                    ),
                    [RUNNING],
                    to_stored,
                )
                .optional()
        })
    }

    /// The documents that a rollback can go back to: the newest [`KEPT_PROVEN`] that were seen ready, the newest first. The newest of all
    /// may be among them.
    pub fn kept_proven(&self) -> Result<Vec<StoredDocument>, StoreError> {
        self.read(|connection| {
            connection
                .prepare(&format!(
                    "SELECT {STORED} FROM desired WHERE envelope IS NOT NULL AND proven_at IS NOT NULL
                     ORDER BY epoch DESC, counter DESC LIMIT ?1"
                ))?
                .query_map([as_i64(KEPT_PROVEN as u64)], to_stored)?
                .collect()
        })
    }

    /// Digests of all documents that are kept in full, the newest first: what they need must be kept too.
    pub fn kept(&self) -> Result<Vec<Digest>, StoreError> {
        self.read(|connection| {
            connection
                .prepare(
                    "SELECT digest FROM desired WHERE envelope IS NOT NULL ORDER BY epoch DESC, counter DESC",
                )?
                .query_map([], |row| parsed(row, 0))?
                .collect()
        })
    }

    /// The document that was accepted last, where it is stored.
    pub fn newest(&self) -> Result<Option<StoredDocument>, StoreError> {
        let Some((_, digest)) = self.lock().floor.highest else {
            return Ok(None);
        };
        self.document(digest)
    }

    /// A document by its digest, as long as its envelope is kept.
    pub fn document(&self, digest: Digest) -> Result<Option<StoredDocument>, StoreError> {
        self.read(|connection| {
            connection
                .query_row(
                    &format!(
                        "SELECT {STORED} FROM desired
                         WHERE digest = ?1 AND envelope IS NOT NULL ORDER BY epoch DESC, counter DESC LIMIT 1"
                    ),
                    [digest.to_string()],
                    to_stored,
                )
                .optional()
        })
    }

    /// Drops the bytes of a stored document that did not pass admission again, so that the hub's copy of it is accepted once more.
    pub fn discard(&self, digest: Digest) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE desired SET envelope = NULL WHERE digest = ?1",
                [digest.to_string()],
            )?;
            Ok(())
        })
    }

    /// Runs one transaction that also queues events, and brings the floor file up to date after it.
    pub(crate) fn transact_with_events<T>(
        &self,
        events: &[Event],
        write: impl FnOnce(&Transaction<'_>, &mut crate::outbox::Outbox) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        queue(self, events, write)
    }
}

/// The digest by which a damaged row of `highest` is noticed.
fn seal(generation: Generation, digest: Digest) -> String {
    Digest::of(format!("{generation} {digest}").as_bytes()).to_string()
}

/// The highest accepted generation of the database.
pub(crate) fn read_highest(
    connection: &Connection,
    path: &Path,
) -> Result<Option<(Generation, Digest)>, StoreError> {
    let corrupt = |detail| StoreError::Corrupt {
        path: path.to_owned(),
        detail,
    };
    let row = connection
        .query_row("SELECT epoch, counter, digest, seal FROM highest", [], |row| {
            Ok((
                generation(row, 0)?,
                parsed::<Digest>(row, 2)?,
                row.get::<_, String>(3)?,
            ))
        })
        .optional()
        .map_err(|error| StoreError::from_sqlite(path, &error))?;
    match row {
        None => Ok(None),
        Some((generation, digest, sealed)) if sealed == seal(generation, digest) => {
            let is_there: bool = connection
                .query_row(
                    "SELECT EXISTS (SELECT 1 FROM desired WHERE epoch = ?1 AND counter = ?2 AND digest = ?3)",
                    (generation.epoch, as_i64(generation.counter), digest.to_string()),
                    |row| row.get(0),
                )
                .map_err(|error| StoreError::from_sqlite(path, &error))?;
            if is_there {
                Ok(Some((generation, digest)))
            } else {
                Err(corrupt(format!("document {generation} is accepted but missing")))
            }
        }
        Some((generation, ..)) => Err(corrupt(format!(
            "the highest generation {generation} does not fit its seal"
        ))),
    }
}

fn to_stored(row: &Row<'_>) -> rusqlite::Result<StoredDocument> {
    Ok(StoredDocument {
        generation: generation(row, 0)?,
        digest: parsed(row, 2)?,
        accepted_at: parsed(row, 3)?,
        step: json(row, 4)?,
        envelope: row.get(5)?,
    })
}

/// Deletes history beyond its bound, but never a document that is kept in full.
fn trim(transaction: &Transaction<'_>, history: i64) -> rusqlite::Result<()> {
    release_envelopes(transaction)?;
    transaction.execute(
        "DELETE FROM desired WHERE envelope IS NULL AND (epoch, counter) NOT IN
             (SELECT epoch, counter FROM desired ORDER BY epoch DESC, counter DESC LIMIT ?1)",
        [history],
    )?;
    Ok(())
}

/// Drops the bytes of all documents but the newest, the running one and the newest that were seen ready.
pub(crate) fn release_envelopes(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute(
        "UPDATE desired SET envelope = NULL WHERE envelope IS NOT NULL
             AND (epoch, counter) NOT IN
                 (SELECT epoch, counter FROM desired ORDER BY epoch DESC, counter DESC LIMIT 1)
             AND digest NOT IN (SELECT value FROM meta WHERE name = ?1)
             AND (epoch, counter) NOT IN
                 (SELECT epoch, counter FROM desired WHERE proven_at IS NOT NULL AND envelope IS NOT NULL
                  ORDER BY epoch DESC, counter DESC LIMIT ?2)",
        (RUNNING, as_i64(KEPT_PROVEN as u64)),
    )?;
    Ok(())
}

/// From now on, this document's objects are those in the cluster.
pub(crate) fn set_running(transaction: &Transaction<'_>, digest: &str) -> rusqlite::Result<()> {
    write_meta(transaction, RUNNING, digest)
}

/// Whether this document's objects are those in the cluster.
pub(crate) fn is_running(connection: &Connection, digest: &str) -> rusqlite::Result<bool> {
    Ok(read_meta(connection, RUNNING)?.is_some_and(|running| running == digest))
}

pub(crate) fn to_text<T: Serialize>(value: &T) -> String {
    // Enums and structs of strings always serialise.
    serde_json::to_string(value).unwrap_or_default()
}

/// A number that is never below zero; SQLite has only signed ones.
pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn bad_column<E: std::error::Error + Send + Sync + 'static>(column: usize, error: E) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

pub(crate) fn generation(row: &Row<'_>, column: usize) -> rusqlite::Result<Generation> {
    Ok(Generation {
        epoch: row.get(column)?,
        counter: unsigned(row, column + 1)?,
    })
}

pub(crate) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get_ref(column)?
        .as_str()?
        .parse()
        .map_err(|error| bad_column(column, error))
}

pub(crate) fn parsed_option<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|error| bad_column(column, error)),
    }
}

pub(crate) fn json<T: for<'de> Deserialize<'de>>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|error| bad_column(column, error))
}
