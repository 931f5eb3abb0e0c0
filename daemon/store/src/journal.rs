//! How far each document is.
//!
//! In: steps, with the events that tell of them. Out: the history, and why documents failed. Guarantees: a step and its events are one
//! transaction; a document that failed or was gone back from is remembered by its digest.

use crate::{
    StoreError,
    database::SCHEMA_VERSION,
    desired::{generation, json, parsed, parsed_option, release_envelopes, set_running, to_text},
    former,
    store::{Store, as_i64},
};
use holdfast_core::reconcile::JournalStep;
use holdfast_protocol::{Digest, Generation, Problem, event::Event};
use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Transaction};
use serde::{Deserialize, Serialize};

/// Digests of failed documents that are remembered.
const REMEMBERED_FAILURES: i64 = 64;

/// One document of the past. Times are by the node's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Place in the order of documents.
    pub generation: Generation,
    /// SHA-256 of the payload.
    pub digest: Digest,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When k3s was first switched for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switching_at: Option<Timestamp>,
    /// When its objects began to be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applying_at: Option<Timestamp>,
    /// When all its objects were written.
    pub applied_at: Option<Timestamp>,
    /// When it was seen ready.
    pub proven_at: Option<Timestamp>,
    /// When it failed for good.
    pub failed_at: Option<Timestamp>,
    /// When the way back from it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_back_at: Option<Timestamp>,
    /// When the earlier document was seen ready in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_at: Option<Timestamp>,
    /// How far it came.
    pub step: JournalStep,
}

impl Store {
    /// Writes down how far a document is, with the events that tell of it. The steps `applying` and `applied` are written down with
    /// the work itself, by [`Store::begin_apply`] and [`Store::record_apply`].
    pub fn mark_step(
        &self,
        digest: Digest,
        step: &JournalStep,
        events: &[Event],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let marked = self.transact_with_events(events, |transaction, _| {
            let digest = digest.to_string();
            let mark = |column: &str| {
                transaction.execute(
                    &format!(
                        "UPDATE desired SET step = ?2, {column} = coalesce({column}, ?3) WHERE digest = ?1"
                    ),
                    (&digest, to_text(step), now.to_string()),
                )
            };
            match step {
                JournalStep::Accepted | JournalStep::SwitchingOs => {
                    transaction.execute(
                        "UPDATE desired SET step = ?2 WHERE digest = ?1",
                        (&digest, to_text(step)),
                    )?;
                }
                JournalStep::Switching => {
                    mark("switching_at")?;
                }
                JournalStep::Applying => {
                    mark("applying_at")?;
                }
                JournalStep::Applied => {
                    mark("applied_at")?;
                    set_running(transaction, &digest)?;
                }
                JournalStep::Proven => {
                    mark("proven_at")?;
                }
                JournalStep::Failed { problem, .. } => {
                    mark("failed_at")?;
                    remember_failure(transaction, &digest, problem, now)?;
                }
                JournalStep::RollingBack { problem, to } => {
                    mark("rolling_back_at")?;
                    go_back(transaction, *to)?;
                    // One that was good and that a person went back from did not fail.
                    let was_good: bool = transaction.query_row(
                        "SELECT EXISTS (SELECT 1 FROM desired WHERE digest = ?1 AND proven_at IS NOT NULL)",
                        [&digest],
                        |row| row.get(0),
                    )?;
                    if !was_good {
                        remember_failure(transaction, &digest, problem, now)?;
                    }
                }
                JournalStep::RolledBack { to, .. } => {
                    mark("rolled_back_at")?;
                    go_back(transaction, *to)?;
                }
            }
            release_envelopes(transaction)
        });
        if marked.is_ok() && *step == JournalStep::Proven {
            former::forget(&self.path, SCHEMA_VERSION);
        }
        marked
    }

    /// How far a document is.
    pub fn step(&self, digest: Digest) -> Result<Option<JournalStep>, StoreError> {
        self.read(|connection| {
            connection
                .query_row(
                    "SELECT step FROM desired WHERE digest = ?1 ORDER BY epoch DESC, counter DESC LIMIT 1",
                    [digest.to_string()],
                    |row| json(row, 0),
                )
                .optional()
        })
    }

    /// Why the document with this digest failed for good, if it did.
    pub fn failure(&self, digest: Digest) -> Result<Option<Problem>, StoreError> {
        self.read(|connection| {
            connection
                .query_row(
                    "SELECT problem FROM failed WHERE digest = ?1",
                    [digest.to_string()],
                    |row| json(row, 0),
                )
                .optional()
        })
    }

    /// All documents that failed for good and are remembered.
    pub(crate) fn failures(&self) -> Result<Vec<(Digest, Problem)>, StoreError> {
        self.read(|connection| {
            connection
                .prepare("SELECT digest, problem FROM failed")?
                .query_map([], |row| Ok((parsed(row, 0)?, json(row, 1)?)))?
                .collect()
        })
    }

    /// Documents of the past, the newest first, at most `limit`.
    pub fn history(&self, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        self.read(|connection| {
            connection
                .prepare(
                    "SELECT epoch, counter, digest, accepted_at, switching_at, applying_at, applied_at, proven_at,
                            failed_at, rolling_back_at, rolled_back_at, step
                     FROM desired ORDER BY epoch DESC, counter DESC LIMIT ?1",
                )?
                .query_map([as_i64(limit as u64)], |row| {
                    Ok(HistoryEntry {
                        generation: generation(row, 0)?,
                        digest: parsed(row, 2)?,
                        accepted_at: parsed(row, 3)?,
                        switching_at: parsed_option(row, 4)?,
                        applying_at: parsed_option(row, 5)?,
                        applied_at: parsed_option(row, 6)?,
                        proven_at: parsed_option(row, 7)?,
                        failed_at: parsed_option(row, 8)?,
                        rolling_back_at: parsed_option(row, 9)?,
                        rolled_back_at: parsed_option(row, 10)?,
                        step: json(row, 11)?,
                    })
                })?
                .collect()
        })
    }
}

/// From now on the objects of the document to go back to are those in the cluster, or on their way there.
fn go_back(transaction: &Transaction<'_>, to: Generation) -> rusqlite::Result<()> {
    let digest: Option<String> = transaction
        .query_row(
            "SELECT digest FROM desired WHERE epoch = ?1 AND counter = ?2",
            (to.epoch, as_i64(to.counter)),
            |row| row.get(0),
        )
        .optional()?;
    match digest {
        Some(digest) => set_running(transaction, &digest),
        None => Ok(()),
    }
}

fn remember_failure(
    transaction: &Transaction<'_>,
    digest: &str,
    problem: &Problem,
    now: Timestamp,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO failed (digest, at, problem) VALUES (?1, ?2, ?3)
         ON CONFLICT (digest) DO UPDATE SET at = excluded.at, problem = excluded.problem",
        (digest, now.to_string(), to_text(problem)),
    )?;
    transaction.execute(
        "DELETE FROM failed WHERE digest NOT IN (SELECT digest FROM failed ORDER BY at DESC LIMIT ?1)",
        [REMEMBERED_FAILURES],
    )?;
    Ok(())
}
