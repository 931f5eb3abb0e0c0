//! What the driver tells of the machine's state after each step: progress for the status, figures, and a fight over an object.

use super::{DRIFT, Driver, FIGHT};
use crate::{codes, report::Progress, telemetry::metrics::METRICS};
use holdfast_core::reconcile::Correction;
use holdfast_protocol::Problem;

impl Driver {
    pub(super) fn tell(&self) {
        let upkeep = self.state.upkeep();
        self.tell_of_fights();
        let shown = upkeep.map(|upkeep| &upkeep.document).or(self.state.newest());
        let progress = Progress {
            generation: self.state.generation_status(),
            apps: shown
                .and_then(|document| self.apps.get(&document.digest))
                .cloned()
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
