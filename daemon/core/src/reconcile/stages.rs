//! Entering a stage: what begins, what ends, what is told.

use super::{DocumentRef, Effect, JournalStep, Stage, Upkeep, Wait, Work, machine::Machine};
use holdfast_protocol::{
    Problem,
    event::{EventKind, Severity},
};

impl Machine<'_> {
    pub(super) fn enter_fetching(&mut self, work: Work) {
        if work.document.blobs.is_empty() {
            return self.enter_waiting(work);
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

    pub(super) fn enter_waiting(&mut self, work: Work) {
        if !self.state.kubernetes_ready {
            self.state.stage = Stage::WaitingForKubernetes { work };
        } else if work.applied {
            self.enter_verifying(work);
        } else {
            self.enter_applying(work);
        }
    }

    pub(super) fn enter_applying(&mut self, mut work: Work) {
        self.stop_correction();
        match &mut self.state.upkeep {
            Some(upkeep) if upkeep.document == work.document => {}
            Some(upkeep) => {
                // Objects that drifted are written by this run if they are still wanted.
                upkeep.drifted.clear();
                upkeep.document = work.document.clone();
            }
            None => self.state.upkeep = Some(Upkeep::of(work.document.clone(), false)),
        }
        let ticket = self.ticket();
        self.effects.push(Effect::Apply {
            ticket,
            document: work.document.clone(),
        });
        if work.deadline.is_none() && !work.late && !work.proven {
            let ticket = self.ticket();
            self.effects.push(Effect::ScheduleDeadline {
                ticket,
                after_seconds: work.document.ready_deadline_seconds,
            });
            work.deadline = Some(ticket);
        }
        self.state.stage = Stage::Applying {
            work,
            wait: Wait::Running(ticket),
        };
    }

    pub(super) fn enter_verifying(&mut self, mut work: Work) {
        // After a restart at this step, the deadline begins anew.
        if work.deadline.is_none() && !work.late && !work.proven {
            let ticket = self.ticket();
            self.effects.push(Effect::ScheduleDeadline {
                ticket,
                after_seconds: work.document.ready_deadline_seconds,
            });
            work.deadline = Some(ticket);
        }
        self.state.stage = Stage::Verifying { work };
        self.observe();
        self.correct();
    }

    pub(super) fn commit(&mut self, work: Work) {
        if let Some(ticket) = work.deadline {
            self.cancel(ticket);
        }
        let document = work.document;
        let generation = document.generation;
        self.state.proven = Some(generation);
        if !work.proven {
            self.effects.push(Effect::Commit {
                document: document.clone(),
            });
            self.report(
                EventKind::DocumentProven,
                Severity::Info,
                format!("all apps of document {generation} are ready"),
                Some(generation),
                None,
            );
        }
        self.state.stage = Stage::Committed { document };
    }

    pub(super) fn fail(&mut self, work: Work, problem: Problem, applying: bool) {
        if let Some(ticket) = work.deadline {
            self.cancel(ticket);
        }
        let document = work.document;
        self.effects.push(Effect::Journal {
            document: document.clone(),
            step: JournalStep::Failed {
                problem: problem.clone(),
                applying,
            },
        });
        self.report(
            EventKind::DocumentFailed,
            Severity::Alarm,
            format!("document {} failed: {}", document.generation, problem.message),
            Some(document.generation),
            Some(problem.clone()),
        );
        self.state.stage = Stage::Failed { document, problem };
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
            document,
            attempt: 0,
            applied: false,
            proven: false,
            late: false,
            cause: None,
            deadline: None,
        }
    }
}
