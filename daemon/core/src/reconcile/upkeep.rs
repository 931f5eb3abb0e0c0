//! Upkeep: the document applied last is observed, and its objects are put back when they drift.

use super::{Correction, DocumentRef, Effect, Report, Stage, Ticket, Upkeep, Wait, machine::Machine};
use crate::{failure::Failure, object::ObjectKey, readiness::IsolatedApp};
use holdfast_protocol::{
    Generation, Problem,
    document::DriftPolicy,
    event::{EventKind, Severity},
};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, mem};

/// The most objects that one report names.
const MAX_REPORTED_OBJECTS: usize = 20;

impl Machine<'_> {
    /// A correction of drift ended.
    pub(super) fn objects_applied(&mut self, ticket: Ticket, failures: Vec<Failure>) {
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

    pub(super) fn correction_pause_over(&mut self, ticket: Ticket) {
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        match upkeep.correction {
            Correction::Pausing {
                ticket: pausing,
                attempt,
            } if pausing == ticket => {
                upkeep.correction = Correction::Resting;
                if upkeep.drifted.is_empty() {
                    upkeep.recent.clear();
                }
                self.correct_again(attempt);
            }
            _ => {}
        }
    }

    pub(super) fn drift_detected(&mut self, keys: Vec<ObjectKey>) {
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
                self.correct_others();
            }
        }
    }

    /// Within the pause after a correction: objects that were not put back in this series have nothing to wait for.
    fn correct_others(&mut self) {
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        let Correction::Pausing { ticket, attempt } = upkeep.correction else {
            return;
        };
        let (others, waiting): (BTreeSet<_>, BTreeSet<_>) = mem::take(&mut upkeep.drifted)
            .into_iter()
            .partition(|key| !upkeep.recent.contains(key));
        if others.is_empty() {
            upkeep.drifted = waiting;
            return;
        }
        upkeep.drifted = others;
        upkeep.correction = Correction::Resting;
        self.cancel(ticket);
        // The pause begins anew after it, no longer than it was: an object is another one only once in a series.
        self.correct_again(attempt.saturating_sub(1));
        if let Some(upkeep) = self.state.upkeep.as_mut() {
            upkeep.drifted.extend(waiting);
        }
    }

    /// Begins to observe what was applied, in place of an observation that runs or is to be tried again.
    pub(super) fn observe(&mut self) {
        if !self.state.kubernetes_ready {
            return;
        }
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        // The present one ends when this takes its place.
        if let Some(pause) = upkeep.pause.take() {
            self.cancel(pause);
        }
        let ticket = self.ticket();
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        upkeep.observation = Some(ticket);
        self.effects.push(Effect::Verify {
            ticket,
            document: upkeep.document.clone(),
            recheck: upkeep.recheck,
        });
    }

    /// Ends the observation, or the pause before the next attempt to begin one.
    pub(super) fn stop_observation(&mut self) {
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        let tickets = [upkeep.observation.take(), upkeep.pause.take()];
        for ticket in tickets.into_iter().flatten() {
            self.cancel(ticket);
        }
    }

    /// An observation could not begin, or ended: it is tried again without end.
    pub(super) fn observation_failed(&mut self, ticket: Ticket, failure: Failure) {
        let Some(upkeep) = self
            .state
            .upkeep
            .as_mut()
            .filter(|upkeep| upkeep.observation == Some(ticket))
        else {
            return;
        };
        upkeep.observation = None;
        let attempt = upkeep.attempt;
        upkeep.attempt = attempt.saturating_add(1);
        let generation = upkeep.document.generation;
        if attempt == 0 {
            self.report(
                EventKind::Problem,
                Severity::Warning,
                format!(
                    "the objects of document {generation} cannot be observed: {}",
                    failure.problem.message
                ),
                Some(generation),
                Some(failure.problem.clone()),
            );
        }
        if let Stage::Verifying { work, .. } = &mut self.state.stage {
            work.cause = Some(failure.problem);
        }
        let ticket = self.schedule_retry(attempt);
        if let Some(upkeep) = self.state.upkeep.as_mut() {
            upkeep.pause = Some(ticket);
        }
    }

    pub(super) fn observation_pause_over(&mut self, ticket: Ticket) {
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        if upkeep.pause == Some(ticket) {
            upkeep.pause = None;
            self.observe();
        }
    }

    /// Puts drifted objects back, unless that goes on already, a whole run over the document is about to do it, or changes are paused.
    pub(super) fn correct(&mut self) {
        self.correct_again(0);
    }

    pub(super) fn correct_again(&mut self, attempt: u32) {
        let held = self.state.paused
            || matches!(
                self.state.stage,
                Stage::SwitchingKubernetes { .. }
                    | Stage::Applying {
                        wait: Wait::Running(_),
                        ..
                    }
            )
            // Before the document that is gone back to is written, its datastore may come back.
            || matches!(&self.state.stage, Stage::SwitchingOs { work, .. } if work.rollback.is_some());
        let due = self
            .state
            .upkeep
            .as_ref()
            .is_some_and(|upkeep| !upkeep.drifted.is_empty() && upkeep.correction == Correction::Resting);
        if !due || held || !self.state.kubernetes_ready {
            return;
        }
        let ticket = self.ticket();
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        let keys = mem::take(&mut upkeep.drifted);
        upkeep.recent.extend(keys.iter().cloned());
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
    pub(super) fn stop_correction(&mut self) {
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        upkeep.recent.clear();
        match mem::take(&mut upkeep.correction) {
            Correction::Resting => {}
            Correction::Running { ticket, keys, .. } => {
                upkeep.drifted.extend(keys);
                self.cancel(ticket);
            }
            Correction::Pausing { ticket, .. } => self.cancel(ticket),
        }
    }

    /// Objects of apps that may fail alone were not written: they are put back like drifted ones, and hold nothing up.
    pub(super) fn failed_alone(&mut self, failures: Vec<Failure>) {
        for failure in failures {
            if let (Some(upkeep), Some(key)) = (&mut self.state.upkeep, failure.key) {
                upkeep.drifted.insert(key);
            }
            if let Some(app) = failure.app {
                self.tell_failed_alone(&app, Some(failure.problem));
            }
        }
    }

    /// Tells once a document that an app failed alone.
    pub(super) fn tell_failed_alone(&mut self, app: &str, problem: Option<Problem>) {
        let Some(upkeep) = self.state.upkeep.as_mut() else {
            return;
        };
        if !upkeep.told.insert(app.to_owned()) {
            return;
        }
        let generation = upkeep.document.generation;
        let mut details = Map::new();
        details.insert("app".into(), app.into());
        self.effects.push(Effect::Report(Report {
            kind: EventKind::AppFailed,
            severity: Severity::Alarm,
            message: format!(
                "app {app} of document {generation} failed alone: {}",
                problem
                    .as_ref()
                    .map_or("nothing was seen of it yet", |problem| &*problem.message)
            ),
            generation: Some(generation),
            problem,
            details,
        }));
    }

    /// Tells of the apps that may fail alone and are not healthy when their document is good without them; gives their names.
    pub(super) fn tell_unready(&mut self) -> Vec<String> {
        let unready = self
            .state
            .upkeep
            .as_ref()
            .map(|upkeep| upkeep.unready.clone())
            .unwrap_or_default();
        let tell = |app: IsolatedApp| {
            self.tell_failed_alone(&app.name, app.cause);
            app.name
        };
        unready.into_iter().map(tell).collect()
    }

    pub(super) fn report_objects(
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

impl Upkeep {
    pub(super) const fn of(document: DocumentRef, recheck: bool) -> Self {
        Self {
            document,
            observation: None,
            pause: None,
            attempt: 0,
            recheck,
            drifted: BTreeSet::new(),
            correction: Correction::Resting,
            recent: BTreeSet::new(),
            told: BTreeSet::new(),
            unready: Vec::new(),
        }
    }
}
