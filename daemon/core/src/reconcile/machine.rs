//! The transitions of the reconcile machine, each a function with its name.

use super::{
    Correction, DocumentRef, Effect, Event, IllegalTransition, JournalStep, Report, Stage, State, Ticket,
    Upkeep, Wait, Work,
};
use crate::{codes, failure::Failure, object::ObjectKey, readiness::Summary};
use holdfast_protocol::{
    Generation, Problem,
    document::DriftPolicy,
    event::{EventKind, Severity},
    report::Health,
};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, mem};

/// The most objects that one report names.
const MAX_REPORTED_OBJECTS: usize = 20;

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
        } => machine.restart(newest, applied, proven),
        Event::DocumentAccepted(document) => machine.accept(document),
        Event::BlobsReady { ticket } => machine.blobs_ready(ticket),
        Event::BlobsFailed { ticket, failure } => machine.blobs_failed(ticket, failure),
        Event::KubernetesReady => machine.kubernetes_ready(),
        Event::KubernetesLost { problem } => machine.kubernetes_lost(problem),
        Event::ApplyFinished { ticket, failures } => machine.apply_finished(ticket, failures),
        Event::ReadinessChanged { ticket, summary } => machine.readiness_changed(ticket, summary),
        Event::DeadlineReached { ticket } => machine.deadline_reached(ticket),
        Event::RetryDue { ticket } => machine.retry_due(ticket),
        Event::DriftDetected { keys } => machine.drift_detected(keys),
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
        Event::DeadlineReached { ticket } => ("deadline reached", Some(*ticket)),
        Event::RetryDue { ticket } => ("retry due", Some(*ticket)),
        Event::DriftDetected { .. } => ("drift detected", None),
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

struct Machine<'a> {
    state: &'a mut State,
    effects: Vec<Effect>,
}

impl Machine<'_> {
    fn ticket(&mut self) -> Ticket {
        self.state.last_ticket += 1;
        Ticket(self.state.last_ticket)
    }

    fn cancel(&mut self, ticket: Ticket) {
        self.effects.push(Effect::Cancel { ticket });
    }

    fn schedule_retry(&mut self, attempt: u32) -> Ticket {
        let ticket = self.ticket();
        self.effects.push(Effect::ScheduleRetry { ticket, attempt });
        ticket
    }

    fn report(
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
        if let Some(ticket) = self
            .state
            .upkeep
            .as_mut()
            .and_then(|upkeep| upkeep.observation.take())
        {
            self.cancel(ticket);
        }
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

    /// A correction of drift ended.
    fn objects_applied(&mut self, ticket: Ticket, failures: Vec<Failure>) {
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        let (keys, attempt) = match mem::take(&mut upkeep.correction) {
            Correction::Running {
                ticket: running,
                keys,
                attempt,
            } if running == ticket => (keys, attempt),
            other => {
                upkeep.correction = other;
                return;
            }
        };
        let whole = failures.iter().any(|failure| failure.key.is_none());
        let failed: BTreeSet<_> = failures
            .iter()
            .filter_map(|failure| failure.key.as_ref())
            .collect();
        let (left, corrected): (BTreeSet<_>, BTreeSet<_>) =
            keys.into_iter().partition(|key| whole || failed.contains(key));
        upkeep.drifted.extend(left);
        let generation = upkeep.document.generation;
        if !corrected.is_empty() {
            self.report_objects(EventKind::DriftCorrected, "put back", &corrected, generation);
        }
        // Only the first failure of a series is told; the next attempts say nothing new.
        if let Some(failure) = failures.into_iter().next().filter(|_| attempt == 0) {
            self.report(
                EventKind::Problem,
                Severity::Warning,
                format!("a changed object cannot be put back: {}", failure.problem.message),
                Some(generation),
                Some(failure.problem),
            );
        }
        let ticket = self.schedule_retry(attempt);
        if let Some(upkeep) = self.state.upkeep.as_mut() {
            upkeep.correction = Correction::Pausing {
                ticket,
                attempt: attempt.saturating_add(1),
            };
        }
    }

    fn readiness_changed(&mut self, ticket: Ticket, summary: Summary) {
        let observed = self.state.upkeep.as_ref().and_then(|upkeep| upkeep.observation);
        if let Some(upkeep) = &mut self.state.upkeep
            && upkeep.observation == Some(ticket)
        {
            upkeep.recheck = false;
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
            }
        }
    }

    fn correction_pause_over(&mut self, ticket: Ticket) {
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        match upkeep.correction {
            Correction::Pausing {
                ticket: pausing,
                attempt,
            } if pausing == ticket => {
                upkeep.correction = Correction::Resting;
                self.correct_again(attempt);
            }
            _ => {}
        }
    }

    fn drift_detected(&mut self, keys: Vec<ObjectKey>) {
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        let generation = upkeep.document.generation;
        match upkeep.document.drift {
            DriftPolicy::Report => {
                let keys: BTreeSet<_> = keys.into_iter().collect();
                if !keys.is_empty() {
                    self.report_objects(EventKind::DriftSeen, "left changed by policy", &keys, generation);
                }
            }
            DriftPolicy::Correct => {
                upkeep.drifted.extend(keys);
                self.correct();
            }
        }
    }

    // Entries of stages.

    fn enter_fetching(&mut self, work: Work) {
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

    fn enter_waiting(&mut self, work: Work) {
        if !self.state.kubernetes_ready {
            self.state.stage = Stage::WaitingForKubernetes { work };
        } else if work.applied {
            self.enter_verifying(work);
        } else {
            self.enter_applying(work);
        }
    }

    fn enter_applying(&mut self, mut work: Work) {
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

    fn enter_verifying(&mut self, mut work: Work) {
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

    fn commit(&mut self, work: Work) {
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

    fn fail(&mut self, work: Work, problem: Problem, applying: bool) {
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
    fn pause(&mut self, work: Work, problem: Problem) -> (Work, Wait) {
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

    // Upkeep.

    /// Begins to observe what was applied, in place of an observation that runs.
    fn observe(&mut self) {
        if !self.state.kubernetes_ready || self.state.upkeep.is_none() {
            return;
        }
        let ticket = self.ticket();
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        if let Some(former) = upkeep.observation.replace(ticket) {
            self.effects.push(Effect::Cancel { ticket: former });
        }
        self.effects.push(Effect::Verify {
            ticket,
            document: upkeep.document.clone(),
            recheck: upkeep.recheck,
        });
    }

    /// Puts drifted objects back, unless that goes on already or a whole run over the document is about to do it.
    fn correct(&mut self) {
        self.correct_again(0);
    }

    fn correct_again(&mut self, attempt: u32) {
        let applying = matches!(
            self.state.stage,
            Stage::Applying {
                wait: Wait::Running(_),
                ..
            }
        );
        let due = self
            .state
            .upkeep
            .as_ref()
            .is_some_and(|upkeep| !upkeep.drifted.is_empty() && upkeep.correction == Correction::Resting);
        if !due || applying || !self.state.kubernetes_ready {
            return;
        }
        let ticket = self.ticket();
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        let keys = mem::take(&mut upkeep.drifted);
        self.effects.push(Effect::ApplyObjects {
            ticket,
            document: upkeep.document.clone(),
            keys: keys.clone(),
        });
        upkeep.correction = Correction::Running {
            ticket,
            keys,
            attempt,
        };
    }

    /// Stops putting objects back; those under way count as drifted again.
    fn stop_correction(&mut self) {
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        match mem::take(&mut upkeep.correction) {
            Correction::Resting => {}
            Correction::Running { ticket, keys, .. } => {
                upkeep.drifted.extend(keys);
                self.cancel(ticket);
            }
            Correction::Pausing { ticket, .. } => self.cancel(ticket),
        }
    }

    fn report_objects(
        &mut self,
        kind: EventKind,
        what: &str,
        keys: &BTreeSet<ObjectKey>,
        generation: Generation,
    ) {
        let first = keys.first().map(ToString::to_string).unwrap_or_default();
        let message = match keys.len() {
            1 => format!("{first} was changed or deleted by someone else: {what}"),
            count => format!(
                "{first} and {} more were changed or deleted by someone else: {what}",
                count - 1
            ),
        };
        let mut details = Map::new();
        details.insert("count".into(), keys.len().into());
        details.insert(
            "objects".into(),
            keys.iter()
                .take(MAX_REPORTED_OBJECTS)
                .map(|key| Value::from(key.to_string()))
                .collect(),
        );
        self.effects.push(Effect::Report(Report {
            kind,
            severity: Severity::Warning,
            message,
            generation: Some(generation),
            problem: None,
            details,
        }));
    }
}

impl Work {
    const fn of(document: DocumentRef) -> Self {
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

impl Upkeep {
    const fn of(document: DocumentRef, recheck: bool) -> Self {
        Self {
            document,
            observation: None,
            recheck,
            drifted: BTreeSet::new(),
            correction: Correction::Resting,
        }
    }
}
