//! The transitions of the reconcile machine, each a function with its name.

use super::{
    DocumentRef, Effect, Event, IllegalTransition, JournalStep, Report, Stage, State, Ticket, Upkeep, Wait,
    Work,
};
use crate::{codes, failure::Failure, readiness::Summary};
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
            ..
        } => machine.restart(newest, applied, proven),
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
        Event::PreflightPassed { .. }
        | Event::PreflightFailed { .. }
        | Event::GateOpened { .. }
        | Event::GateClosed { .. }
        | Event::Paused
        | Event::Resumed
        | Event::RollBackRequested { .. }
        | Event::KubernetesSwitched { .. }
        | Event::KubernetesSwitchFailed { .. }
        | Event::StabilityReached { .. } => {}
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
        proven: Option<Generation>,
    ) {
        self.state.started = true;
        self.state.applied = applied.as_ref().map(|document| document.generation);
        self.state.proven = proven;
        let Some((document, step)) = newest else {
            return;
        };
        let was_applied = matches!(step, JournalStep::Applied | JournalStep::Proven);
        let was_begun = matches!(
            step,
            JournalStep::Applying | JournalStep::Failed { applying: true, .. }
        );
        if was_applied {
            self.state.applied = Some(document.generation);
        }
        if step == JournalStep::Proven {
            self.state.proven = Some(document.generation);
        }
        // Once writes had begun, putting the older document's objects back would undo them.
        self.state.upkeep = if was_applied || was_begun {
            Some(Upkeep::of(document.clone(), true))
        } else {
            applied.map(|document| Upkeep::of(document, true))
        };
        if let JournalStep::Failed { problem, .. } = step {
            self.state.stage = Stage::Failed { document, problem };
            return;
        }
        self.enter_fetching(Work {
            applied: was_applied,
            proven: step == JournalStep::Proven,
            ..Work::of(document)
        });
    }

    /// Begins with a newer document, wherever the older one was.
    fn accept(&mut self, document: DocumentRef) {
        let mut was_writing = false;
        let waits = match mem::take(&mut self.state.stage) {
            Stage::Applying { work, wait } => {
                was_writing = true;
                [Some(wait.ticket()), work.deadline]
            }
            Stage::Fetching { work, wait } => [Some(wait.ticket()), work.deadline],
            Stage::WaitingForKubernetes { work } | Stage::Verifying { work } => [work.deadline, None],
            Stage::Idle | Stage::Committed { .. } | Stage::Failed { .. } => [None, None],
        };
        for ticket in waits.into_iter().flatten() {
            self.cancel(ticket);
        }
        self.enter_fetching(Work::of(document));
        // Blobs may take days to come. What the older document was in the middle of is brought to its end meanwhile.
        if was_writing && matches!(self.state.stage, Stage::Fetching { .. }) {
            if let Some(upkeep) = &mut self.state.upkeep {
                upkeep.recheck = true;
            }
            self.observe();
            self.correct();
        }
    }

    fn blobs_ready(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::Fetching { work, wait } if wait == Wait::Running(ticket) => {
                self.enter_waiting(Work {
                    attempt: 0,
                    cause: None,
                    ..work
                });
            }
            other => self.state.stage = other,
        }
    }

    fn blobs_failed(&mut self, ticket: Ticket, failure: Failure) {
        match mem::take(&mut self.state.stage) {
            Stage::Fetching { work, wait } if wait == Wait::Running(ticket) => {
                if failure.retryable {
                    let (work, wait) = self.pause(work, failure.problem);
                    self.state.stage = Stage::Fetching { work, wait };
                } else {
                    self.fail(work, failure.problem, false);
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
            Stage::WaitingForKubernetes { work } => self.enter_waiting(work),
            other => {
                self.state.stage = other;
                self.observe();
                self.correct();
            }
        }
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
            Stage::Verifying { work } => self.state.stage = Stage::WaitingForKubernetes { work },
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

    /// A run over all objects of the newest document ended.
    fn document_applied(&mut self, work: Work, failures: Vec<Failure>) {
        let retryable = failures.iter().any(|failure| failure.retryable);
        // What cannot mend itself is what a person must hear of first.
        let worst = failures.into_iter().min_by_key(|failure| failure.retryable);
        match worst {
            None => {
                let generation = work.document.generation;
                self.state.applied = Some(generation);
                if !work.proven {
                    self.report(
                        EventKind::DocumentApplied,
                        Severity::Info,
                        format!("all objects of document {generation} are written"),
                        Some(generation),
                        None,
                    );
                }
                self.enter_verifying(Work {
                    applied: true,
                    attempt: 0,
                    cause: None,
                    ..work
                });
            }
            Some(failure) if retryable => {
                let (work, wait) = self.pause(work, failure.problem);
                self.state.stage = Stage::Applying { work, wait };
                self.observe();
                self.correct();
            }
            Some(failure) => {
                self.fail(work, failure.problem, true);
                self.observe();
                self.correct();
            }
        }
    }

    fn readiness_changed(&mut self, ticket: Ticket, summary: Summary) {
        let observed = self.state.upkeep.as_ref().and_then(|upkeep| upkeep.observation);
        if let Some(upkeep) = &mut self.state.upkeep
            && upkeep.observation == Some(ticket)
        {
            upkeep.recheck = false;
            upkeep.attempt = 0;
        }
        match mem::take(&mut self.state.stage) {
            Stage::Verifying { work } if observed == Some(ticket) => {
                if summary.health == Health::Healthy {
                    self.commit(work);
                } else {
                    self.state.stage = Stage::Verifying {
                        work: Work {
                            cause: summary.cause,
                            ..work
                        },
                    };
                }
            }
            other => self.state.stage = other,
        }
    }

    fn deadline_reached(&mut self, ticket: Ticket) {
        let cause = self.state.cause().cloned();
        let work = match &mut self.state.stage {
            Stage::Fetching { work, .. }
            | Stage::WaitingForKubernetes { work }
            | Stage::Applying { work, .. }
            | Stage::Verifying { work } => work,
            Stage::Idle | Stage::Committed { .. } | Stage::Failed { .. } => return,
        };
        if work.deadline != Some(ticket) {
            return;
        }
        work.deadline = None;
        work.late = true;
        let generation = work.document.generation;
        let seconds = work.document.ready_deadline_seconds;
        let problem = cause.unwrap_or_else(|| {
            Problem::new(
                codes::NOT_READY_IN_TIME,
                format!("the apps of document {generation} are not ready after {seconds} s"),
                "look at the apps' causes; a longer policy.readyDeadlineSeconds gives them more time",
            )
        });
        work.cause.get_or_insert_with(|| problem.clone());
        self.report(
            EventKind::DocumentFailed,
            Severity::Alarm,
            format!(
                "document {generation} was not ready within {seconds} s: {}",
                problem.message
            ),
            Some(generation),
            Some(problem),
        );
    }

    fn retry_due(&mut self, ticket: Ticket) {
        match mem::take(&mut self.state.stage) {
            Stage::Fetching { work, wait } if wait == Wait::Pausing(ticket) => self.enter_fetching(work),
            Stage::Applying { work, wait } if wait == Wait::Pausing(ticket) => self.enter_waiting(work),
            other => {
                self.state.stage = other;
                self.correction_pause_over(ticket);
                self.observation_pause_over(ticket);
            }
        }
    }
}
