//! The transitions of the reconcile machine, each a function with its name.

use super::{
    DocumentRef, Effect, Event, IllegalTransition, JournalStep, Report, Rollback, Stage, State, Ticket,
    Upkeep, Work,
};
use holdfast_protocol::{
    Generation, Problem,
    event::{EventKind, Severity},
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
            os,
            deadline_seconds,
        } => {
            machine.state.started = true;
            machine.state.paused = paused;
            machine.state.proven = proven;
            machine.state.os = os;
            machine.restart(newest, applied, fallback, deadline_seconds);
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
        Event::OsStaged { ticket } => machine.os_staged(ticket),
        Event::OsStageFailed { ticket, failure } => machine.os_stage_failed(ticket, failure),
        Event::OsSwitched { ticket } => machine.os_switched(ticket),
        Event::OsSwitchFailed { ticket, failure } => machine.os_switch_failed(ticket, failure),
        Event::GateOpened { ticket } => machine.gate_opened(ticket),
        Event::GateClosed { ticket, problem } => machine.gate_closed(ticket, problem),
        Event::Paused => machine.paused(),
        Event::Resumed => machine.resumed(),
        Event::RollBackRequested { to, problem } => machine.roll_back_requested(to, problem),
        Event::KubernetesSwitched { ticket } => machine.kubernetes_switched(ticket),
        Event::KubernetesSwitchFailed { ticket, failure } => {
            machine.kubernetes_switch_failed(ticket, failure);
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
        Event::OsStaged { ticket } => ("operating system staged", Some(*ticket)),
        Event::OsStageFailed { ticket, .. } => ("operating system not staged", Some(*ticket)),
        Event::OsSwitched { ticket } => ("operating system switched", Some(*ticket)),
        Event::OsSwitchFailed { ticket, .. } => ("operating system not switched", Some(*ticket)),
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
        deadline_seconds: Option<u32>,
    ) {
        self.state.applied = applied.as_ref().map(|document| document.generation);
        self.state.fallback.clone_from(&fallback);
        let Some((document, step)) = newest else {
            return;
        };
        // Once writes had begun, putting another document's objects back would undo them.
        let (kept_up, mut work) = match step {
            JournalStep::Accepted => (applied, Work::of(document)),
            JournalStep::SwitchingOs => {
                self.state.upkeep = applied.map(|document| Upkeep::of(document, true));
                // All that it needs was there before.
                return self.ask_for_os(Work::begun(document));
            }
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
        if work.begun && !work.cannot_fail() {
            work.deadline_seconds = deadline_seconds.unwrap_or(work.deadline_seconds);
            if work.deadline_seconds == 0 {
                return self.restarted_too_often(work);
            }
        }
        if work.rollback.is_some() {
            // What it needs was kept.
            return self.enter_switching_os(work);
        }
        if work.begun {
            self.begin_deadline(&mut work);
        }
        self.enter_fetching(work);
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
}
