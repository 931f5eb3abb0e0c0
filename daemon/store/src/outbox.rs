//! The outbox: events that the hub has not acknowledged.
//!
//! In: events in the order they happen. Out: the same in the same order, until each was acknowledged. Guarantees: sequences rise by one
//! over restarts; the outbox never grows beyond its bounds; what had to be dropped (the least severe first, the oldest of those
//! first) is counted and told by an event of its own.

use crate::{
    StoreError,
    desired::unsigned,
    store::{Inner, Options, Store, as_i64, in_transaction, read_meta, write_meta},
};
use holdfast_protocol::{
    NodeId,
    event::{Event, EventKind, Severity},
};
use rusqlite::{Connection, Transaction};
use serde_json::Map;

/// The most bytes of one event; a longer one loses its details.
const MAX_EVENT_BYTES: usize = 16 * 1024;

/// An event that waits for its acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingEvent {
    /// Its sequence, by which it is acknowledged.
    pub sequence: u64,
    /// Its JSON form, as it is published.
    pub payload: Vec<u8>,
}

/// Counts of the outbox, kept in memory so that no event costs a scan.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outbox {
    events: u64,
    bytes: u64,
    dropped: u64,
    last_sequence: u64,
}

impl Outbox {
    /// Reads the counts. `bound` is what no sequence was above, `known` what the database itself knows.
    pub(crate) fn load(connection: &Connection, bound: u64, known: u64) -> rusqlite::Result<Self> {
        let (events, bytes, newest): (i64, i64, i64) = connection.query_row(
            "SELECT count(*), coalesce(sum(length(payload)), 0), coalesce(max(sequence), 0) FROM outbox",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let dropped = read_meta(connection, "events_dropped")?
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        // A database that knows its last sequence goes on from there; a fresh one goes on from the bound.
        let last_sequence = if known == 0 { bound } else { known };
        Ok(Self {
            events: u64::try_from(events).unwrap_or(0),
            bytes: u64::try_from(bytes).unwrap_or(0),
            dropped,
            last_sequence: last_sequence.max(u64::try_from(newest).unwrap_or(0)),
        })
    }

    /// The last sequence that was given out.
    pub(crate) const fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Lets the events that wait be of another node, in place of the one that they name.
    pub(crate) fn rename(
        &mut self,
        transaction: &Transaction<'_>,
        from: &NodeId,
        to: &NodeId,
    ) -> rusqlite::Result<()> {
        let rows: Vec<(i64, Vec<u8>)> = transaction
            .prepare("SELECT sequence, payload FROM outbox ORDER BY sequence")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for (sequence, payload) in rows {
            let Ok(mut event) = serde_json::from_slice::<Event>(&payload) else {
                continue;
            };
            if event.node != *from {
                continue;
            }
            event.node = to.clone();
            let renamed = encode(&event, event.sequence);
            transaction.execute(
                "UPDATE outbox SET payload = ?2 WHERE sequence = ?1",
                (sequence, &renamed),
            )?;
            self.bytes = self.bytes.saturating_sub(payload.len() as u64) + renamed.len() as u64;
        }
        Ok(())
    }

    /// Adds events and drops what does not fit any more.
    pub(crate) fn push(
        &mut self,
        transaction: &Transaction<'_>,
        options: &Options,
        events: &[Event],
    ) -> rusqlite::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        for event in events {
            self.last_sequence += 1;
            let payload = encode(event, self.last_sequence);
            transaction.execute(
                "INSERT INTO outbox (sequence, severity, payload) VALUES (?1, ?2, ?3)",
                (as_i64(self.last_sequence), rank(event.severity), &payload),
            )?;
            self.events += 1;
            self.bytes += payload.len() as u64;
        }
        write_meta(transaction, "event_sequence", &self.last_sequence.to_string())?;
        let dropped_before = self.dropped;
        while self.events > options.outbox_max_events as u64 || self.bytes > options.outbox_max_bytes {
            let (sequence, payload): (i64, Vec<u8>) = transaction.query_row(
                "SELECT sequence, payload FROM outbox ORDER BY severity, sequence LIMIT 1",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            transaction.execute("DELETE FROM outbox WHERE sequence = ?1", [sequence])?;
            self.events -= 1;
            self.bytes -= payload.len() as u64;
            self.dropped += count_of(&payload);
        }
        if self.dropped != dropped_before {
            write_meta(transaction, "events_dropped", &self.dropped.to_string())?;
        }
        Ok(())
    }
}

/// Runs one transaction that also queues events, then brings the floor file up to date.
pub(crate) fn queue<T>(
    store: &Store,
    events: &[Event],
    write: impl FnOnce(&Transaction<'_>, &mut Outbox) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    let mut inner = store.lock();
    let Inner {
        connection, outbox, ..
    } = &mut *inner;
    let mut changed = *outbox;
    let value = in_transaction(connection, |transaction| {
        let value = write(transaction, &mut changed)?;
        changed.push(transaction, &store.options, events)?;
        Ok(value)
    })
    .map_err(|error| store.sqlite(&error))?;
    *outbox = changed;
    inner.raise_floor(|_| {});
    store.try_flush(&mut inner);
    Ok(value)
}

impl Store {
    /// Adds events; their sequences are set here, whatever they said before. Gives the last sequence.
    pub fn push_events(&self, events: &[Event]) -> Result<u64, StoreError> {
        if !events.is_empty() {
            queue(self, events, |_, _| Ok(()))?;
        }
        Ok(self.lock().outbox.last_sequence)
    }

    /// The oldest events that wait, at most `limit`, in their order. Where events were dropped, an event that says how many is among
    /// those that wait.
    pub fn pending_events(&self, limit: usize) -> Result<Vec<PendingEvent>, StoreError> {
        if self.lock().outbox.dropped > 0 {
            self.tell_dropped()?;
        }
        self.read(|connection| {
            connection
                .prepare("SELECT sequence, payload FROM outbox ORDER BY sequence LIMIT ?1")?
                .query_map([as_i64(limit as u64)], |row| {
                    Ok(PendingEvent {
                        sequence: unsigned(row, 0)?,
                        payload: row.get(1)?,
                    })
                })?
                .collect()
        })
    }

    /// Lets the events that wait be of the node `to` where they name `from`: a box that had a name of its own before its hub gave it another.
    pub fn rename_events(&self, from: &NodeId, to: &NodeId) -> Result<(), StoreError> {
        queue(self, &[], |transaction, outbox| {
            outbox.rename(transaction, from, to)
        })
    }

    /// Number of events that wait.
    pub fn pending_count(&self) -> u64 {
        self.lock().outbox.events
    }

    /// Removes events that the hub has acknowledged, all in one transaction.
    pub fn acknowledge_events(&self, sequences: &[u64]) -> Result<(), StoreError> {
        if sequences.is_empty() {
            return Ok(());
        }
        queue(self, &[], |transaction, outbox| {
            for sequence in sequences {
                let length = transaction
                    .prepare("DELETE FROM outbox WHERE sequence = ?1 RETURNING length(payload)")?
                    .query_map([as_i64(*sequence)], |row| unsigned(row, 0))?
                    .next()
                    .transpose()?;
                if let Some(length) = length {
                    outbox.events -= 1;
                    outbox.bytes -= length;
                }
            }
            Ok(())
        })
    }

    /// Turns the count of dropped events into an event.
    fn tell_dropped(&self) -> Result<(), StoreError> {
        queue(self, &[], |transaction, outbox| {
            // Node and time come from the newest event that is left; without any there is nobody to speak for.
            let newest = transaction
                .prepare("SELECT payload FROM outbox ORDER BY sequence DESC LIMIT 1")?
                .query_map([], |row| row.get::<_, Vec<u8>>(0))?
                .next()
                .transpose()?;
            let Some(newest) = newest.and_then(|payload| serde_json::from_slice::<Event>(&payload).ok())
            else {
                return Ok(());
            };
            let count = outbox.dropped;
            let mut details = Map::new();
            details.insert("count".into(), count.into());
            let event = Event {
                kind: EventKind::EventsDropped,
                severity: Severity::Warning,
                message: format!("{count} events were dropped because the outbox was full"),
                generation: None,
                problem: None,
                details,
                ..newest
            };
            outbox.dropped = 0;
            write_meta(transaction, "events_dropped", "0")?;
            // Not bounded here: the next event makes room again, and the count must not drop itself.
            let unbounded = Options {
                outbox_max_events: usize::MAX,
                outbox_max_bytes: u64::MAX,
                ..Options::default()
            };
            outbox.push(transaction, &unbounded, &[event])
        })
    }
}

fn rank(severity: Severity) -> i64 {
    match severity {
        Severity::Info => 0,
        Severity::Warning => 1,
        Severity::Alarm => 2,
    }
}

fn encode(event: &Event, sequence: u64) -> Vec<u8> {
    let mut event = Event {
        sequence,
        ..event.clone()
    };
    // A struct of strings and maps with string keys always serialises.
    let payload = serde_json::to_vec(&event).unwrap_or_default();
    if payload.len() <= MAX_EVENT_BYTES {
        return payload;
    }
    event.details = Map::new();
    event.message = event.message.chars().take(2_000).collect();
    if let Some(problem) = &mut event.problem {
        problem.message = problem.message.chars().take(2_000).collect();
    }
    serde_json::to_vec(&event).unwrap_or_default()
}

/// For how many events this one stands: for those that it says were dropped, too.
fn count_of(payload: &[u8]) -> u64 {
    serde_json::from_slice::<Event>(payload)
        .ok()
        .filter(|event| event.kind == EventKind::EventsDropped)
        .and_then(|event| event.details.get("count")?.as_u64())
        .unwrap_or(1)
}
