//! Where documents come in: admission, store, and only then the acknowledgement.

use crate::{
    failpoint,
    identity::{Identity, clock::TimeFloor},
    report::{News, Recorder, Reporter},
    sync::{Mailbox, OutboxRow},
    telemetry::metrics::METRICS,
};
use bytes::Bytes;
use holdfast_core::{
    admission::{Admission, Rejection, VerifiedDocument, admit},
    reconcile::Report,
};
use holdfast_protocol::{
    Digest, Problem,
    event::{EventKind, Severity},
};
use holdfast_store::{Store, StoreError};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Finder of conditions about documents.
const DOCUMENT: &str = "document";

/// The node's side of the link.
pub struct Intake {
    /// Documents and the outbox.
    pub store: Arc<Store>,
    /// Name and trusted keys.
    pub identity: watch::Receiver<Arc<Identity>>,
    /// The time.
    pub floor: Arc<TimeFloor>,
    /// Notes events down.
    pub recorder: Recorder,
    /// Makes status reports.
    pub reporter: Arc<Reporter>,
    /// To the machine.
    pub documents: mpsc::UnboundedSender<VerifiedDocument>,
    /// What was refused last. A retained message comes with every connect, and is told of once.
    pub refused: Option<Digest>,
}

impl Intake {
    fn accept(&mut self, document: VerifiedDocument) -> Result<(), StoreError> {
        let generation = document.generation();
        let release = document.state().release.as_ref();
        let from = release.map(|release| format!(" of release {}", release.name));
        let event = self.recorder.event(Report {
            kind: EventKind::DocumentAccepted,
            severity: Severity::Info,
            message: format!("document {generation}{} is stored", from.unwrap_or_default()),
            generation: Some(generation),
            problem: None,
            details: serde_json::Map::new(),
        });
        failpoint::reach("before-commit");
        let stored = self.store.commit(&document, &[event], self.floor.now());
        self.recorder.check(stored.as_ref().err());
        stored?;
        failpoint::reach("after-commit");
        self.refused = None;
        self.recorder.conditions.clear(DOCUMENT);
        tracing::info!(%generation, digest = %document.digest(), "accepted");
        METRICS.documents_accepted.add(1);
        METRICS
            .generation_accepted
            .set(i64::try_from(generation.counter).unwrap_or(i64::MAX));
        // The driver ends only with the daemon; what is stored then is taken up by the next one.
        let _ = self.documents.send(document);
        self.recorder.signals.outbox.notify_one();
        Ok(())
    }

    fn refuse(&mut self, digest: Digest, rejection: Rejection) -> Result<(), StoreError> {
        if self.refused == Some(digest) {
            return Ok(());
        }
        self.recorder.tell(News {
            kind: EventKind::DocumentRejected,
            severity: if rejection.alarm {
                Severity::Alarm
            } else {
                Severity::Warning
            },
            message: format!("a document is refused: {}", rejection.problem.message),
            generation: rejection.generation,
            problem: Some(rejection.problem.clone()),
        })?;
        METRICS.documents_rejected.add(1);
        self.recorder
            .conditions
            .set(DOCUMENT, rejection.problem, self.floor.now());
        self.refused = Some(digest);
        Ok(())
    }

    fn decide(&mut self, envelope: &[u8]) -> Result<(), StoreError> {
        let highest = self.store.highest()?;
        let identity = self.identity.borrow().clone();
        match admit(envelope, &identity.trust, &identity.node, highest) {
            Ok(Admission::Accept(document)) => self.accept(document),
            Ok(Admission::Duplicate { generation }) => {
                tracing::debug!(%generation, "known already; nothing is touched");
                self.refused = None;
                self.recorder.conditions.clear(DOCUMENT);
                Ok(())
            }
            Err(rejection) => self.refuse(Digest::of(envelope), *rejection),
        }
    }
}

impl Mailbox for Intake {
    fn desired(&mut self, envelope: &[u8]) -> Result<(), Problem> {
        self.decide(envelope).map_err(|error| error.problem())
    }

    fn outbox(&mut self, after: u64, limit: usize) -> Result<Vec<OutboxRow>, Problem> {
        // Rows up to `after` that are still there are on their way; there are never more of them than the window has.
        let rows = self
            .store
            .pending_events(limit + 16)
            .map_err(|error| error.problem())?;
        Ok(rows
            .into_iter()
            .filter(|row| row.sequence > after)
            .take(limit)
            .map(|row| OutboxRow {
                id: row.sequence,
                json: row.payload.into(),
            })
            .collect())
    }

    fn delivered(&mut self, ids: &[u64]) -> Result<(), Problem> {
        METRICS.events_sent.add(ids.len() as u64);
        self.store
            .acknowledge_events(ids)
            .map_err(|error| error.problem())
    }

    fn status(&mut self) -> Option<Bytes> {
        METRICS.reports_sent.add(1);
        match serde_json::to_vec(&self.reporter.report()) {
            Ok(json) => Some(json.into()),
            Err(error) => {
                tracing::error!(%error, "a status report cannot be written as JSON");
                None
            }
        }
    }
}
