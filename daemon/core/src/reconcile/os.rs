//! The operating system on a document's way: staged before the window, switched to after the gate, gone back from first.
//!
//! In: the answers of the caller. Out: the effects that ask for it. It guarantees that a document which says nothing of the operating
//! system, or whose one runs, passes through without a trace; that what was seen good is never switched by this; and that a way back
//! goes on where the earlier operating system is gone.

use super::{Effect, Stage, Ticket, Wait, Work, machine::Machine};
use crate::failure::Failure;
use holdfast_protocol::event::{EventKind, Severity};
use std::mem;

impl Machine<'_> {
    /// Whether the box must come to another operating system for this work.
    fn wants_os(&self, work: &Work) -> bool {
        // One that was good once runs on whatever runs now: a box that came back from a worn out system keeps its apps.
        !work.cannot_fail()
            && (work.document.os.as_ref()).is_some_and(|os| Some(&os.version) != self.state.os.as_ref())
    }

    pub(super) fn enter_staging_os(&mut self, work: Work) {
        if !self.wants_os(&work) {
            return self.os_is_staged(work);
        }
        let ticket = self.ticket();
        self.effects.push(Effect::StageOs {
            ticket,
            document: work.document.clone(),
        });
        self.state.stage = Stage::StagingOs {
            work,
            wait: Wait::Running(ticket),
        };
    }

    fn os_is_staged(&mut self, work: Work) {
        if work.begun {
            self.enter_switching_os(work);
        } else {
            self.enter_gate(work);
        }
    }

    pub(super) fn os_staged(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::StagingOs { work, wait } if wait == Wait::Running(ticket) => {
                if let Some(os) = &work.document.os {
                    self.report(
                        EventKind::OsStaged,
                        Severity::Info,
                        format!(
                            "version {} of the operating system is ready to be started",
                            os.version
                        ),
                        Some(work.document.generation),
                        None,
                    );
                }
                self.os_is_staged(work.went_well());
            }
            other => self.state.stage = other,
        }
    }

    pub(super) fn os_stage_failed(&mut self, ticket: Ticket, failure: Failure) {
        match mem::take(&mut self.state.stage) {
            Stage::StagingOs { work, wait } if wait == Wait::Running(ticket) => {
                if failure.retryable {
                    let (work, wait) = self.pause(work, failure.problem);
                    self.state.stage = Stage::StagingOs { work, wait };
                } else {
                    self.fail(work, failure.problem);
                }
            }
            other => self.state.stage = other,
        }
    }

    /// The first stage after the gate, and of the way back.
    pub(super) fn enter_switching_os(&mut self, work: Work) {
        // Whether there is anything to go back to, the records of the caller say.
        let restores = work.rollback.is_some() && self.state.os.is_some();
        if restores || self.wants_os(&work) {
            self.ask_for_os(work);
        } else {
            self.enter_switching(work);
        }
    }

    /// Asks for the operating system, whether it is known to run or not: whether its boot is good is part of the answer.
    pub(super) fn ask_for_os(&mut self, mut work: Work) {
        let ticket = self.ticket();
        let document = work.document.clone();
        self.effects.push(match &work.rollback {
            None => Effect::SwitchOs { ticket, document },
            Some(rollback) => Effect::RestoreOs {
                ticket,
                document,
                undo: rollback.from.clone(),
            },
        });
        work.begun = true;
        // Its boot counter bounds it. What is left of the deadline begins anew with k3s.
        if let Some(ticket) = work.deadline.take() {
            self.cancel(ticket);
        }
        self.state.stage = Stage::SwitchingOs {
            work,
            wait: Wait::Running(ticket),
        };
        self.correct();
    }

    pub(super) fn os_switched(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::SwitchingOs { work, wait } if wait == Wait::Running(ticket) => {
                if work.rollback.is_none()
                    && let Some(os) = &work.document.os
                {
                    self.state.os = Some(os.version.clone());
                    self.report(
                        EventKind::OsSwitched,
                        Severity::Info,
                        format!("version {} of the operating system runs and is good", os.version),
                        Some(work.document.generation),
                        None,
                    );
                }
                self.enter_switching(work.went_well());
            }
            other => self.state.stage = other,
        }
    }

    pub(super) fn os_switch_failed(&mut self, ticket: Ticket, failure: Failure) {
        match mem::take(&mut self.state.stage) {
            Stage::SwitchingOs { work, wait } if wait == Wait::Running(ticket) => {
                if failure.retryable {
                    let (work, wait) = self.pause(work, failure.problem);
                    self.state.stage = Stage::SwitchingOs { work, wait };
                } else if work.rollback.is_some() {
                    // The earlier one is gone. Its apps may well run on the present one.
                    self.report(
                        EventKind::Problem,
                        Severity::Alarm,
                        format!(
                            "the operating system stays as it is on the way back to document {}: {}",
                            work.document.generation, failure.problem.message
                        ),
                        Some(work.document.generation),
                        Some(failure.problem),
                    );
                    self.enter_switching(work.went_well());
                } else {
                    self.fail(work, failure.problem);
                }
            }
            other => self.state.stage = other,
        }
    }
}
