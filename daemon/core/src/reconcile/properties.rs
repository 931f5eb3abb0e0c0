//! What holds for every sequence of events: a random caller drives the machine, keeps its book of what is under way, and checks
//! after each step that nothing was lost and that there is a way on.

use super::{
    tests::{document, failure, key, lost, restarted, summary, with_blob},
    *,
};
use crate::failure::Failure;
use holdfast_protocol::{Digest, document::DriftPolicy, report::Health};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What the random caller may do next. Numbers choose among what is under way.
#[derive(Clone, Copy, Debug)]
enum Move {
    Accept { blobs: bool, report_only: bool },
    Ready,
    Lost,
    Answer { which: usize, kind: u8 },
    Stale { which: usize },
    Drift { name: u8 },
    Kill,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        2 => (any::<bool>(), any::<bool>()).prop_map(|(blobs, report_only)| Move::Accept { blobs, report_only }),
        2 => Just(Move::Ready),
        1 => Just(Move::Lost),
        8 => (any::<usize>(), any::<u8>()).prop_map(|(which, kind)| Move::Answer { which, kind }),
        1 => any::<usize>().prop_map(|which| Move::Stale { which }),
        2 => (0_u8..4).prop_map(|name| Move::Drift { name }),
        1 => Just(Move::Kill),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Under {
    Fetch,
    Apply,
    Correct,
    Observe,
    Retry,
    Deadline,
}

/// The caller: what is under way, and what a store would have on its disk.
#[derive(Default)]
struct Caller {
    state: State,
    under_way: BTreeMap<Ticket, Under>,
    ended: Vec<Ticket>,
    newest: Option<(DocumentRef, JournalStep)>,
    applied: Option<DocumentRef>,
    proven: Option<Generation>,
    applying: Option<DocumentRef>,
    failed: Vec<Digest>,
    /// Objects that someone changed and nobody has put back.
    drifted: BTreeSet<ObjectKey>,
    correcting: BTreeSet<ObjectKey>,
    kept_up: Option<Digest>,
    kubernetes: bool,
    accepted: u64,
}

impl Caller {
    fn started() -> Self {
        let mut caller = Self::default();
        caller.send(restarted(None, None));
        caller
    }

    fn send(&mut self, event: Event) {
        let effects = self.state.step(event).expect("the caller keeps the contract");
        for effect in effects {
            self.carry_out(effect);
        }
        self.check();
    }

    fn carry_out(&mut self, effect: Effect) {
        let (ticket, kind) = match effect {
            Effect::FetchBlobs { ticket, .. } => (ticket, Under::Fetch),
            Effect::Apply { ticket, document } => {
                assert!(
                    !self.failed.contains(&document.digest),
                    "a failed document is applied again"
                );
                // Another document is written as a whole.
                if self.kept_up.replace(document.digest) != Some(document.digest) {
                    self.drifted.clear();
                }
                self.applying = Some(document);
                (ticket, Under::Apply)
            }
            Effect::ApplyObjects { ticket, keys, .. } => {
                assert!(!keys.is_empty());
                self.correcting = keys;
                (ticket, Under::Correct)
            }
            Effect::Verify { ticket, .. } => (ticket, Under::Observe),
            Effect::ScheduleRetry { ticket, .. } => (ticket, Under::Retry),
            Effect::ScheduleDeadline { ticket, .. } => (ticket, Under::Deadline),
            Effect::Preflight { .. }
            | Effect::AwaitGate { .. }
            | Effect::SwitchKubernetes { .. }
            | Effect::RestoreKubernetes { .. }
            | Effect::ScheduleStability { .. } => return,
            Effect::Cancel { ticket } => {
                self.under_way.remove(&ticket);
                self.ended.push(ticket);
                return;
            }
            Effect::Journal { document, step } => {
                assert_eq!(self.newest.as_ref().map(|newest| &newest.0), Some(&document));
                self.failed.push(document.digest);
                self.newest = Some((document, step));
                return;
            }
            Effect::Commit { document } => {
                assert_eq!(self.newest.as_ref().map(|newest| &newest.0), Some(&document));
                self.proven = Some(document.generation);
                self.newest = Some((document, JournalStep::Proven));
                return;
            }
            Effect::Report(_) => return,
        };
        assert_eq!(
            self.under_way.insert(ticket, kind),
            None,
            "a ticket is given out twice"
        );
    }

    fn is(&self, ticket: Ticket, kind: Under) -> bool {
        self.under_way.get(&ticket) == Some(&kind)
    }

    /// The invariants.
    fn check(&self) {
        let state = &self.state;
        assert_eq!(
            state.newest(),
            self.newest.as_ref().map(|newest| &newest.0),
            "the newest document is lost"
        );
        let writing = self
            .under_way
            .values()
            .filter(|kind| matches!(kind, Under::Apply | Under::Correct))
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
            Stage::WaitingForKubernetes { .. } => !self.kubernetes,
            Stage::Applying { wait, .. } => {
                self.kubernetes
                    && match wait {
                        Wait::Running(ticket) => self.is(*ticket, Under::Apply),
                        Wait::Pausing(ticket) => self.is(*ticket, Under::Retry),
                    }
            }
            Stage::Verifying { work } => {
                self.kubernetes
                    && is_observed
                    && state
                        .upkeep()
                        .is_some_and(|upkeep| upkeep.document == work.document)
            }
            Stage::Committed { .. } => !self.kubernetes || is_observed,
            Stage::Failed { .. } => !self.kubernetes || is_observed || state.upkeep().is_none(),
        };
        assert!(way_on, "no way on from {state:#?} with {:?}", self.under_way);
        if let Some(upkeep) = state.upkeep() {
            let under_way = match &upkeep.correction {
                Correction::Resting => {
                    let running = matches!(
                        state.stage(),
                        Stage::Applying {
                            wait: Wait::Running(_),
                            ..
                        }
                    );
                    upkeep.drifted.is_empty() || !self.kubernetes || running
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

    fn answer(&mut self, ticket: Ticket, kind: u8) {
        let Some(under) = self.under_way.get(&ticket).copied() else {
            return;
        };
        let ends = under != Under::Observe || kind >= 240;
        if ends {
            self.under_way.remove(&ticket);
            self.ended.push(ticket);
        }
        let event = match under {
            Under::Fetch if kind < 128 => Event::BlobsReady { ticket },
            Under::Fetch => Event::BlobsFailed {
                ticket,
                failure: failure(kind < 250),
            },
            Under::Apply | Under::Correct => {
                let failures = match kind {
                    0..128 => vec![],
                    128..240 => vec![failure_of(under, true)],
                    _ => vec![failure_of(under, false)],
                };
                if under == Under::Apply && failures.is_empty() {
                    self.applied.clone_from(&self.applying);
                    if let (Some((_, step)), true) = (
                        &mut self.newest,
                        self.applying.as_ref().map(|document| document.digest)
                            == self.state.newest().map(|document| document.digest),
                    ) {
                        *step = JournalStep::Applied;
                    }
                }
                if under == Under::Correct && failures.is_empty() {
                    for key in &self.correcting {
                        self.drifted.remove(key);
                    }
                }
                Event::ApplyFinished { ticket, failures }
            }
            Under::Observe if ends => Event::ObservationFailed {
                ticket,
                failure: failure(kind < 250),
            },
            Under::Observe => Event::ReadinessChanged {
                ticket,
                summary: summary(match kind {
                    0..128 => Health::Healthy,
                    128..200 => Health::Progressing,
                    _ => Health::Degraded,
                }),
            },
            Under::Retry => Event::RetryDue { ticket },
            Under::Deadline => Event::DeadlineReached { ticket },
        };
        self.send(event);
    }

    fn play(&mut self, step: Move) {
        match step {
            Move::Accept { blobs, report_only } => {
                self.accepted += 1;
                let mut document = if blobs {
                    with_blob(self.accepted)
                } else {
                    document(self.accepted)
                };
                if report_only {
                    document.drift = DriftPolicy::Report;
                }
                self.newest = Some((document.clone(), JournalStep::Accepted));
                self.send(Event::DocumentAccepted(document));
            }
            Move::Ready => {
                self.kubernetes = true;
                self.send(Event::KubernetesReady);
            }
            Move::Lost => {
                self.kubernetes = false;
                self.send(lost());
            }
            Move::Answer { which, kind } => {
                let tickets: Vec<_> = self.under_way.keys().copied().collect();
                if let Some(ticket) = tickets.get(which % tickets.len().max(1)) {
                    self.answer(*ticket, kind);
                }
            }
            Move::Stale { which } => {
                if let Some(ticket) = self.ended.get(which % self.ended.len().max(1)).copied() {
                    let before = self.state.clone();
                    for event in [
                        Event::BlobsReady { ticket },
                        Event::RetryDue { ticket },
                        Event::DeadlineReached { ticket },
                        Event::ApplyFinished {
                            ticket,
                            failures: vec![],
                        },
                    ] {
                        self.send(event);
                    }
                    assert_eq!(self.state, before, "an answer that was overtaken has an effect");
                }
            }
            Move::Drift { name } => {
                let key = key(&name.to_string());
                if self
                    .state
                    .upkeep()
                    .is_some_and(|upkeep| upkeep.document.drift == DriftPolicy::Correct)
                {
                    self.drifted.insert(key.clone());
                }
                self.send(Event::DriftDetected { keys: vec![key] });
            }
            Move::Kill => {
                // All that was under way is gone; the store is what is left.
                self.state = State::default();
                self.under_way.clear();
                self.ended.clear();
                self.drifted.clear();
                self.kept_up = None;
                self.kubernetes = false;
                let event = Event::Restarted {
                    newest: self.newest.clone(),
                    applied: self.applied.clone(),
                    proven: self.proven,
                    fallback: None,
                    paused: false,
                };
                self.send(event);
            }
        }
    }

    /// A world in which everything works: the newest document must come to its end in a bounded number of steps.
    fn settle(&mut self) {
        self.play(Move::Ready);
        for _ in 0..50 {
            if matches!(
                self.state.stage(),
                Stage::Idle | Stage::Committed { .. } | Stage::Failed { .. }
            ) {
                return;
            }
            let ticket = self
                .under_way
                .iter()
                .find(|(_, kind)| **kind != Under::Deadline)
                .map(|(ticket, _)| *ticket);
            // Observations answer again and again; the rest comes first.
            let next = self
                .under_way
                .iter()
                .find(|(_, kind)| !matches!(kind, Under::Deadline | Under::Observe))
                .map(|(ticket, _)| *ticket)
                .or(ticket)
                .expect("something is under way");
            self.answer(next, 0);
        }
        panic!("no end is reached from {:#?}", self.state);
    }
}

/// A failure of one object, or, of a correction, of all its objects.
fn failure_of(under: Under, retryable: bool) -> Failure {
    match under {
        Under::Correct => Failure::of_document(failure(retryable).problem, retryable),
        _ => failure(retryable),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_sequence_of_events_loses_the_newest_document_or_the_way_on(
        steps in prop::collection::vec(moves(), 0..60)
    ) {
        let mut caller = Caller::started();
        for step in steps {
            caller.play(step);
        }
        caller.settle();
        let failed = caller.newest.as_ref().is_some_and(|(document, _)| caller.failed.contains(&document.digest));
        let expected = match (&caller.newest, failed) {
            (None, _) => Phase::Idle,
            (Some(_), true) => Phase::Failed,
            (Some(_), false) => Phase::Committed,
        };
        prop_assert_eq!(caller.state.phase(), expected);
    }
}
