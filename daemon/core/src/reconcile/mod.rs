//! The reconcile state machine: the way of a document through the node.
//!
//! In: [`Event`]s (a document was accepted, work ended, Kubernetes came or went, a timer rang). Out: [`Effect`]s to carry out.
//! All state is in [`State`]; there is no clock and no randomness, timers are effects and ring as events.
//!
//! ```text
//!           DocumentAccepted (newer, from every stage)
//!                  │
//!                  ▼
//!            ┌──────────┐ blobs or artifacts missing, try again
//!  Idle ───▶ │ Fetching │ ─────────────────────────────────┐
//!            └──────────┘                                  │
//!                  ▼                                       │ refused for good:
//!            ┌───────────┐ not now, try again              │ nothing was touched
//!            │ Preflight │ ────────────────────────────────┤
//!            └───────────┘                                 │
//!                  ▼                                       │
//!            ┌───────────┐ not now, try again              │
//!            │ StagingOs │ ────────────────────────────────┤ (only where another operating system is wanted)
//!            └───────────┘                                 ▼
//!                  ▼                                   ┌────────┐
//!         ┌──────────────────┐ window, pause           │ Failed │ ◀─ also below the gate, where there is
//!         │ WaitingForWindow │                         └────────┘    nothing to go back to
//!         └──────────────────┘
//!  ════════════════╪═══ the gate ═════════════════════════════════════════════════════════════════════
//!                  ▼
//!           ┌─────────────┐ the box came back from it by itself
//!           │ SwitchingOs │ ───────────────────────────────────────────┐ (only where another operating system is wanted)
//!           └─────────────┘                                            │
//!  ════════════════╪═══ the deadline runs from here ═══════════════════╪══════════════════════════════
//!                  ▼                                                   │
//!       ┌─────────────────────┐
//!       │ SwitchingKubernetes │ ─── cannot be switched ───────────────┐
//!       └─────────────────────┘                                       │
//!                  ▼                                                  │
//!       ┌──────────────────────┐                                      │
//!       │ WaitingForKubernetes │ ─── deadline ────────────────────────┤     the same stages again, for the
//!       └──────────────────────┘ ◀─ Kubernetes lost (from below)      │     earlier document, without end:
//!                  ▼                                                  ▼
//!            ┌──────────┐                                       ┌─────────────┐     ┌────────────┐
//!            │ Applying │ ─── refused for good, deadline ─────▶ │ RollingBack │ ──▶ │ RolledBack │
//!            └──────────┘                                       └─────────────┘     └────────────┘
//!                  ▼                                                  ▲
//!            ┌───────────┐                                            │
//!            │ Verifying │ ─── deadline ──────────────────────────────┘  RollBackRequested (from every stage)
//!            └───────────┘
//!                  ▼ all healthy, for the stability period
//!            ┌───────────┐
//!            │ Committed │
//!            └───────────┘
//! ```
//!
//! Rolling back is the same way with another document: [`Work::rollback`] names what is gone back from, the phase is
//! [`Phase::RollingBack`] throughout.
//!
//! Beside the newest document's way, the document applied last is kept up: observed, and put back where someone changes it. That
//! goes on while a newer document waits before the gate, and after one failed, so a node never neglects what runs.
//!
//! Guarantees:
//! - The newest accepted document is never lost: not to a lost Kubernetes, not to a failure, not to a restart at any journalled
//!   step. Only a newer one takes its place, and it does so at any time.
//! - Every state has a way on that is already under way: work, a timer, Kubernetes coming back, the end of a pause, or (in
//!   [`Stage::Committed`], [`Stage::Failed`] and [`Stage::RolledBack`]) drift or a newer document.
//! - Retries are unlimited and paced by the caller's [`crate::backoff`]. A document that failed for good or was gone back from is
//!   never applied again.
//! - Before the gate nothing of the box is touched. After it a document either becomes good within its deadline, or the node goes
//!   back to the last good one; going back never gives up. Restarts in between make the deadline shorter, so a document that makes the
//!   box restart over and over comes to its end too.
//! - A document that takes over from one whose changes had begun waits for no window, as the box is in the middle of a change
//!   already. A pause made at the box holds it all the same.
//! - While the box is between two operating systems no deadline of the document runs: how long and how often it is tried is bounded by
//!   its boot counter. What runs is kept up meanwhile, and decides whether the boot is good.
//! - Whether the hub can be reached is no part of any of this.
//!
//! What the caller does: it carries out effects in the order given, begins with [`Event::Restarted`], and answers each ticket at
//! most once. Answers to tickets that were cancelled or overtaken are passed over.

#[cfg(test)]
mod alone_tests;
mod document;
#[cfg(test)]
mod fixtures;
mod machine;
mod messages;
mod os;
#[cfg(test)]
mod os_tests;
#[cfg(test)]
mod properties;
mod restarts;
mod rollback;
#[cfg(test)]
mod rollback_tests;
mod stages;
mod state;
#[cfg(test)]
mod tests;
mod upkeep;
#[cfg(test)]
mod upkeep_tests;
mod way;

pub use document::{ARCHITECTURE, DocumentRef, OsRef};
pub use messages::{Effect, Event, IllegalTransition, JournalStep, Report, Ticket};
pub use restarts::deadline_after_restarts;
pub use state::State;

use crate::{object::ObjectKey, readiness::IsolatedApp};
use holdfast_protocol::{Generation, Problem};
// Named by the module's comment.
#[allow(unused_imports)]
use holdfast_protocol::report::Phase;
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

/// Why a node goes back, and from which document.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollback {
    /// The newest document, which is gone back from.
    pub from: DocumentRef,
    /// Why.
    pub problem: Problem,
}

/// A document on its way: the newest, or the one that is gone back to.
// Each flag is a fact of its own; together they are no state.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The document.
    pub document: DocumentRef,
    /// Attempts of the present stage that failed.
    pub attempt: u32,
    /// Whether it has passed the gate: something may have been touched.
    pub begun: bool,
    /// Whether all of its objects were written once.
    pub applied: bool,
    /// Whether it was seen ready before the daemon started; it then needs neither deadline nor report, and cannot fail.
    pub proven: bool,
    /// Whether its deadline has passed with nothing to go back to. It counts as failed then, but is looked after all the same and can
    /// still get ready.
    pub late: bool,
    /// Whether its deadline has passed while it was ready and only had to stay so.
    pub overdue: bool,
    /// What holds it up at present.
    pub cause: Option<Problem>,
    /// Seconds in which it must be ready, from the gate or from the restart on: those of the document, or fewer after restarts.
    pub deadline_seconds: u32,
    /// Timer of its deadline, once it runs.
    pub deadline: Option<Ticket>,
    /// Present where this is the way back.
    pub rollback: Option<Rollback>,
}

/// How far the newest document is. See the diagram in the module's comment.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Stage {
    /// There is no document.
    #[default]
    Idle,
    /// Its blobs and artifacts are being fetched.
    Fetching {
        /// The document.
        work: Work,
        /// The fetch or the pause before the next one.
        wait: Wait,
    },
    /// It is being checked whether it can work.
    Preflight {
        /// The document.
        work: Work,
        /// The check or the pause before the next one.
        wait: Wait,
    },
    /// Its operating system is being brought to the slot that does not run.
    StagingOs {
        /// The document.
        work: Work,
        /// The staging or the pause before the next attempt.
        wait: Wait,
    },
    /// It waits for its maintenance window, or for the end of a pause.
    WaitingForWindow {
        /// The document.
        work: Work,
        /// Waiting for the window; absent while changes are paused.
        gate: Option<Ticket>,
    },
    /// The box is being brought to its operating system, over a restart; on the way back, to the earlier one.
    SwitchingOs {
        /// The document.
        work: Work,
        /// The switch or the pause before the next attempt.
        wait: Wait,
    },
    /// k3s is being brought to what it says.
    SwitchingKubernetes {
        /// The document.
        work: Work,
        /// The switch or the pause before the next attempt.
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
    /// Its objects are written; they are observed until all are ready, and stay so.
    Verifying {
        /// The document.
        work: Work,
        /// Timer of the stability period, while all are ready.
        stability: Option<Ticket>,
    },
    /// It is applied and was seen ready.
    Committed {
        /// The document.
        document: DocumentRef,
    },
    /// It failed for good, and there was nothing to go back to or nothing was touched.
    Failed {
        /// The document.
        document: DocumentRef,
        /// Why.
        problem: Problem,
    },
    /// An earlier document runs in its place.
    RolledBack {
        /// The newest document.
        document: DocumentRef,
        /// The one that runs.
        to: Generation,
        /// Why.
        problem: Problem,
    },
}

/// How drifted objects are put back: each at once the first time, then with growing pauses while they keep drifting, so that a fight
/// with another controller costs next to nothing, and holds up no other object.
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
    /// Objects that were put back in the present series of corrections; they wait for the end of its pause.
    pub recent: BTreeSet<ObjectKey>,
    /// Apps that failed alone and were told of.
    pub told: BTreeSet<String>,
    /// Apps that may fail alone and were not healthy when they were seen last.
    pub unready: Vec<IsolatedApp>,
}
