//! Entering a stage: what begins, what ends, what is told.

use super::{DocumentRef, Effect, JournalStep, Stage, Upkeep, Wait, Work, machine::Machine, state::paused};
use crate::failure::Failure;
use holdfast_protocol::{
    Problem,
    event::{EventKind, Severity},
};

impl Machine<'_> {
    pub(super) fn enter_fetching(&mut self, work: Work) {
        if work.document.blobs.is_empty() && work.document.artifacts.is_empty() {
            return self.fetched(work);
        }
        let ticket = self.ticket();
        self.effects.push(Effect::FetchBlobs {
            ticket,
            document: work.document.clone(),
        });
        self.state.stage = Stage::Fetching {
            work,
            wait: Wait::Running(ticket),
        };
    }

    pub(super) fn fetched(&mut self, work: Work) {
        if work.begun {
            self.enter_staging_os(work);
        } else {
            self.enter_preflight(work);
        }
    }

    pub(super) fn enter_preflight(&mut self, work: Work) {
        let ticket = self.ticket();
        self.effects.push(Effect::Preflight {
            ticket,
            document: work.document.clone(),
        });
        self.state.stage = Stage::Preflight {
            work,
            wait: Wait::Running(ticket),
        };
    }

    pub(super) fn enter_gate(&mut self, mut work: Work) {
        if self.state.paused {
            work.cause = Some(paused());
            self.state.stage = Stage::WaitingForWindow { work, gate: None };
            return;
        }
        if self.state.unsettled {
            return self.enter_switching_os(work);
        }
        let ticket = self.ticket();
        self.effects.push(Effect::AwaitGate {
            ticket,
            document: work.document.clone(),
        });
        self.state.stage = Stage::WaitingForWindow {
            work,
            gate: Some(ticket),
        };
    }

    pub(super) fn enter_switching(&mut self, mut work: Work) {
        self.stop_correction();
        let ticket = self.ticket();
        let document = work.document.clone();
        self.effects.push(match &work.rollback {
            None => Effect::SwitchKubernetes { ticket, document },
            Some(rollback) => Effect::RestoreKubernetes {
                ticket,
                document,
                undo: rollback.from.clone(),
            },
        });
        work.begun = true;
        self.begin_deadline(&mut work);
        self.state.stage = Stage::SwitchingKubernetes {
            work,
            wait: Wait::Running(ticket),
        };
    }

    /// The time in which a document that has passed the gate must be good runs from here; after a restart, what
    /// is left of it.
    pub(super) fn begin_deadline(&mut self, work: &mut Work) {
        if work.proven || work.late {
            return;
        }
        self.state.unsettled = true;
        if work.deadline.is_none() {
            let ticket = self.ticket();
            self.effects.push(Effect::ScheduleDeadline {
                ticket,
                after_seconds: work.deadline_seconds,
            });
            work.deadline = Some(ticket);
        }
    }

    pub(super) fn enter_waiting(&mut self, work: Work) {
        if !self.state.kubernetes_ready {
            self.state.stage = Stage::WaitingForKubernetes { work };
        } else if work.applied {
            self.enter_verifying(work);
        } else {
            self.enter_applying(work);
        }
    }

    fn enter_applying(&mut self, work: Work) {
        self.stop_correction();
        self.keep_up(&work.document);
        let ticket = self.ticket();
        self.effects.push(Effect::Apply {
            ticket,
            document: work.document.clone(),
        });
        self.state.stage = Stage::Applying {
            work,
            wait: Wait::Running(ticket),
        };
    }

    /// Makes the document the one that is kept up; its run writes objects that drifted if they are still wanted.
    pub(super) fn keep_up(&mut self, document: &DocumentRef) {
        match &mut self.state.upkeep {
            Some(upkeep) if upkeep.document == *document => {}
            Some(upkeep) => {
                upkeep.drifted.clear();
                upkeep.told.clear();
                upkeep.document = document.clone();
            }
            None => self.state.upkeep = Some(Upkeep::of(document.clone(), false)),
        }
    }

    /// A run over all objects of the document ended.
    pub(super) fn document_applied(&mut self, work: Work, failures: Vec<Failure>) {
        let (isolated, failures): (Vec<_>, Vec<_>) = failures.into_iter().partition(|failure| {
            failure
                .app
                .as_ref()
                .is_some_and(|app| work.document.isolated.contains(app))
        });
        let retryable = failures.iter().any(|failure| failure.retryable);
        // What cannot mend itself is what a person must hear of first.
        let worst = failures.into_iter().min_by_key(|failure| failure.retryable);
        match worst {
            None => {
                let generation = work.document.generation;
                self.state.applied = self.state.applied.max(Some(generation));
                if !work.proven && work.rollback.is_none() {
                    self.report(
                        EventKind::DocumentApplied,
                        Severity::Info,
                        format!("all objects of document {generation} are written"),
                        Some(generation),
                        None,
                    );
                }
                self.failed_alone(isolated);
                self.enter_verifying(Work {
                    applied: true,
                    ..work.went_well()
                });
            }
            Some(failure) if retryable || work.cannot_fail() => {
                let (work, wait) = self.pause(work, failure.problem);
                self.state.stage = Stage::Applying { work, wait };
                self.observe();
                self.correct();
            }
            Some(failure) => self.fail(work, failure.problem),
        }
    }

    pub(super) fn enter_verifying(&mut self, work: Work) {
        self.state.stage = Stage::Verifying {
            work,
            stability: None,
        };
        self.observe();
        self.correct();
    }

    pub(super) fn commit(&mut self, work: Work) {
        if let Some(ticket) = work.deadline {
            self.cancel(ticket);
        }
        self.state.unsettled = false;
        let document = work.document;
        let generation = document.generation;
        if let Some(rollback) = work.rollback {
            self.tell_unready();
            return self.rolled_back(rollback, generation);
        }
        self.state.proven = Some(generation);
        if !work.proven {
            self.effects.push(Effect::Commit {
                document: document.clone(),
            });
            let unready = self.tell_unready();
            let but = match unready.as_slice() {
                [] => String::new(),
                names => format!(" but {}", names.join(", ")),
            };
            self.report(
                EventKind::DocumentProven,
                Severity::Info,
                format!("all apps of document {generation}{but} are ready"),
                Some(generation),
                None,
            );
        }
        self.state.stage = Stage::Committed { document };
    }

    /// The document failed for good: the node goes back where something was touched and there is something to go back to.
    pub(super) fn fail(&mut self, work: Work, problem: Problem) {
        if let Some(ticket) = work.deadline {
            self.cancel(ticket);
        }
        if (work.begun || self.state.unsettled)
            && let Some(to) = self.state.way_back_of(&work)
        {
            return self.begin_rollback(work.document, to, problem, false);
        }
        let applying = self
            .state
            .upkeep
            .as_ref()
            .is_some_and(|upkeep| upkeep.document == work.document);
        self.effects.push(Effect::Journal {
            document: work.document.clone(),
            step: JournalStep::Failed {
                problem: problem.clone(),
                applying,
            },
        });
        self.report_failed(&work.document, &problem, None);
        self.state.unsettled = false;
        self.state.stage = Stage::Failed {
            document: work.document,
            problem,
        };
        if applying {
            self.observe();
        }
        self.correct();
    }

    /// Paces the next attempt of the present stage, and tells of the first failure.
    pub(super) fn pause(&mut self, work: Work, problem: Problem) -> (Work, Wait) {
        if work.attempt == 0 {
            self.report(
                EventKind::Problem,
                Severity::Warning,
                format!(
                    "document {} is held up: {}",
                    work.document.generation, problem.message
                ),
                Some(work.document.generation),
                Some(problem.clone()),
            );
        }
        let ticket = self.schedule_retry(work.attempt);
        let work = Work {
            attempt: work.attempt.saturating_add(1),
            cause: Some(problem),
            ..work
        };
        (work, Wait::Pausing(ticket))
    }
}

impl Work {
    pub(super) const fn of(document: DocumentRef) -> Self {
        Self {
            deadline_seconds: document.ready_deadline_seconds,
            document,
            attempt: 0,
            begun: false,
            applied: false,
            proven: false,
            late: false,
            overdue: false,
            cause: None,
            deadline: None,
            rollback: None,
        }
    }

    /// One that has passed the gate.
    pub(super) fn begun(document: DocumentRef) -> Self {
        Self {
            begun: true,
            ..Self::of(document)
        }
    }

    /// The next stage begins with a clean slate.
    pub(super) fn went_well(self) -> Self {
        Self {
            attempt: 0,
            cause: None,
            ..self
        }
    }

    /// Whether it is tried on, whatever happens: it was good before.
    pub(super) const fn cannot_fail(&self) -> bool {
        self.proven || self.rollback.is_some()
    }

    /// Whether being ready once is not enough.
    pub(super) const fn must_stay_ready(&self) -> bool {
        self.document.stability_seconds > 0 && !self.cannot_fail()
    }
}
