//! The reconcile state machine: the way of a document through the node.
//!
//! In: [`Event`]s (a document was accepted, work ended, Kubernetes came or went, a timer rang). Out: [`Effect`]s to carry out.
//! All state is in [`State`]; there is no clock and no randomness, timers are effects and ring as events.
//!
//! ```text
//!                     DocumentAccepted (newer, from every stage)
//!                            │
//!            ┌───────┐       ▼       ┌─────┐ BlobsFailed, RetryDue
//!  start ──▶ │ Idle  │ ──▶ ┌──────────┐ ◀──┘
//!            └───────┘     │ Fetching │ ──────────── BlobsFailed for good ──────────────┐
//!                          └──────────┘                                                 │
//!                            │ BlobsReady (at once where there are none)                │
//!                            ▼                                                          │
//!            ┌──────────────────────┐  KubernetesLost                                   │
//!            │ WaitingForKubernetes │ ◀───────────────────┐                             │
//!            └──────────────────────┘                     │                             │
//!                            │ KubernetesReady            │                             │
//!                            ▼       ┌─────┐ ApplyFinished, RetryDue                    │
//!                          ┌──────────┐ ◀──┘              │                             ▼
//!                          │ Applying │ ── refused for good ───────────────────────▶ ┌────────┐
//!                          └──────────┘ ──────────────────┤                          │ Failed │
//!                            │ ApplyFinished, all written │                          └────────┘
//!                            ▼                            │
//!                          ┌───────────┐                  │
//!                          │ Verifying │ ─────────────────┘
//!                          └───────────┘
//!                            │ ReadinessChanged, all healthy
//!                            ▼
//!                          ┌───────────┐
//!                          │ Committed │
//!                          └───────────┘
//! ```
//!
//! Beside the newest document's way, the document applied last is kept up: observed, and put back where someone changes it. That
//! goes on while a newer document waits for its blobs, and after one failed, so a node never neglects what runs.
//!
//! Guarantees:
//! - The newest accepted document is never lost: not to a lost Kubernetes, not to a failure, not to a restart at any journalled
//!   step. Only a newer one takes its place, and it does so at any time.
//! - Every state has a way on that is already under way: work, a timer, Kubernetes coming back, or (in [`Stage::Committed`] and
//!   [`Stage::Failed`]) drift or a newer document.
//! - Retries are unlimited and paced by the caller's [`crate::backoff`]. A document that failed for good is never tried again.
//! - Whether the hub can be reached is no part of any of this.
//!
//! What the caller does: it carries out effects in the order given, begins with [`Event::Restarted`], and answers each ticket at
//! most once. Answers to tickets that were cancelled or overtaken are passed over.

mod machine;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use crate::{admission::VerifiedDocument, failure::Failure, object::ObjectKey, readiness::Summary};
use holdfast_protocol::{
    Digest, Generation, Problem,
    document::{BlobRef, DriftPolicy, ManifestSource},
    event::{EventKind, Severity},
    report::{GenerationStatus, Phase},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What the machine needs to know of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentRef {
    /// Place in the order of documents.
    pub generation: Generation,
    /// SHA-256 of its payload.
    pub digest: Digest,
    /// Blobs that it needs.
    pub blobs: Vec<BlobRef>,
    /// Seconds within which it must be ready.
    pub ready_deadline_seconds: u32,
    /// What happens on drift.
    pub drift: DriftPolicy,
}

impl DocumentRef {
    /// What the machine needs to know of `document`.
    pub fn of(document: &VerifiedDocument) -> Self {
        let state = document.state();
        let blobs = state
            .apps
            .iter()
            .flat_map(|app| &app.manifests)
            .filter_map(|source| match source {
                ManifestSource::Blob(blob) => Some(blob.clone()),
                ManifestSource::Inline(_) => None,
            })
            .collect();
        Self {
            generation: document.generation(),
            digest: document.digest(),
            blobs,
            ready_deadline_seconds: state.policy.ready_deadline_seconds,
            drift: state.policy.drift,
        }
    }
}

/// Name of one piece of work or one timer. Each is given out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// How far a document was when it was written down last; what a restart goes on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum JournalStep {
    /// Stored, in the same transaction as the document itself. Writes of objects that were applied before may have begun.
    Accepted,
    /// Writes may have begun, of new objects too; the inventory names them.
    Applying,
    /// All objects were written, all that left were deleted, the inventory is up to date.
    Applied,
    /// It was seen ready.
    Proven,
    /// It failed for good.
    Failed {
        /// Why.
        problem: Problem,
        /// Whether writes had begun.
        applying: bool,
    },
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The daemon started; always the first event, also on a new node.
    Restarted {
        /// The newest accepted document and how far it was.
        newest: Option<(DocumentRef, JournalStep)>,
        /// The newest document whose objects were all written, where it is another one.
        applied: Option<DocumentRef>,
        /// Generation of the newest document that was seen ready.
        proven: Option<Generation>,
    },
    /// A newer document passed admission and is stored.
    DocumentAccepted(DocumentRef),
    /// All blobs of the document are here, verified.
    BlobsReady {
        /// From [`Effect::FetchBlobs`].
        ticket: Ticket,
    },
    /// A blob could not be had.
    BlobsFailed {
        /// From [`Effect::FetchBlobs`].
        ticket: Ticket,
        /// Why.
        failure: Failure,
    },
    /// Kubernetes answers and is ready.
    KubernetesReady,
    /// Kubernetes ended or answers no more.
    KubernetesLost {
        /// Why.
        problem: Problem,
    },
    /// An [`Effect::Apply`] or [`Effect::ApplyObjects`] ended; what it wrote is recorded in the inventory.
    ApplyFinished {
        /// From the effect.
        ticket: Ticket,
        /// What went wrong; empty where all went well.
        failures: Vec<Failure>,
    },
    /// The observed objects' readiness is another than before.
    ReadinessChanged {
        /// From [`Effect::Verify`].
        ticket: Ticket,
        /// Readiness of all of them together.
        summary: Summary,
    },
    /// The timer of an [`Effect::ScheduleDeadline`] rang.
    DeadlineReached {
        /// From the effect.
        ticket: Ticket,
    },
    /// The timer of an [`Effect::ScheduleRetry`] rang.
    RetryDue {
        /// From the effect.
        ticket: Ticket,
    },
    /// Someone else changed or deleted applied objects.
    DriftDetected {
        /// Which.
        keys: Vec<ObjectKey>,
    },
}

/// Something to do. All of it may be done twice without harm.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Have all blobs of the document in the store, then answer with [`Event::BlobsReady`] or [`Event::BlobsFailed`]. What is in
    /// the store already must not need a network.
    FetchBlobs {
        /// For the answer.
        ticket: Ticket,
        /// The document.
        document: DocumentRef,
    },
    /// Plan against the inventory, record new objects as intents, write what differs, prune (only when all writes went well),
    /// record, and answer with [`Event::ApplyFinished`].
    Apply {
        /// For the answer.
        ticket: Ticket,
        /// The document.
        document: DocumentRef,
    },
    /// Write these objects of the document again, whatever the inventory says, and answer with [`Event::ApplyFinished`]. Objects
    /// that the document does not name are passed over.
    ApplyObjects {
        /// For the answer.
        ticket: Ticket,
        /// The document.
        document: DocumentRef,
        /// Which objects.
        keys: BTreeSet<ObjectKey>,
    },
    /// Observe the document's objects in place of those observed before, and send [`Event::ReadinessChanged`] with what is seen
    /// first and on each change, and [`Event::DriftDetected`].
    Verify {
        /// For the answers; there may be many.
        ticket: Ticket,
        /// The document.
        document: DocumentRef,
        /// Whether nothing is known of what happened to the objects in the meantime (after a start of the daemon, or where writing
        /// them was cut off): each object of the document is written once again before the first [`Event::ReadinessChanged`],
        /// which changes nothing where nothing differs. Nothing is pruned.
        recheck: bool,
    },
    /// Ring with [`Event::RetryDue`] after the backoff's delay for this attempt.
    ScheduleRetry {
        /// For the answer.
        ticket: Ticket,
        /// Number of the attempt, from 0.
        attempt: u32,
    },
    /// Ring with [`Event::DeadlineReached`] after this many seconds.
    ScheduleDeadline {
        /// For the answer.
        ticket: Ticket,
        /// Seconds from now.
        after_seconds: u32,
    },
    /// Stop this work, observation or timer, and go on with the next effect when it has stopped.
    Cancel {
        /// Which.
        ticket: Ticket,
    },
    /// Write down that the document is this far. (The other steps are written down with the work itself.)
    Journal {
        /// The document.
        document: DocumentRef,
        /// How far.
        step: JournalStep,
    },
    /// Write down that the document was seen ready.
    Commit {
        /// The document.
        document: DocumentRef,
    },
    /// Tell the hub and the log.
    Report(Report),
}

/// What an event for the hub says; node, time and sequence are added by the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
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
    /// More of it.
    pub details: Map<String, Value>,
}

/// An event that cannot follow what was before: a fault of the caller. The state is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IllegalTransition {
    /// An event before [`Event::Restarted`].
    #[error("{event} came before the machine was started")]
    NotStarted {
        /// Name of the event.
        event: &'static str,
    },
    /// A second [`Event::Restarted`].
    #[error("the machine is started already")]
    AlreadyStarted,
    /// A document that is not newer than the newest.
    #[error("document {found} was handed in as newer than {newest}")]
    NotNewer {
        /// Generation that came.
        found: Generation,
        /// Newest generation known.
        newest: Generation,
    },
    /// A ticket that was never given out.
    #[error("{event} names ticket {ticket}, which was never given out")]
    UnknownTicket {
        /// Name of the event.
        event: &'static str,
        /// The ticket.
        ticket: u64,
    },
}

/// Work or the pause before it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The work is under way.
    Running(Ticket),
    /// The timer before the next attempt is running.
    Pausing(Ticket),
}

impl Wait {
    const fn ticket(self) -> Ticket {
        match self {
            Self::Running(ticket) | Self::Pausing(ticket) => ticket,
        }
    }
}

/// The newest document on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The document.
    pub document: DocumentRef,
    /// Attempts of the present stage that failed.
    pub attempt: u32,
    /// Whether all of its objects were written once.
    pub applied: bool,
    /// Whether it was seen ready before the daemon started; it then needs neither deadline nor report.
    pub proven: bool,
    /// Whether its deadline has passed. It counts as failed then, but is looked after all the same and can still get ready.
    pub late: bool,
    /// What holds it up at present.
    pub cause: Option<Problem>,
    /// Timer of its deadline, once it runs.
    pub deadline: Option<Ticket>,
}

/// How far the newest document is. See the diagram in the module's comment.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Stage {
    /// There is no document.
    #[default]
    Idle,
    /// Its blobs are being fetched.
    Fetching {
        /// The document.
        work: Work,
        /// The fetch or the pause before the next one.
        wait: Wait,
    },
    /// It waits for Kubernetes, to be applied or to be verified.
    WaitingForKubernetes {
        /// The document.
        work: Work,
    },
    /// Its objects are being written.
    Applying {
        /// The document.
        work: Work,
        /// The writing or the pause before the next attempt.
        wait: Wait,
    },
    /// Its objects are written; they are observed until all are ready.
    Verifying {
        /// The document.
        work: Work,
    },
    /// It is applied and was seen ready.
    Committed {
        /// The document.
        document: DocumentRef,
    },
    /// It failed for good.
    Failed {
        /// The document.
        document: DocumentRef,
        /// Why.
        problem: Problem,
    },
}

/// How drifted objects are put back: at once the first time, then with growing pauses while they keep drifting, so that a fight
/// with another controller costs next to nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Correction {
    /// Nothing to do.
    #[default]
    Resting,
    /// Objects are being put back.
    Running {
        /// The work.
        ticket: Ticket,
        /// Which objects.
        keys: BTreeSet<ObjectKey>,
        /// Corrections right before this one.
        attempt: u32,
    },
    /// The pause after a correction; ends the series if nothing drifted meanwhile.
    Pausing {
        /// The timer.
        ticket: Ticket,
        /// Corrections up to now.
        attempt: u32,
    },
}

/// The document applied last (or being applied) and what is done to keep it so.
#[derive(Clone, Debug, PartialEq)]
pub struct Upkeep {
    /// The document.
    pub document: DocumentRef,
    /// The observation, while Kubernetes is ready.
    pub observation: Option<Ticket>,
    /// Whether the next observation must check every object.
    pub recheck: bool,
    /// Objects known to have drifted and not yet being put back.
    pub drifted: BTreeSet<ObjectKey>,
    /// Putting them back.
    pub correction: Correction,
}

/// State of the machine. A new one knows nothing; [`Event::Restarted`] tells it what the store knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    started: bool,
    last_ticket: u64,
    kubernetes_ready: bool,
    kubernetes_cause: Option<Problem>,
    stage: Stage,
    upkeep: Option<Upkeep>,
    applied: Option<Generation>,
    proven: Option<Generation>,
}

impl State {
    /// How far the newest document is.
    pub const fn stage(&self) -> &Stage {
        &self.stage
    }

    /// What is being kept up.
    pub const fn upkeep(&self) -> Option<&Upkeep> {
        self.upkeep.as_ref()
    }

    /// The newest document.
    pub const fn newest(&self) -> Option<&DocumentRef> {
        match &self.stage {
            Stage::Idle => None,
            Stage::Fetching { work, .. }
            | Stage::WaitingForKubernetes { work }
            | Stage::Applying { work, .. }
            | Stage::Verifying { work } => Some(&work.document),
            Stage::Committed { document } | Stage::Failed { document, .. } => Some(document),
        }
    }

    /// How far the newest document is, in the words of the status report.
    pub const fn phase(&self) -> Phase {
        match &self.stage {
            Stage::Idle => Phase::Idle,
            Stage::Applying { work, .. } | Stage::Verifying { work } if work.late => Phase::Failed,
            Stage::Fetching { .. } => Phase::Fetching,
            Stage::WaitingForKubernetes { .. } => Phase::WaitingForKubernetes,
            Stage::Applying { .. } => Phase::Applying,
            Stage::Verifying { .. } => Phase::Verifying,
            Stage::Committed { .. } => Phase::Committed,
            Stage::Failed { .. } => Phase::Failed,
        }
    }

    /// What holds the newest document up, where something does.
    pub fn cause(&self) -> Option<&Problem> {
        match &self.stage {
            Stage::Idle | Stage::Committed { .. } => None,
            Stage::WaitingForKubernetes { .. } => self.kubernetes_cause.as_ref(),
            Stage::Fetching { work, .. } | Stage::Applying { work, .. } | Stage::Verifying { work } => {
                work.cause.as_ref()
            }
            Stage::Failed { problem, .. } => Some(problem),
        }
    }

    /// The part of the status report that tells of documents.
    pub fn generation_status(&self) -> GenerationStatus {
        GenerationStatus {
            accepted: self.newest().map(|document| document.generation),
            accepted_digest: self.newest().map(|document| document.digest),
            applied: self.applied,
            proven: self.proven,
            phase: self.phase(),
            cause: self.cause().cloned(),
        }
    }

    /// Takes an event in and says what is to be done.
    ///
    /// # Errors
    /// [`IllegalTransition`] where the caller breaks the contract; the state is as it was.
    pub fn step(&mut self, event: Event) -> Result<Vec<Effect>, IllegalTransition> {
        machine::step(self, event)
    }
}
