//! Notes events down in the outbox, and the log.

use super::Conditions;
use crate::{identity::clock::TimeFloor, sync::Signals};
use holdfast_core::reconcile::Report;
use holdfast_protocol::{
    Generation, NodeId, Problem, SchemaVersion,
    event::{Event, EventKind, Severity},
};
use holdfast_store::{Store, StoreError};
use std::sync::Arc;

/// Finder of conditions about the store.
const STORE: &str = "store";

/// An event that is not the machine's.
#[derive(Clone, Debug)]
pub struct News {
    /// What kind.
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// What happened, in one line.
    pub message: String,
    /// The document it is about.
    pub generation: Option<Generation>,
    /// What is wrong, where something is.
    pub problem: Option<Problem>,
}

/// Notes events down.
#[derive(Clone)]
pub struct Recorder {
    /// Name of the node.
    pub node: NodeId,
    /// The outbox.
    pub store: Arc<Store>,
    /// The time.
    pub floor: Arc<TimeFloor>,
    /// Told of each event.
    pub signals: Signals,
    /// Where a disk that does not take an event is told of.
    pub conditions: Arc<Conditions>,
}

impl Recorder {
    /// The event of a machine's report; its sequence is set by the store.
    pub fn event(&self, report: Report) -> Event {
        Event {
            schema: SchemaVersion::CURRENT,
            node: self.node.clone(),
            sequence: 0,
            at: self.floor.now(),
            kind: report.kind,
            severity: report.severity,
            message: report.message,
            generation: report.generation,
            problem: report.problem,
            details: report.details,
        }
    }

    /// Notes one event down. One that the disk does not take is in the log, and the disk in the conditions.
    pub fn note(&self, report: Report) -> Result<(), StoreError> {
        self.note_with(vec![report], |events| self.store.push_events(events).map(drop))
    }

    /// Notes events down together with what `write` writes in the same transaction, to which it must add them.
    pub fn note_with(
        &self,
        reports: Vec<Report>,
        write: impl FnOnce(&[Event]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        reports.iter().for_each(log);
        let events: Vec<_> = reports.into_iter().map(|report| self.event(report)).collect();
        let noted = write(&events);
        self.check(noted.as_ref().err());
        noted?;
        if !events.is_empty() {
            self.signals.outbox.notify_one();
        }
        Ok(())
    }

    /// As [`Self::note`], for events that are not the machine's.
    pub fn tell(&self, news: News) -> Result<(), StoreError> {
        self.note(news.into())
    }

    /// Takes the result of a write to the store into the conditions.
    pub fn check(&self, error: Option<&StoreError>) {
        match error {
            Some(error) => {
                tracing::error!(%error, "the store does not take a write");
                self.conditions.set(STORE, error.problem(), self.floor.now());
            }
            None => self.conditions.clear(STORE),
        }
    }
}

impl From<News> for Report {
    fn from(news: News) -> Self {
        Self {
            kind: news.kind,
            severity: news.severity,
            message: news.message,
            generation: news.generation,
            problem: news.problem,
            details: serde_json::Map::new(),
        }
    }
}

fn log(report: &Report) {
    let code = report.problem.as_ref().map(|problem| problem.code.as_ref());
    let generation = report.generation.map(tracing::field::display);
    match report.severity {
        Severity::Info => tracing::info!(generation, "{}", report.message),
        Severity::Warning => tracing::warn!(generation, code, "{}", report.message),
        Severity::Alarm => tracing::error!(generation, code, "{}", report.message),
    }
}
