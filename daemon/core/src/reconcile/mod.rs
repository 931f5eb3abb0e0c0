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
mod messages;
#[cfg(test)]
mod properties;
mod stages;
#[cfg(test)]
mod tests;
mod upkeep;
#[cfg(test)]
mod upkeep_tests;

pub use messages::{
    ARCHITECTURE, DocumentRef, Effect, Event, IllegalTransition, JournalStep, Report, Ticket,
};

use crate::object::ObjectKey;
use holdfast_protocol::{
    Generation, Problem,
    report::{GenerationStatus, Phase},
};
use std::collections::BTreeSet;

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
    /// The pause before the next attempt to observe, where the last one failed.
    pub pause: Option<Ticket>,
    /// Attempts to observe that failed in a row.
    pub attempt: u32,
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
            running: self.upkeep.as_ref().map(|upkeep| upkeep.document.generation),
            cause: self.cause().cloned(),
            ..GenerationStatus::default()
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
