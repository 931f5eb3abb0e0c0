//! The machine's state as others see it.

use super::{DocumentRef, Effect, Event, IllegalTransition, Stage, Ticket, Upkeep, Work, machine};
use crate::codes;
use holdfast_protocol::{
    Generation, Problem,
    document::FailurePolicy,
    report::{GenerationStatus, Phase},
};

/// State of the machine. A new one knows nothing; [`Event::Restarted`] tells it what the store knows.
// Each flag is a fact of its own; together they are no state.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub(super) started: bool,
    pub(super) last_ticket: u64,
    pub(super) kubernetes_ready: bool,
    pub(super) kubernetes_cause: Option<Problem>,
    pub(super) paused: bool,
    /// Whether changes of a document were begun that neither became good nor were gone back from: whatever comes next is needed now.
    pub(super) unsettled: bool,
    pub(super) stage: Stage,
    pub(super) upkeep: Option<Upkeep>,
    pub(super) applied: Option<Generation>,
    pub(super) proven: Option<Generation>,
    pub(super) fallback: Option<DocumentRef>,
    /// The operating system that runs, where documents decide it.
    pub(super) os: Option<String>,
}

impl Stage {
    /// The document on its way, where one is.
    pub const fn work(&self) -> Option<&Work> {
        match self {
            Self::Fetching { work, .. }
            | Self::Preflight { work, .. }
            | Self::StagingOs { work, .. }
            | Self::WaitingForWindow { work, .. }
            | Self::SwitchingOs { work, .. }
            | Self::SwitchingKubernetes { work, .. }
            | Self::WaitingForKubernetes { work }
            | Self::Applying { work, .. }
            | Self::Verifying { work, .. } => Some(work),
            Self::Idle | Self::Committed { .. } | Self::Failed { .. } | Self::RolledBack { .. } => None,
        }
    }

    pub(super) const fn work_mut(&mut self) -> Option<&mut Work> {
        match self {
            Self::Fetching { work, .. }
            | Self::Preflight { work, .. }
            | Self::StagingOs { work, .. }
            | Self::WaitingForWindow { work, .. }
            | Self::SwitchingOs { work, .. }
            | Self::SwitchingKubernetes { work, .. }
            | Self::WaitingForKubernetes { work }
            | Self::Applying { work, .. }
            | Self::Verifying { work, .. } => Some(work),
            Self::Idle | Self::Committed { .. } | Self::Failed { .. } | Self::RolledBack { .. } => None,
        }
    }

    /// The newest document.
    pub const fn newest(&self) -> Option<&DocumentRef> {
        match self {
            Self::Idle => None,
            Self::Committed { document }
            | Self::Failed { document, .. }
            | Self::RolledBack { document, .. } => Some(document),
            _ => match self.work() {
                Some(Work {
                    rollback: Some(rollback),
                    ..
                }) => Some(&rollback.from),
                Some(work) => Some(&work.document),
                None => None,
            },
        }
    }

    /// Work and timers of the stage, beside the document's deadline.
    pub(super) const fn waits_for(&self) -> Option<Ticket> {
        match self {
            Self::Fetching { wait, .. }
            | Self::Preflight { wait, .. }
            | Self::StagingOs { wait, .. }
            | Self::SwitchingOs { wait, .. }
            | Self::SwitchingKubernetes { wait, .. }
            | Self::Applying { wait, .. } => Some(wait.ticket()),
            Self::WaitingForWindow { gate, .. } => *gate,
            Self::Verifying { stability, .. } => *stability,
            Self::Idle
            | Self::WaitingForKubernetes { .. }
            | Self::Committed { .. }
            | Self::Failed { .. }
            | Self::RolledBack { .. } => None,
        }
    }
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
        self.stage.newest()
    }

    /// The document that a rollback would go back to, or is going or went back to. What it needs must be kept.
    pub const fn fallback(&self) -> Option<&DocumentRef> {
        self.fallback.as_ref()
    }

    /// Whether changes are paused.
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// How far the newest document is, in the words of the status report.
    pub const fn phase(&self) -> Phase {
        if let Some(work) = self.stage.work() {
            if work.rollback.is_some() {
                return Phase::RollingBack;
            }
            if work.late && !matches!(self.stage, Stage::WaitingForKubernetes { .. }) {
                return Phase::Failed;
            }
        }
        match &self.stage {
            Stage::Idle => Phase::Idle,
            Stage::Fetching { .. } => Phase::Fetching,
            Stage::Preflight { .. } => Phase::Preflight,
            Stage::StagingOs { .. } => Phase::StagingOs,
            Stage::WaitingForWindow { .. } => Phase::WaitingForWindow,
            Stage::SwitchingOs { .. } => Phase::SwitchingOs,
            Stage::SwitchingKubernetes { .. } => Phase::SwitchingKubernetes,
            Stage::WaitingForKubernetes { .. } => Phase::WaitingForKubernetes,
            Stage::Applying { .. } => Phase::Applying,
            Stage::Verifying { .. } => Phase::Verifying,
            Stage::Committed { .. } => Phase::Committed,
            Stage::Failed { .. } => Phase::Failed,
            Stage::RolledBack { .. } => Phase::RolledBack,
        }
    }

    /// What holds the newest document up, where something does; while the node goes back, and after it, why it does.
    pub fn cause(&self) -> Option<&Problem> {
        if let Some(rollback) = self.stage.work().and_then(|work| work.rollback.as_ref()) {
            return Some(&rollback.problem);
        }
        match &self.stage {
            Stage::Failed { problem, .. } | Stage::RolledBack { problem, .. } => Some(problem),
            _ => self.hold_up(),
        }
    }

    /// What holds the present work up.
    pub(super) fn hold_up(&self) -> Option<&Problem> {
        let work = self.stage.work()?;
        match self.stage {
            Stage::WaitingForKubernetes { .. } => self.kubernetes_cause.as_ref().or(work.cause.as_ref()),
            _ => work.cause.as_ref(),
        }
    }

    /// What the node goes back to when this work fails.
    pub(super) fn way_back_of(&self, work: &Work) -> Option<DocumentRef> {
        let goes_back = !work.cannot_fail() && work.document.on_failure == FailurePolicy::RollBack;
        self.fallback.clone().filter(|_| goes_back)
    }

    /// The part of the status report that tells of documents. What needs a clock is for the caller to add.
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

/// What holds a document up while changes are paused.
pub(super) fn paused() -> Problem {
    Problem::new(
        codes::CHANGES_PAUSED,
        "a person paused changes at the box",
        "it goes on when the pause ends; `holdfast resume` ends it now",
    )
}
