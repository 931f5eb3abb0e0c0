//! The transitions of the reconcile machine, each a function with its name.

use super::{
    DocumentRef, Effect, Event, IllegalTransition, JournalStep, Report, Rollback, Stage, State, Ticket,
    Upkeep, Wait, Work, state::paused,
};
use crate::{failure::Failure, readiness::Summary};
use holdfast_protocol::{
    Generation, Problem,
    event::{EventKind, Severity},
    report::Health,
};
use serde_json::Map;
use std::mem;

pub(super) fn step(state: &mut State, event: Event) -> Result<Vec<Effect>, IllegalTransition> {
    check(state, &event)?;
    let mut machine = Machine {
        state,
        effects: Vec::new(),
    };
    match event {
        Event::Restarted {
            newest,
            applied,
            proven,
            fallback,
            paused,
        } => {
            machine.state.started = true;
            machine.state.paused = paused;
            machine.state.proven = proven;
            machine.restart(newest, applied, fallback);
        }
        Event::DocumentAccepted(document) => machine.accept(document),
        Event::BlobsReady { ticket } => machine.blobs_ready(ticket),
        Event::BlobsFailed { ticket, failure } => machine.blobs_failed(ticket, failure),
        Event::KubernetesReady => machine.kubernetes_ready(),
        Event::KubernetesLost { problem } => machine.kubernetes_lost(problem),
        Event::ApplyFinished { ticket, failures } => machine.apply_finished(ticket, failures),
        Event::ReadinessChanged { ticket, summary } => machine.readiness_changed(ticket, summary),
        Event::ObservationFailed { ticket, failure } => machine.observation_failed(ticket, failure),
        Event::DeadlineReached { ticket } => machine.deadline_reached(ticket),
        Event::RetryDue { ticket } => machine.retry_due(ticket),
        Event::DriftDetected { keys } => machine.drift_detected(keys),
        Event::PreflightPassed { ticket } => machine.preflight_passed(ticket),
        Event::PreflightFailed { ticket, failure } => machine.preflight_failed(ticket, failure),
        Event::GateOpened { ticket } => machine.gate_opened(ticket),
        Event::GateClosed { ticket, problem } => machine.gate_closed(ticket, problem),
        Event::Paused => machine.paused(),
        Event::Resumed => machine.resumed(),
        Event::RollBackRequested { to, problem } => machine.roll_back_requested(to, problem),
        Event::KubernetesSwitched { ticket } => machine.kubernetes_switched(ticket),
        Event::KubernetesSwitchFailed { ticket, failure } => {
            machine.kubernetes_switch_failed(ticket, failure)
        }
        Event::StabilityReached { ticket } => machine.stability_reached(ticket),
    }
    Ok(machine.effects)
}

/// Refuses what no caller that keeps the contract can send.
fn check(state: &State, event: &Event) -> Result<(), IllegalTransition> {
    let (name, ticket) = match event {
        Event::Restarted { .. } if state.started => return Err(IllegalTransition::AlreadyStarted),
        Event::Restarted { .. } => return Ok(()),
        Event::DocumentAccepted(_) => ("document accepted", None),
        Event::BlobsReady { ticket } => ("blobs ready", Some(*ticket)),
        Event::BlobsFailed { ticket, .. } => ("blobs failed", Some(*ticket)),
        Event::KubernetesReady => ("Kubernetes ready", None),
        Event::KubernetesLost { .. } => ("Kubernetes lost", None),
        Event::ApplyFinished { ticket, .. } => ("apply finished", Some(*ticket)),
        Event::ReadinessChanged { ticket, .. } => ("readiness changed", Some(*ticket)),
        Event::ObservationFailed { ticket, .. } => ("observation failed", Some(*ticket)),
        Event::DeadlineReached { ticket } => ("deadline reached", Some(*ticket)),
        Event::RetryDue { ticket } => ("retry due", Some(*ticket)),
        Event::DriftDetected { .. } => ("drift detected", None),
        Event::PreflightPassed { ticket } => ("preflight passed", Some(*ticket)),
        Event::PreflightFailed { ticket, .. } => ("preflight failed", Some(*ticket)),
        Event::GateOpened { ticket } => ("gate opened", Some(*ticket)),
        Event::GateClosed { ticket, .. } => ("gate closed", Some(*ticket)),
        Event::Paused => ("paused", None),
        Event::Resumed => ("resumed", None),
        Event::RollBackRequested { .. } => ("rollback requested", None),
        Event::KubernetesSwitched { ticket } => ("Kubernetes switched", Some(*ticket)),
        Event::KubernetesSwitchFailed { ticket, .. } => ("Kubernetes not switched", Some(*ticket)),
        Event::StabilityReached { ticket } => ("stability reached", Some(*ticket)),
    };
    if !state.started {
        return Err(IllegalTransition::NotStarted { event: name });
    }
    if let Some(Ticket(ticket)) = ticket.filter(|ticket| ticket.0 > state.last_ticket || ticket.0 == 0) {
        return Err(IllegalTransition::UnknownTicket { event: name, ticket });
    }
    if let (Event::DocumentAccepted(document), Some(newest)) = (event, state.newest())
        && document.generation <= newest.generation
    {
        return Err(IllegalTransition::NotNewer {
            found: document.generation,
            newest: newest.generation,
        });
    }
    Ok(())
}

/// The state with the effects of the present event.
pub(super) struct Machine<'a> {
    pub(super) state: &'a mut State,
    pub(super) effects: Vec<Effect>,
}

impl Machine<'_> {
    pub(super) fn ticket(&mut self) -> Ticket {
        self.state.last_ticket += 1;
        Ticket(self.state.last_ticket)
    }

    pub(super) fn cancel(&mut self, ticket: Ticket) {
        self.effects.push(Effect::Cancel { ticket });
    }

    pub(super) fn schedule_retry(&mut self, attempt: u32) -> Ticket {
        let ticket = self.ticket();
        self.effects.push(Effect::ScheduleRetry { ticket, attempt });
        ticket
    }

    pub(super) fn report(
        &mut self,
        kind: EventKind,
        severity: Severity,
        message: String,
        generation: Option<Generation>,
        problem: Option<Problem>,
    ) {
        self.effects.push(Effect::Report(Report {
            kind,
            severity,
            message,
            generation,
            problem,
            details: Map::new(),
        }));
    }

    // Transitions by event.

    /// Takes up what the store knows.
    fn restart(
        &mut self,
        newest: Option<(DocumentRef, JournalStep)>,
        applied: Option<DocumentRef>,
        fallback: Option<DocumentRef>,
    ) {
        self.state.applied = applied.as_ref().map(|document| document.generation);
        self.state.fallback.clone_from(&fallback);
        let Some((document, step)) = newest else {
            return;
        };
        // Once writes had begun, putting another document's objects back would undo them.
        let (kept_up, mut work) = match step {
            JournalStep::Accepted => (applied, Work::of(document)),
            JournalStep::Switching => (applied, Work::begun(document)),
            JournalStep::Applying => (Some(document.clone()), Work::begun(document)),
            JournalStep::Applied | JournalStep::Proven => {
                self.state.applied = Some(document.generation);
                let proven = step == JournalStep::Proven;
                if proven {
                    self.state.proven = Some(document.generation);
                }
                let work = Work {
                    applied: true,
                    proven,
                    ..Work::begun(document.clone())
                };
                (Some(document), work)
            }
            JournalStep::Failed { problem, applying } => {
                let kept_up = if applying { Some(document.clone()) } else { applied };
                self.state.upkeep = kept_up.map(|document| Upkeep::of(document, true));
                self.state.stage = Stage::Failed { document, problem };
                return;
            }
            JournalStep::RollingBack { problem, .. } => match fallback {
                Some(to) => {
                    let rollback = Rollback {
                        from: document,
                        problem,
                    };
                    let work = Work {
                        rollback: Some(rollback),
                        ..Work::begun(to.clone())
                    };
                    (Some(to), work)
                }
                // What it went back to is trusted no more. What runs keeps running, whatever it is.
                None => return self.state.stage = Stage::Failed { document, problem },
            },
            JournalStep::RolledBack { problem, to } => {
                self.state.upkeep = fallback.map(|document| Upkeep::of(document, true));
                self.state.stage = Stage::RolledBack {
                    document,
                    to,
                    problem,
                };
                return;
            }
        };
        self.state.upkeep = kept_up.map(|document| Upkeep::of(document, true));
        if work.begun {
            self.begin_deadline(&mut work);
        }
        if work.rollback.is_some() {
            // What it needs was kept.
            self.enter_switching(work);
        } else {
            self.enter_fetching(work);
        }
    }

    /// Begins with a newer document, wherever the older one was.
    fn accept(&mut self, document: DocumentRef) {
        match &self.state.stage {
            Stage::Committed { document } => self.state.fallback = Some(document.clone()),
            stage => {
                if let Some(work) = stage.work().filter(|work| work.proven && work.rollback.is_none()) {
                    self.state.fallback = Some(work.document.clone());
                }
            }
        }
        let interrupted = self
            .state
            .stage
            .work()
            .is_some_and(|work| work.begun && !work.applied);
        self.leave();
        self.enter_fetching(Work::of(document));
        // Blobs, checks and windows may take days. What the older document was in the middle of is brought to its end meanwhile.
        if interrupted {
            if let Some(upkeep) = &mut self.state.upkeep {
                upkeep.recheck = true;
            }
            self.observe();
        }
        self.correct();
    }

    /// Ends what the present stage is doing.
    pub(super) fn leave(&mut self) {
        let stage = mem::take(&mut self.state.stage);
        let deadline = stage.work().and_then(|work| work.deadline);
        for ticket in [stage.waits_for(), deadline].into_iter().flatten() {
            self.cancel(ticket);
        }
    }

    fn blobs_ready(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::Fetching { work, wait } if wait == Wait::Running(ticket) => self.fetched(work.went_well()),
            other => self.state.stage = other,
        }
    }

    fn blobs_failed(&mut self, ticket: Ticket, failure: Failure) {
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

    fn preflight_passed(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::Preflight { work, wait } if wait == Wait::Running(ticket) => {
                self.enter_gate(work.went_well());
            }
            other => self.state.stage = other,
        }
    }

    fn preflight_failed(&mut self, ticket: Ticket, failure: Failure) {
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

    fn gate_opened(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::WaitingForWindow { work, gate } if gate == Some(ticket) => {
                self.enter_switching(work.went_well());
            }
            other => self.state.stage = other,
        }
    }

    fn gate_closed(&mut self, ticket: Ticket, problem: Problem) {
        if let Stage::WaitingForWindow { work, gate } = &mut self.state.stage
            && *gate == Some(ticket)
        {
            work.cause = Some(problem);
        }
    }

    fn paused(&mut self) {
        self.state.paused = true;
        if let Stage::WaitingForWindow { work, gate } = &mut self.state.stage
            && let Some(ticket) = gate.take()
        {
            work.cause = Some(paused());
            self.cancel(ticket);
        }
    }

    fn resumed(&mut self) {
        if !mem::take(&mut self.state.paused) {
            return;
        }
        match mem::take(&mut self.state.stage) {
            Stage::WaitingForWindow { work, gate: None } => self.enter_gate(work.went_well()),
            other => self.state.stage = other,
        }
        self.correct();
    }

    fn kubernetes_switched(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::SwitchingKubernetes { work, wait } if wait == Wait::Running(ticket) => {
                self.enter_waiting(work.went_well());
            }
            other => self.state.stage = other,
        }
    }

    fn kubernetes_switch_failed(&mut self, ticket: Ticket, failure: Failure) {
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

    fn kubernetes_ready(&mut self) {
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

    fn kubernetes_lost(&mut self, problem: Problem) {
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

    fn apply_finished(&mut self, ticket: Ticket, failures: Vec<Failure>) {
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

    fn readiness_changed(&mut self, ticket: Ticket, summary: Summary) {
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
        for (app, problem) in summary.isolated {
            self.tell_failed_alone(&app, problem);
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

    fn stability_reached(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::Verifying { work, stability } if stability == Some(ticket) => self.commit(work),
            other => self.state.stage = other,
        }
    }

    fn deadline_reached(&mut self, ticket: Ticket) {
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

    fn retry_due(&mut self, ticket: Ticket) {
        let due = Wait::Pausing(ticket);
        match mem::take(&mut self.state.stage) {
            Stage::Fetching { work, wait } if wait == due => self.enter_fetching(work),
            Stage::Preflight { work, wait } if wait == due => self.enter_preflight(work),
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
