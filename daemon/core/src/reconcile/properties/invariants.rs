//! What must hold after each step.

use super::*;

impl Caller {
    /// The invariants.
    pub(super) fn check(&self) {
        let state = &self.state;
        assert_eq!(
            state.newest(),
            self.newest.as_ref().map(|newest| &newest.0),
            "the newest document is lost"
        );
        let writing = self
            .under_way
            .values()
            .filter(|kind| matches!(kind, Under::Apply | Under::Correct | Under::Switch))
            .count();
        assert!(writing <= 1, "two pieces of work write at once");
        let observation = state.upkeep().and_then(|upkeep| upkeep.observation);
        let pause = state.upkeep().and_then(|upkeep| upkeep.pause);
        let is_observed = observation.is_some_and(|ticket| self.is(ticket, Under::Observe))
            || pause.is_some_and(|ticket| self.is(ticket, Under::Retry));
        let way_on = match state.stage() {
            Stage::Idle => self.newest.is_none(),
            Stage::Fetching { wait, .. } => match wait {
                Wait::Running(ticket) => self.is(*ticket, Under::Fetch),
                Wait::Pausing(ticket) => self.is(*ticket, Under::Retry),
            },
            Stage::Preflight { wait, .. } => match wait {
                Wait::Running(ticket) => self.is(*ticket, Under::Preflight),
                Wait::Pausing(ticket) => self.is(*ticket, Under::Retry),
            },
            Stage::StagingOs { wait, .. } => match wait {
                Wait::Running(ticket) => self.is(*ticket, Under::StageOs),
                Wait::Pausing(ticket) => self.is(*ticket, Under::Retry),
            },
            Stage::SwitchingOs { work, wait } => match wait {
                Wait::Running(ticket) if work.rollback.is_some() => self.is(*ticket, Under::RestoreOs),
                Wait::Running(ticket) => self.is(*ticket, Under::SwitchOs),
                Wait::Pausing(ticket) => self.is(*ticket, Under::Retry),
            },
            Stage::WaitingForWindow { gate, .. } => match gate {
                Some(ticket) => self.is(*ticket, Under::Gate),
                None => self.paused,
            },
            Stage::SwitchingKubernetes { wait, .. } => match wait {
                Wait::Running(ticket) => self.is(*ticket, Under::Switch),
                Wait::Pausing(ticket) => self.is(*ticket, Under::Retry),
            },
            Stage::WaitingForKubernetes { .. } => !self.kubernetes,
            Stage::Applying { wait, .. } => {
                self.kubernetes
                    && match wait {
                        Wait::Running(ticket) => self.is(*ticket, Under::Apply),
                        Wait::Pausing(ticket) => self.is(*ticket, Under::Retry),
                    }
            }
            Stage::Verifying { work, stability } => {
                self.kubernetes
                    && is_observed
                    && stability.is_none_or(|ticket| self.is(ticket, Under::Stability))
                    && state
                        .upkeep()
                        .is_some_and(|upkeep| upkeep.document == work.document)
            }
            Stage::Committed { .. } => !self.kubernetes || is_observed,
            Stage::Failed { .. } | Stage::RolledBack { .. } => {
                !self.kubernetes || is_observed || state.upkeep().is_none()
            }
        };
        if let Some(work) = state.stage().work().filter(|work| work.begun) {
            let runs = work
                .deadline
                .is_some_and(|ticket| self.is(ticket, Under::Deadline));
            let between_systems = matches!(state.stage(), Stage::SwitchingOs { .. });
            assert!(
                runs != between_systems || work.late || work.overdue || work.proven,
                "a deadline runs, or none does: {work:#?}"
            );
            assert!(
                !work.late || work.rollback.is_some() || state.way_back_of(work).is_none(),
                "a document that is too late stays though there is something to go back to"
            );
        }
        if let Some(fallback) = state.fallback() {
            assert!(
                !self.gone_back.contains(&fallback.digest),
                "what was gone back from is gone back to"
            );
        }
        assert!(way_on, "no way on from {state:#?} with {:?}", self.under_way);
        if let Some(upkeep) = state.upkeep() {
            let under_way = match &upkeep.correction {
                Correction::Resting => {
                    let held = matches!(
                        state.stage(),
                        Stage::SwitchingKubernetes { .. }
                            | Stage::Applying {
                                wait: Wait::Running(_),
                                ..
                            }
                    ) || matches!(state.stage(), Stage::SwitchingOs { work, .. } if work.rollback.is_some());
                    upkeep.drifted.is_empty() || !self.kubernetes || held || self.paused
                }
                Correction::Running { ticket, .. } => self.is(*ticket, Under::Correct),
                Correction::Pausing { ticket, .. } => self.is(*ticket, Under::Retry),
            };
            assert!(under_way, "drift is forgotten: {upkeep:#?}");
            let mut known = upkeep.drifted.clone();
            if let Correction::Running { keys, .. } = &upkeep.correction {
                known.extend(keys.iter().cloned());
            }
            assert!(
                self.drifted.is_subset(&known),
                "{:?} drifted, {known:?} is known",
                self.drifted
            );
        }
        let timers = self
            .under_way
            .values()
            .filter(|kind| **kind == Under::Deadline)
            .count();
        assert!(timers <= 1, "deadlines pile up");
        assert!(self.under_way.len() <= 6, "work piles up: {:?}", self.under_way);
    }
}
