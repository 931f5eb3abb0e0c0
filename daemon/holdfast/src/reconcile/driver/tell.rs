//! What the driver tells of the machine's state after each step: progress for the status, figures, and a fight over an object.

use super::{DRIFT, Driver, FIGHT};
use crate::{
    codes,
    report::{Activity, Progress},
    telemetry::metrics::METRICS,
};
use holdfast_core::reconcile::{Correction, Stage, Ticket};
use holdfast_protocol::{Problem, document::FailurePolicy, report::GenerationStatus};
use jiff::Timestamp;

impl Driver {
    pub(super) fn tell(&self) {
        let upkeep = self.state.upkeep();
        self.tell_of_fights();
        let shown = upkeep.map(|upkeep| &upkeep.document).or(self.state.newest());
        let stage = self.state.stage();
        let progress = Progress {
            generation: GenerationStatus {
                until: self.until(),
                paused_until: self.paused_until(),
                ..self.state.generation_status()
            },
            activity: match stage {
                Stage::Fetching { .. } => Some(Activity::Fetching),
                Stage::Applying { .. } => Some(Activity::Applying),
                Stage::Verifying { .. } => Some(Activity::Verifying),
                _ => None,
            },
            fallback: stage
                .work()
                .filter(|work| {
                    work.begun && !work.proven && work.document.on_failure == FailurePolicy::RollBack
                })
                .and_then(|work| match &work.rollback {
                    Some(_) => Some(work.document.generation),
                    None => self.state.fallback().map(|fallback| fallback.generation),
                }),
            pause_reason: self.pause.as_ref().map(|pause| pause.reason.clone()),
            alone: shown
                .map(|document| document.isolated.iter().cloned().collect())
                .unwrap_or_default(),
            apps: shown
                .and_then(|document| self.known.get(&document.digest))
                .map(|known| known.apps.clone())
                .unwrap_or_default(),
        };
        if let Some(proven) = progress.generation.proven {
            METRICS
                .generation_proven
                .set(i64::try_from(proven.counter).unwrap_or(i64::MAX));
        }
        self.parts.progress.send_if_modified(|known| {
            let other = *known != progress;
            *known = progress;
            other
        });
    }

    /// When the present phase ends by itself.
    fn until(&self) -> Option<Timestamp> {
        let of = |ticket: Option<Ticket>| *self.until.get(&ticket?)?.borrow();
        match self.state.stage() {
            Stage::WaitingForWindow { gate: None, .. } => self.paused_until(),
            Stage::WaitingForWindow { gate, .. } => of(*gate),
            Stage::Verifying {
                stability: Some(ticket),
                ..
            } => of(Some(*ticket)),
            stage => of(stage.work().and_then(|work| work.deadline)),
        }
    }

    fn tell_of_fights(&self) {
        let conditions = &self.parts.recorder.conditions;
        match self.state.upkeep().map(|upkeep| &upkeep.correction) {
            Some(Correction::Running { keys, attempt, .. }) if *attempt >= FIGHT => {
                let names: Vec<_> = keys.iter().take(3).map(ToString::to_string).collect();
                let problem = Problem::new(
                    codes::DRIFT_FIGHT,
                    format!(
                        "something keeps changing what holdfast keeps putting back: {}",
                        names.join(", ")
                    ),
                    "find out what else manages the object (its managedFields name it), or leave that field out of the manifest",
                );
                conditions.set(DRIFT, problem, self.parts.recorder.floor.now());
            }
            Some(Correction::Resting) | None => conditions.clear(DRIFT),
            Some(_) => {}
        }
    }
}
