//! The inventory: what Holdfast applied, or may have applied.
//!
//! In: intents before the first write, results after. Out: what pruning starts from. Guarantees: an object that was ever written is in
//! the inventory until it was deleted, whenever the power goes.

use crate::{
    StoreError,
    desired::{is_running, parsed_option, release_envelopes, set_running, to_text},
    store::{Store, read_meta, write_meta},
};
use holdfast_core::{object::ObjectKey, plan::InventoryEntry, reconcile::JournalStep};
use holdfast_protocol::{Digest, event::Event};
use jiff::Timestamp;
use rusqlite::{Connection, Transaction};

/// Name of the value that holds [`seal`].
const SEAL: &str = "inventory_seal";

/// What one run of applying did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyRecord {
    /// Objects that were written.
    pub written: Vec<InventoryEntry>,
    /// Objects that are gone.
    pub removed: Vec<ObjectKey>,
    /// Whether all objects of the document are written and all that left are gone.
    pub complete: bool,
}

impl Store {
    /// Everything that was applied or may have been, ordered by identity.
    pub fn inventory(&self) -> Result<Vec<InventoryEntry>, StoreError> {
        self.read(entries)
    }

    /// Checks that the inventory is the one that was written last. An entry lost to damage would never be pruned.
    pub(crate) fn check_inventory(&self) -> Result<(), StoreError> {
        let is_whole = self.read(|connection| {
            let sealed = read_meta(connection, SEAL)?;
            let entries = entries(connection)?;
            Ok(sealed.map_or(entries.is_empty(), |sealed| sealed == seal(&entries)))
        })?;
        if is_whole {
            Ok(())
        } else {
            Err(StoreError::Corrupt {
                path: self.path.clone(),
                detail: "the inventory does not fit its seal".into(),
            })
        }
    }

    /// Writes down, before the first write of them, that these objects may exist from now on, and that writing the document may have
    /// begun. Objects that are in the inventory already stay as they are; where all are and the document was begun before, nothing is written.
    /// The floor file is left to [`Store::record_apply`].
    pub fn begin_apply(
        &self,
        digest: Digest,
        new: &[InventoryEntry],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let begins = self.step(digest)?.is_some_and(|step| {
            matches!(
                step,
                JournalStep::Accepted | JournalStep::SwitchingOs | JournalStep::Switching
            )
        });
        if new.is_empty() && !begins {
            return Ok(());
        }
        self.write(|transaction| {
            for entry in new {
                insert(transaction, entry, "DO NOTHING")?;
            }
            if !new.is_empty() {
                write_seal(transaction)?;
            }
            if begins {
                transaction.execute(
                    "UPDATE desired SET step = ?2, applying_at = ?3 WHERE digest = ?1",
                    (
                        digest.to_string(),
                        to_text(&JournalStep::Applying),
                        now.to_string(),
                    ),
                )?;
            }
            Ok(())
        })
    }

    /// Writes down what a run of applying did, with the events that tell of it. Where it did nothing and the document was
    /// complete before, nothing is written.
    pub fn record_apply(
        &self,
        digest: Digest,
        record: &ApplyRecord,
        events: &[Event],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let is_news = record.complete && !self.is_complete(digest)?;
        if record.written.is_empty() && record.removed.is_empty() && events.is_empty() && !is_news {
            return Ok(());
        }
        self.transact_with_events(events, |transaction, _| {
            for entry in &record.written {
                insert(
                    transaction,
                    entry,
                    "DO UPDATE SET api_version = excluded.api_version, app = excluded.app,
                                   digest = excluded.digest, keep = excluded.keep,
                                   fingerprint = excluded.fingerprint",
                )?;
            }
            for key in &record.removed {
                transaction.execute(
                    "DELETE FROM inventory WHERE api_group = ?1 AND kind = ?2 AND namespace = ?3 AND name = ?4",
                    (
                        key.group(),
                        &key.kind,
                        key.namespace.as_deref().unwrap_or_default(),
                        &key.name,
                    ),
                )?;
            }
            if !(record.written.is_empty() && record.removed.is_empty()) {
                write_seal(transaction)?;
            }
            if is_news {
                let digest = digest.to_string();
                // A document that is gone back to keeps the step that it had.
                transaction.execute(
                    "UPDATE desired SET step = ?2, applied_at = ?3 WHERE digest = ?1 AND applied_at IS NULL",
                    (&digest, to_text(&JournalStep::Applied), now.to_string()),
                )?;
                set_running(transaction, &digest)?;
                release_envelopes(transaction)?;
            }
            Ok(())
        })
    }

    /// Whether the document was written in full, and no other since.
    fn is_complete(&self, digest: Digest) -> Result<bool, StoreError> {
        self.read(|connection| {
            let digest = digest.to_string();
            Ok(is_running(connection, &digest)?
                && connection.query_row(
                    "SELECT EXISTS (SELECT 1 FROM desired WHERE digest = ?1 AND applied_at IS NOT NULL)",
                    [digest],
                    |row| row.get(0),
                )?)
        })
    }
}

fn entries(connection: &Connection) -> rusqlite::Result<Vec<InventoryEntry>> {
    connection
        .prepare(
            "SELECT api_version, kind, namespace, name, app, digest, keep, fingerprint FROM inventory
             ORDER BY api_group, kind, namespace, name",
        )?
        .query_map([], |row| {
            let namespace: String = row.get(2)?;
            Ok(InventoryEntry {
                key: ObjectKey {
                    api_version: row.get(0)?,
                    kind: row.get(1)?,
                    namespace: (!namespace.is_empty()).then_some(namespace),
                    name: row.get(3)?,
                },
                app: row.get(4)?,
                digest: parsed_option(row, 5)?,
                keep: row.get(6)?,
                // SQLite has no unsigned numbers; the bits are the same.
                fingerprint: row.get::<_, Option<i64>>(7)?.map(i64::cast_unsigned),
            })
        })?
        .collect()
}

/// The digest by which a damaged inventory is noticed.
fn seal(entries: &[InventoryEntry]) -> String {
    Digest::of(to_text(&entries).as_bytes()).to_string()
}

fn write_seal(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    write_meta(transaction, SEAL, &seal(&entries(transaction)?))
}

/// Inserts an entry; `on_conflict` (text of this file only) says what happens where it is there already.
fn insert(transaction: &Transaction<'_>, entry: &InventoryEntry, on_conflict: &str) -> rusqlite::Result<()> {
    let key = &entry.key;
    transaction.execute(
        &format!(
            "INSERT INTO inventory (api_group, kind, namespace, name, api_version, app, digest, keep, fingerprint)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (api_group, kind, namespace, name) {on_conflict}"
        ),
        (
            key.group(),
            &key.kind,
            key.namespace.as_deref().unwrap_or_default(),
            &key.name,
            &key.api_version,
            &entry.app,
            entry.digest.map(|digest| digest.to_string()),
            entry.keep,
            entry.fingerprint.map(u64::cast_signed),
        ),
    )?;
    Ok(())
}
