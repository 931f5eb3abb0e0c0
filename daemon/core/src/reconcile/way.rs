//! The transitions of a document's way, each a function with the name of its event.

use super::{Effect, Stage, Ticket, Wait, Work, machine::Machine, state::paused};
use crate::{failure::Failure, readiness::Summary};
use holdfast_protocol::{
    Problem,
    event::{EventKind, Severity},
    report::Health,
};
use std::mem;

impl Machine<'_> {
    pub(super) fn blobs_ready(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::Fetching { work, wait } if wait == Wait::Running(ticket) => self.fetched(work.went_well()),
            other => self.state.stage = other,
        }
    }

    pub(super) fn blobs_failed(&mut self, ticket: Ticket, failure: Failure) {
        match mem::take(&mut self.state.stage) {
            Stage::Fetching { work, wait } if wait == Wait::Running(ticket) => {
                if failure.retryable || work.proven {
                    let (work, wait) = self.pause(work, failure.problem);
                    self.state.stage = Stage::Fetching { work, wait };
                } else {
                    self.fail(work, failure.problem);
                }
            }
            other => self.state.stage = other,
        }
    }

    pub(super) fn preflight_passed(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::Preflight { work, wait } if wait == Wait::Running(ticket) => {
                self.enter_staging_os(work.went_well());
            }
            other => self.state.stage = other,
        }
    }

    pub(super) fn preflight_failed(&mut self, ticket: Ticket, failure: Failure) {
        match mem::take(&mut self.state.stage) {
            Stage::Preflight { work, wait } if wait == Wait::Running(ticket) => {
                if failure.retryable {
                    let (work, wait) = self.pause(work, failure.problem);
                    self.state.stage = Stage::Preflight { work, wait };
                } else {
                    self.fail(work, failure.problem);
                }
            }
            other => self.state.stage = other,
        }
    }

    pub(super) fn gate_opened(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::WaitingForWindow { work, gate } if gate == Some(ticket) => {
                self.enter_switching_os(work.went_well());
            }
            other => self.state.stage = other,
        }
    }

    pub(super) fn gate_closed(&mut self, ticket: Ticket, problem: Problem) {
        if let Stage::WaitingForWindow { work, gate } = &mut self.state.stage
            && *gate == Some(ticket)
        {
            work.cause = Some(problem);
        }
    }

    pub(super) fn paused(&mut self) {
        self.state.paused = true;
        if let Stage::WaitingForWindow { work, gate } = &mut self.state.stage
            && let Some(ticket) = gate.take()
        {
            work.cause = Some(paused());
            self.cancel(ticket);
        }
    }

    pub(super) fn resumed(&mut self) {
        if !mem::take(&mut self.state.paused) {
            return;
        }
        match mem::take(&mut self.state.stage) {
            Stage::WaitingForWindow { work, gate: None } => self.enter_gate(work.went_well()),
            other => self.state.stage = other,
        }
        self.correct();
    }

    pub(super) fn kubernetes_switched(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::SwitchingKubernetes { work, wait } if wait == Wait::Running(ticket) => {
                self.enter_waiting(work.went_well());
            }
            other => self.state.stage = other,
        }
    }

    pub(super) fn kubernetes_switch_failed(&mut self, ticket: Ticket, failure: Failure) {
        match mem::take(&mut self.state.stage) {
            Stage::SwitchingKubernetes { work, wait } if wait == Wait::Running(ticket) => {
                if failure.retryable || work.cannot_fail() {
                    let (work, wait) = self.pause(work, failure.problem);
                    self.state.stage = Stage::SwitchingKubernetes { work, wait };
                } else {
                    self.fail(work, failure.problem);
                }
            }
            other => self.state.stage = other,
        }
    }

    pub(super) fn kubernetes_ready(&mut self) {
        if mem::replace(&mut self.state.kubernetes_ready, true) {
            return;
        }
        self.state.kubernetes_cause = None;
        self.report(
            EventKind::KubernetesReady,
            Severity::Info,
            "Kubernetes is ready".into(),
            None,
            None,
        );
        match mem::take(&mut self.state.stage) {
            Stage::WaitingForKubernetes { work } => return self.enter_waiting(work),
            // Most likely it was Kubernetes that was missing.
            Stage::Preflight {
                work,
                wait: Wait::Pausing(ticket),
            } => {
                self.cancel(ticket);
                self.enter_preflight(work);
            }
            other => self.state.stage = other,
        }
        self.observe();
        self.correct();
    }

    pub(super) fn kubernetes_lost(&mut self, problem: Problem) {
        let was_ready = mem::replace(&mut self.state.kubernetes_ready, false);
        self.state.kubernetes_cause = Some(problem.clone());
        if !was_ready {
            return;
        }
        self.report(
            EventKind::KubernetesLost,
            Severity::Warning,
            format!("Kubernetes is not ready: {}", problem.message),
            None,
            Some(problem),
        );
        self.stop_correction();
        self.stop_observation();
        // Its datastore may come back as it was earlier, with other objects and with numbers of versions that were given out before.
        if let Some(upkeep) = &mut self.state.upkeep {
            upkeep.recheck = true;
        }
        match mem::take(&mut self.state.stage) {
            Stage::Applying { work, wait } => {
                self.cancel(wait.ticket());
                self.state.stage = Stage::WaitingForKubernetes { work };
            }
            Stage::Verifying { work, stability } => {
                if let Some(ticket) = stability {
                    self.cancel(ticket);
                }
                let overdue = work.overdue;
                self.state.stage = Stage::WaitingForKubernetes { work };
                if overdue {
                    self.too_late();
                }
            }
            other => self.state.stage = other,
        }
    }

    pub(super) fn apply_finished(&mut self, ticket: Ticket, failures: Vec<Failure>) {
        match mem::take(&mut self.state.stage) {
            Stage::Applying { work, wait } if wait == Wait::Running(ticket) => {
                self.document_applied(work, failures);
            }
            other => {
                self.state.stage = other;
                self.objects_applied(ticket, failures);
            }
        }
    }

    pub(super) fn readiness_changed(&mut self, ticket: Ticket, summary: Summary) {
        let Some(upkeep) = self
            .state
            .upkeep
            .as_mut()
            .filter(|upkeep| upkeep.observation == Some(ticket))
        else {
            return;
        };
        upkeep.recheck = false;
        upkeep.attempt = 0;
        upkeep.unready.clone_from(&summary.isolated);
        // One that is on its way may still be healthy when the document is good; until then it is not told.
        for app in summary.isolated {
            if app.health == Health::Degraded {
                self.tell_failed_alone(&app.name, app.cause);
            }
        }
        match mem::take(&mut self.state.stage) {
            Stage::Verifying { work, stability } if summary.health == Health::Healthy => {
                if work.must_stay_ready() {
                    let stability = stability.unwrap_or_else(|| {
                        let ticket = self.ticket();
                        self.effects.push(Effect::ScheduleStability {
                            ticket,
                            after_seconds: work.document.stability_seconds,
                        });
                        ticket
                    });
                    self.state.stage = Stage::Verifying {
                        work: Work { cause: None, ..work },
                        stability: Some(stability),
                    };
                } else {
                    self.commit(work);
                }
            }
            Stage::Verifying { work, stability } => {
                if let Some(ticket) = stability {
                    self.cancel(ticket);
                }
                let overdue = work.overdue;
                self.state.stage = Stage::Verifying {
                    work: Work {
                        cause: summary.cause,
                        ..work
                    },
                    stability: None,
                };
                if overdue {
                    self.too_late();
                }
            }
            other => self.state.stage = other,
        }
    }

    pub(super) fn stability_reached(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::Verifying { work, stability } if stability == Some(ticket) => self.commit(work),
            other => self.state.stage = other,
        }
    }

    pub(super) fn deadline_reached(&mut self, ticket: Ticket) {
        let is_ready = matches!(
            self.state.stage,
            Stage::Verifying {
                stability: Some(_),
                ..
            }
        );
        let Some(work) = self
            .state
            .stage
            .work_mut()
            .filter(|work| work.deadline == Some(ticket))
        else {
            return;
        };
        work.deadline = None;
        if is_ready {
            work.overdue = true;
        } else {
            self.too_late();
        }
    }

    pub(super) fn retry_due(&mut self, ticket: Ticket) {
        let due = Wait::Pausing(ticket);
        match mem::take(&mut self.state.stage) {
            Stage::Fetching { work, wait } if wait == due => self.enter_fetching(work),
            Stage::Preflight { work, wait } if wait == due => self.enter_preflight(work),
            Stage::StagingOs { work, wait } if wait == due => self.enter_staging_os(work),
            Stage::SwitchingOs { work, wait } if wait == due => self.ask_for_os(work),
            Stage::SwitchingKubernetes { work, wait } if wait == due => self.enter_switching(work),
            Stage::Applying { work, wait } if wait == due => self.enter_waiting(work),
            other => {
                self.state.stage = other;
                self.correction_pause_over(ticket);
                self.observation_pause_over(ticket);
            }
        }
    }
}
