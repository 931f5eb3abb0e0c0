//! The way back: what leads to it, how it begins, how it ends.

use super::{
    DocumentRef, Effect, JournalStep, Rollback, Stage, Work, machine::Machine, restarts::restarted_too_often,
};
use crate::codes;
use holdfast_protocol::{
    Generation, Problem,
    event::{EventKind, Severity},
};

impl Machine<'_> {
    /// A person asked for an earlier document.
    pub(super) fn roll_back_requested(&mut self, to: DocumentRef, problem: Problem) {
        let Some(newest) = self.state.newest().cloned() else {
            return;
        };
        if to.generation >= newest.generation {
            return;
        }
        self.leave();
        self.begin_rollback(newest, to, problem, true);
    }

    /// Begins to go back, by failure or by a person's wish. What the stage was doing has ended.
    pub(super) fn begin_rollback(
        &mut self,
        from: DocumentRef,
        to: DocumentRef,
        problem: Problem,
        is_wish: bool,
    ) {
        self.effects.push(Effect::Journal {
            document: from.clone(),
            step: JournalStep::RollingBack {
                problem: problem.clone(),
                to: to.generation,
            },
        });
        if is_wish {
            self.report(
                EventKind::Problem,
                Severity::Warning,
                format!("going back to document {}: {}", to.generation, problem.message),
                Some(from.generation),
                Some(problem.clone()),
            );
        } else {
            self.report_failed(&from, &problem, Some(to.generation));
        }
        self.stop_correction();
        self.stop_observation();
        self.keep_up(&to);
        if let Some(upkeep) = &mut self.state.upkeep {
            upkeep.recheck = true;
        }
        self.state.fallback = Some(to.clone());
        self.enter_switching_os(Work {
            rollback: Some(Rollback { from, problem }),
            ..Work::begun(to)
        });
    }

    /// The earlier document is ready.
    pub(super) fn rolled_back(&mut self, rollback: Rollback, to: Generation) {
        let Rollback { from, problem } = rollback;
        self.effects.push(Effect::Journal {
            document: from.clone(),
            step: JournalStep::RolledBack {
                problem: problem.clone(),
                to,
            },
        });
        self.report(
            EventKind::DocumentRolledBack,
            Severity::Warning,
            format!(
                "document {to} runs in place of {}: {}",
                from.generation, problem.message
            ),
            Some(from.generation),
            Some(problem.clone()),
        );
        self.state.stage = Stage::RolledBack {
            document: from,
            to,
            problem,
        };
    }

    /// The deadline has passed, and the document is not ready.
    pub(super) fn too_late(&mut self) {
        let cause = self.state.hold_up().cloned();
        let Some(work) = self.state.stage.work_mut() else {
            return;
        };
        work.overdue = false;
        let generation = work.document.generation;
        let seconds = work.deadline_seconds;
        let problem = cause.unwrap_or_else(|| {
            Problem::new(
                codes::NOT_READY_IN_TIME,
                format!("the apps of document {generation} are not ready after {seconds} s"),
                "look at the apps' causes; a longer policy.readyDeadlineSeconds gives them more time",
            )
        });
        let work = work.clone();
        if let Some(to) = self.state.way_back_of(&work) {
            self.leave();
            return self.begin_rollback(work.document, to, problem, false);
        }
        if let Some(work) = self.state.stage.work_mut() {
            work.late = true;
            work.cause.get_or_insert_with(|| problem.clone());
        }
        let (kind, message) = if work.rollback.is_some() {
            let message = format!(
                "document {generation} was gone back to and is not ready after {seconds} s; it is tried on: {}",
                problem.message
            );
            (EventKind::Problem, message)
        } else {
            // The box is in no change any more: it has failed, and stays as it is until it gets ready or a newer document comes.
            self.state.unsettled = false;
            let message = format!(
                "document {generation} was not ready within {seconds} s: {}",
                problem.message
            );
            (EventKind::DocumentFailed, message)
        };
        self.report(kind, Severity::Alarm, message, Some(generation), Some(problem));
    }

    /// The daemon or the box restarted so often in the middle of the change that nothing of its deadline is left. No stage is entered yet.
    pub(super) fn restarted_too_often(&mut self, mut work: Work) {
        let generation = work.document.generation;
        let problem = restarted_too_often(generation);
        if let Some(to) = self.state.way_back_of(&work) {
            return self.begin_rollback(work.document, to, problem, false);
        }
        work.late = true;
        self.report_failed(&work.document, &problem, None);
        self.enter_fetching(Work {
            cause: Some(problem),
            ..work
        });
    }

    /// Tells that the document failed, and what happens next.
    pub(super) fn report_failed(
        &mut self,
        document: &DocumentRef,
        problem: &Problem,
        to: Option<Generation>,
    ) {
        let generation = document.generation;
        let message = match to {
            Some(to) => format!(
                "document {generation} failed, going back to {to}: {}",
                problem.message
            ),
            None => format!("document {generation} failed: {}", problem.message),
        };
        self.report(
            EventKind::DocumentFailed,
            Severity::Alarm,
            message,
            Some(generation),
            Some(problem.clone()),
        );
    }
}
