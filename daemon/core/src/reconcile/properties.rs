//! What holds for every sequence of events: a random caller drives the machine, keeps its book of what is under way, and checks
//! after each step that nothing was lost and that there is a way on.

mod answers;
mod effects;
mod invariants;

use super::{
    fixtures::{document, failure, key, lost, restarted, summary, with_blob, with_os},
    *,
};
use holdfast_protocol::{
    Digest,
    document::{DriftPolicy, FailurePolicy},
    report::Health,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What the random caller may do next. Numbers choose among what is under way.
#[derive(Clone, Copy, Debug)]
enum Move {
    Accept {
        blobs: bool,
        report_only: bool,
        stays: bool,
        isolate: bool,
        alone: bool,
        os: u8,
    },
    Pause,
    Resume,
    RollBack {
        which: usize,
    },
    Ready,
    Lost,
    Answer {
        which: usize,
        kind: u8,
    },
    Stale {
        which: usize,
    },
    Drift {
        name: u8,
    },
    Kill {
        seconds: Option<u32>,
        reboots: bool,
    },
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        2 => (any::<[bool; 5]>(), 0_u8..6).prop_map(|([blobs, report_only, stays, isolate, alone], os)| {
            Move::Accept { blobs, report_only, stays, isolate, alone, os }
        }),
        1 => Just(Move::Pause),
        1 => Just(Move::Resume),
        1 => any::<usize>().prop_map(|which| Move::RollBack { which }),
        2 => Just(Move::Ready),
        1 => Just(Move::Lost),
        16 => (any::<usize>(), any::<u8>()).prop_map(|(which, kind)| Move::Answer { which, kind }),
        1 => any::<usize>().prop_map(|which| Move::Stale { which }),
        2 => (0_u8..4).prop_map(|name| Move::Drift { name }),
        1 => (prop::option::of(0_u32..2), any::<bool>()).prop_map(|(seconds, reboots)| Move::Kill { seconds, reboots }),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Under {
    Fetch,
    Preflight,
    Gate,
    StageOs,
    SwitchOs,
    RestoreOs,
    Switch,
    Apply,
    Correct,
    Observe,
    Retry,
    Deadline,
    Stability,
}

/// The caller: what is under way, and what a store would have on its disk.
#[derive(Default)]
struct Caller {
    state: State,
    under_way: BTreeMap<Ticket, Under>,
    ended: Vec<Ticket>,
    newest: Option<(DocumentRef, JournalStep)>,
    applied: Option<DocumentRef>,
    proven: Vec<DocumentRef>,
    applying: Option<DocumentRef>,
    /// Documents that failed, which are not to be applied again.
    failed: Vec<Digest>,
    /// Documents that were gone back from, of which not even an object is to be written again.
    gone_back: Vec<Digest>,
    /// The document that has passed the gate.
    begun: Option<Digest>,
    paused: bool,
    /// The operating system that runs, on boxes whose documents decide it.
    os: Option<String>,
    /// What a restart of the box would bring up.
    next_os: Option<String>,
    /// Objects that someone changed and nobody has put back.
    drifted: BTreeSet<ObjectKey>,
    correcting: BTreeSet<ObjectKey>,
    kept_up: Option<Digest>,
    kubernetes: bool,
    accepted: u64,
}

impl Caller {
    fn started(os: Option<String>) -> Self {
        let mut caller = Self {
            os: os.clone(),
            ..Self::default()
        };
        let Event::Restarted {
            newest,
            applied,
            proven,
            fallback,
            paused,
            deadline_seconds,
            ..
        } = restarted(None, None)
        else {
            unreachable!("it is one");
        };
        caller.send(Event::Restarted {
            newest,
            applied,
            proven,
            fallback,
            paused,
            os,
            deadline_seconds,
        });
        caller
    }

    fn send(&mut self, event: Event) {
        let effects = self.state.step(event).expect("the caller keeps the contract");
        for effect in effects {
            self.carry_out(effect);
        }
        self.check();
    }

    /// What the store would name as the document to go back to.
    fn fallback(&self) -> Option<DocumentRef> {
        let (newest, step) = self.newest.as_ref()?;
        match step {
            JournalStep::RollingBack { to, .. } | JournalStep::RolledBack { to, .. } => self
                .proven
                .iter()
                .find(|proven| proven.generation == *to)
                .cloned(),
            _ => self
                .proven
                .iter()
                .rfind(|proven| proven.generation < newest.generation)
                .cloned(),
        }
    }

    fn is(&self, ticket: Ticket, kind: Under) -> bool {
        self.under_way.get(&ticket) == Some(&kind)
    }

    fn play(&mut self, step: Move) {
        match step {
            Move::Accept {
                blobs,
                report_only,
                stays,
                isolate,
                alone,
                os,
            } => {
                self.accepted += 1;
                let mut document = if blobs {
                    with_blob(self.accepted)
                } else {
                    document(self.accepted)
                };
                if report_only {
                    document.drift = DriftPolicy::Report;
                }
                document.stability_seconds = u32::from(stays) * 60;
                if isolate {
                    document.on_failure = FailurePolicy::Isolate;
                }
                if os < 3 {
                    document.os = with_os(self.accepted, &format!("{os}")).os;
                }
                if alone {
                    document.isolated.insert("alone".into());
                }
                self.newest = Some((document.clone(), JournalStep::Accepted));
                self.send(Event::DocumentAccepted(document));
            }
            Move::Pause => {
                self.paused = true;
                self.send(Event::Paused);
            }
            Move::Resume => {
                self.paused = false;
                self.send(Event::Resumed);
            }
            Move::RollBack { which } => {
                let newest = self.newest.as_ref().map(|(newest, _)| newest.generation);
                let earlier: Vec<_> = self
                    .proven
                    .iter()
                    .filter(|proven| Some(proven.generation) < newest)
                    .cloned()
                    .collect();
                if let Some(to) = earlier.get(which % earlier.len().max(1)) {
                    self.send(Event::RollBackRequested {
                        to: to.clone(),
                        problem: failure(false).problem,
                    });
                }
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
                        Event::PreflightPassed { ticket },
                        Event::GateOpened { ticket },
                        Event::OsStaged { ticket },
                        Event::OsSwitched { ticket },
                        Event::KubernetesSwitched { ticket },
                        Event::StabilityReached { ticket },
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
            Move::Kill { seconds, reboots } => {
                if reboots && self.os.is_some() && self.next_os.is_some() {
                    self.os = self.next_os.take();
                }
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
                    proven: self.proven.iter().map(|proven| proven.generation).max(),
                    fallback: self.fallback(),
                    paused: self.paused,
                    os: self.os.clone(),
                    deadline_seconds: seconds,
                };
                let begun = |(newest, step): &(DocumentRef, JournalStep)| {
                    (*step != JournalStep::Accepted).then_some(newest.digest)
                };
                self.begun = self.newest.as_ref().and_then(begun);
                self.send(event);
            }
        }
    }

    /// A world in which everything works: the newest document must come to its end in a bounded number of steps.
    fn settle(&mut self) {
        self.play(Move::Resume);
        self.play(Move::Ready);
        for _ in 0..50 {
            if self.state.stage().work().is_none() {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_sequence_of_events_loses_the_newest_document_or_the_way_on(
        steps in prop::collection::vec(moves(), 0..90),
        is_image: bool,
    ) {
        let mut caller = Caller::started(is_image.then(|| "0".into()));
        for step in steps {
            caller.play(step);
        }
        caller.settle();
        let (expected, runs) = match &caller.newest {
            None => (Phase::Idle, None),
            Some((_, JournalStep::Failed { .. })) => (Phase::Failed, None),
            Some((_, JournalStep::RolledBack { to, .. })) => (Phase::RolledBack, Some(*to)),
            Some((newest, _)) => (Phase::Committed, Some(newest.generation)),
        };
        if let Some(runs) = runs {
            prop_assert_eq!(caller.state.generation_status().running, Some(runs));
            prop_assert_eq!(caller.applied.map(|applied| applied.generation), Some(runs));
        }
        prop_assert_eq!(caller.state.phase(), expected);
    }
}
