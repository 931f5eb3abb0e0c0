//! Named scenarios of the machine.

use super::*;
use crate::{codes, failure::Failure, readiness::Summary};
use holdfast_protocol::{
    Digest,
    document::{BlobRef, DriftPolicy, FailurePolicy},
    event::EventKind,
    report::Health,
};

pub(super) fn document(counter: u64) -> DocumentRef {
    DocumentRef {
        generation: Generation { epoch: 1, counter },
        digest: Digest::of(&counter.to_be_bytes()),
        blobs: Vec::new(),
        ready_deadline_seconds: 600,
        drift: DriftPolicy::Correct,
        stability_seconds: 0,
        on_failure: FailurePolicy::RollBack,
        artifacts: Vec::new(),
        isolated: BTreeSet::new(),
    }
}

pub(super) fn with_blob(counter: u64) -> DocumentRef {
    DocumentRef {
        blobs: vec![BlobRef {
            digest: Digest::of(b"blob"),
            size: 4,
        }],
        ..document(counter)
    }
}

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        namespace: Some("default".into()),
        name: name.into(),
    }
}

pub(super) fn failure(retryable: bool) -> Failure {
    Failure {
        key: Some(key("a")),
        app: None,
        problem: Problem::new(codes::OBJECT_REFUSED, "a is refused", ""),
        retryable,
    }
}

pub(super) fn summary(health: Health) -> Summary {
    Summary {
        health,
        ready: 0,
        objects: 1,
        cause: (health != Health::Healthy)
            .then(|| Problem::new(codes::IMAGE_PULL_FAILED, "image can't be pulled: x", "")),
        isolated: Vec::new(),
    }
}

pub(super) fn lost() -> Event {
    Event::KubernetesLost {
        problem: Problem::new(codes::KUBERNETES_UNREACHABLE, "connection refused", ""),
    }
}

pub(super) fn restarted(newest: Option<(DocumentRef, JournalStep)>, applied: Option<DocumentRef>) -> Event {
    Event::Restarted {
        newest,
        applied,
        proven: None,
        fallback: None,
        paused: false,
    }
}

pub(super) fn fresh() -> State {
    let mut state = State::default();
    assert_eq!(state.step(restarted(None, None)), Ok(vec![]));
    state
}

pub(super) fn step(state: &mut State, event: Event) -> Vec<Effect> {
    state.step(event).expect("a legal event")
}

/// Answers checks, gate and switch well, as often as they are asked for; gives all effects.
pub(super) fn pass(state: &mut State, effects: Vec<Effect>) -> Vec<Effect> {
    let mut all = effects.clone();
    let mut last = effects;
    while let Some(event) = last.iter().find_map(|effect| match effect {
        Effect::Preflight { ticket, .. } => Some(Event::PreflightPassed { ticket: *ticket }),
        Effect::AwaitGate { ticket, .. } => Some(Event::GateOpened { ticket: *ticket }),
        Effect::SwitchKubernetes { ticket, .. } | Effect::RestoreKubernetes { ticket, .. } => {
            Some(Event::KubernetesSwitched { ticket: *ticket })
        }
        _ => None,
    }) {
        last = step(state, event);
        all.extend(last.clone());
    }
    all
}

/// Hands the document in and leads it through the gate.
pub(super) fn accept(state: &mut State, document: DocumentRef) -> Vec<Effect> {
    let effects = step(state, Event::DocumentAccepted(document));
    pass(state, effects)
}

/// The ticket of the first effect that `pick` knows.
pub(super) fn ticket(effects: &[Effect], pick: impl Fn(&Effect) -> Option<Ticket>) -> Ticket {
    effects
        .iter()
        .find_map(pick)
        .unwrap_or_else(|| panic!("the wanted effect is not among {effects:#?}"))
}

pub(super) fn apply(effects: &[Effect]) -> Ticket {
    ticket(effects, |effect| match effect {
        Effect::Apply { ticket, .. } => Some(*ticket),
        _ => None,
    })
}

pub(super) fn verify(effects: &[Effect]) -> Ticket {
    ticket(effects, |effect| match effect {
        Effect::Verify { ticket, .. } => Some(*ticket),
        _ => None,
    })
}

pub(super) fn fetch(effects: &[Effect]) -> Ticket {
    ticket(effects, |effect| match effect {
        Effect::FetchBlobs { ticket, .. } => Some(*ticket),
        _ => None,
    })
}

pub(super) fn retry(effects: &[Effect]) -> (Ticket, u32) {
    effects
        .iter()
        .find_map(|effect| match effect {
            Effect::ScheduleRetry { ticket, attempt } => Some((*ticket, *attempt)),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no retry among {effects:#?}"))
}

pub(super) fn deadline(effects: &[Effect]) -> Ticket {
    ticket(effects, |effect| match effect {
        Effect::ScheduleDeadline { ticket, .. } => Some(*ticket),
        _ => None,
    })
}

/// The ticket of a check, a gate or a switch.
pub(super) fn ticket_of(effects: &[Effect]) -> Ticket {
    ticket(effects, |effect| match effect {
        Effect::Preflight { ticket, .. }
        | Effect::AwaitGate { ticket, .. }
        | Effect::SwitchKubernetes { ticket, .. }
        | Effect::RestoreKubernetes { ticket, .. } => Some(*ticket),
        _ => None,
    })
}

pub(super) fn put_back(effects: &[Effect]) -> Option<(Ticket, BTreeSet<ObjectKey>)> {
    effects.iter().find_map(|effect| match effect {
        Effect::ApplyObjects { ticket, keys, .. } => Some((*ticket, keys.clone())),
        _ => None,
    })
}

pub(super) fn reports(effects: &[Effect]) -> Vec<EventKind> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Report(report) => Some(report.kind.clone()),
            _ => None,
        })
        .collect()
}

/// A state whose document is committed; gives the observation's ticket too.
pub(super) fn committed(document: DocumentRef) -> (State, Ticket) {
    let mut state = fresh();
    step(&mut state, Event::KubernetesReady);
    let effects = accept(&mut state, document);
    let effects = step(
        &mut state,
        Event::ApplyFinished {
            ticket: apply(&effects),
            failures: vec![],
        },
    );
    let observation = verify(&effects);
    step(
        &mut state,
        Event::ReadinessChanged {
            ticket: observation,
            summary: summary(Health::Healthy),
        },
    );
    assert_eq!(state.phase(), Phase::Committed);
    (state, observation)
}

#[test]
fn a_document_goes_from_acceptance_to_proof() {
    let mut state = fresh();
    assert_eq!(state.phase(), Phase::Idle);
    let effects = step(&mut state, Event::DocumentAccepted(with_blob(1)));
    assert_eq!(state.phase(), Phase::Fetching);
    let effects = step(
        &mut state,
        Event::BlobsReady {
            ticket: fetch(&effects),
        },
    );
    assert_eq!(state.phase(), Phase::Preflight);
    let effects = step(
        &mut state,
        Event::PreflightPassed {
            ticket: ticket_of(&effects),
        },
    );
    assert_eq!(state.phase(), Phase::WaitingForWindow);
    let effects = step(
        &mut state,
        Event::GateOpened {
            ticket: ticket_of(&effects),
        },
    );
    assert_eq!(state.phase(), Phase::SwitchingKubernetes);
    let deadline = deadline(&effects);
    let effects = step(
        &mut state,
        Event::KubernetesSwitched {
            ticket: ticket_of(&effects),
        },
    );
    assert_eq!(effects, vec![]);
    assert_eq!(state.phase(), Phase::WaitingForKubernetes);
    let effects = step(&mut state, Event::KubernetesReady);
    assert_eq!(state.phase(), Phase::Applying);
    let effects = step(
        &mut state,
        Event::ApplyFinished {
            ticket: apply(&effects),
            failures: vec![],
        },
    );
    assert_eq!(state.phase(), Phase::Verifying);
    assert_eq!(reports(&effects), [EventKind::DocumentApplied]);
    let observation = verify(&effects);
    let waiting = summary(Health::Progressing);
    step(
        &mut state,
        Event::ReadinessChanged {
            ticket: observation,
            summary: waiting.clone(),
        },
    );
    assert_eq!(state.cause(), waiting.cause.as_ref());
    let effects = step(
        &mut state,
        Event::ReadinessChanged {
            ticket: observation,
            summary: summary(Health::Healthy),
        },
    );
    assert_eq!(effects[0], Effect::Cancel { ticket: deadline });
    assert_eq!(
        effects[1],
        Effect::Commit {
            document: with_blob(1)
        }
    );
    assert_eq!(reports(&effects), [EventKind::DocumentProven]);
    let status = state.generation_status();
    assert_eq!(status.proven, Some(Generation { epoch: 1, counter: 1 }));
    assert_eq!((status.phase, status.cause), (Phase::Committed, None));
}

#[test]
fn a_document_without_blobs_is_checked_in_the_same_step_as_it_is_accepted() {
    let mut state = fresh();
    step(&mut state, Event::KubernetesReady);
    ticket_of(&step(&mut state, Event::DocumentAccepted(document(1))));
    assert_eq!(state.phase(), Phase::Preflight);
}

#[test]
fn a_newer_document_supersedes_at_any_phase() {
    let (mut state, _) = committed(document(1));
    let effects = accept(&mut state, document(2));
    let (older, timer) = (apply(&effects), deadline(&effects));
    let effects = accept(&mut state, document(3));
    assert_eq!(effects[0], Effect::Cancel { ticket: older });
    assert_eq!(effects[1], Effect::Cancel { ticket: timer });
    // The overtaken work's end means nothing any more.
    let before = state.clone();
    assert_eq!(
        step(
            &mut state,
            Event::ApplyFinished {
                ticket: older,
                failures: vec![]
            }
        ),
        vec![]
    );
    assert_eq!(state, before);
    assert_eq!(state.newest(), Some(&document(3)));
}

#[test]
fn a_document_that_failed_for_good_is_not_tried_again() {
    let mut state = fresh();
    step(&mut state, Event::KubernetesReady);
    let effects = accept(&mut state, document(1));
    let effects = step(
        &mut state,
        Event::ApplyFinished {
            ticket: apply(&effects),
            failures: vec![failure(false)],
        },
    );
    assert_eq!(state.phase(), Phase::Failed);
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::Journal {
            step: JournalStep::Failed { applying: true, .. },
            ..
        }
    )));
    for event in [lost(), Event::KubernetesReady] {
        for effect in step(&mut state, event) {
            assert!(!matches!(effect, Effect::Apply { .. }), "{effect:?}");
        }
    }
    // Nor after a restart.
    let mut state = State::default();
    let failed = JournalStep::Failed {
        problem: failure(false).problem,
        applying: true,
    };
    step(&mut state, restarted(Some((document(1), failed)), None));
    for effect in step(&mut state, Event::KubernetesReady) {
        assert!(!matches!(effect, Effect::Apply { .. }), "{effect:?}");
    }
    assert_eq!(state.phase(), Phase::Failed);
    // But a newer one is.
    apply(&accept(&mut state, document(2)));
}

#[test]
fn what_can_mend_itself_is_tried_without_end_and_told_once() {
    let mut state = fresh();
    step(&mut state, Event::KubernetesReady);
    let mut effects = accept(&mut state, document(1));
    for attempt in 0..50 {
        effects = step(
            &mut state,
            Event::ApplyFinished {
                ticket: apply(&effects),
                failures: vec![failure(true)],
            },
        );
        let told = usize::from(attempt == 0);
        assert_eq!(reports(&effects).len(), told);
        let (timer, number) = retry(&effects);
        assert_eq!(number, attempt);
        assert_eq!(state.cause(), Some(&failure(true).problem));
        effects = step(&mut state, Event::RetryDue { ticket: timer });
    }
    assert_eq!(state.phase(), Phase::Applying);
}

#[test]
fn a_permanent_failure_beside_a_passing_one_is_told_first() {
    let mut state = fresh();
    step(&mut state, Event::KubernetesReady);
    let effects = accept(&mut state, document(1));
    let mut passing = failure(true);
    passing.problem.message = "busy".into();
    step(
        &mut state,
        Event::ApplyFinished {
            ticket: apply(&effects),
            failures: vec![passing, failure(false)],
        },
    );
    assert_eq!(state.phase(), Phase::Applying);
    assert_eq!(state.cause(), Some(&failure(false).problem));
}

#[test]
fn a_late_document_counts_as_failed_and_can_still_become_proven() {
    let mut state = fresh();
    step(&mut state, Event::KubernetesReady);
    let effects = accept(&mut state, document(1));
    let timer = deadline(&effects);
    let effects = step(
        &mut state,
        Event::ApplyFinished {
            ticket: apply(&effects),
            failures: vec![],
        },
    );
    let observation = verify(&effects);
    step(
        &mut state,
        Event::ReadinessChanged {
            ticket: observation,
            summary: summary(Health::Degraded),
        },
    );
    let effects = step(&mut state, Event::DeadlineReached { ticket: timer });
    assert_eq!(reports(&effects), [EventKind::DocumentFailed]);
    assert_eq!(state.phase(), Phase::Failed);
    assert_eq!(
        state.cause().map(|cause| cause.code.as_ref()),
        Some(codes::IMAGE_PULL_FAILED)
    );
    let effects = step(
        &mut state,
        Event::ReadinessChanged {
            ticket: observation,
            summary: summary(Health::Healthy),
        },
    );
    assert_eq!(reports(&effects), [EventKind::DocumentProven]);
    assert_eq!(state.phase(), Phase::Committed);
}

#[test]
fn kubernetes_lost_while_applying_goes_on_when_it_is_back() {
    let mut state = fresh();
    step(&mut state, Event::KubernetesReady);
    let effects = accept(&mut state, document(1));
    let work = apply(&effects);
    let effects = step(&mut state, lost());
    assert!(effects.contains(&Effect::Cancel { ticket: work }));
    assert_eq!(state.phase(), Phase::WaitingForKubernetes);
    assert_eq!(
        state.cause().map(|cause| cause.code.as_ref()),
        Some(codes::KUBERNETES_UNREACHABLE)
    );
    assert_eq!(step(&mut state, lost()), vec![], "it is told once");
    apply(&step(&mut state, Event::KubernetesReady));
}

#[test]
fn kubernetes_lost_while_verifying_is_no_second_apply() {
    let mut state = fresh();
    step(&mut state, Event::KubernetesReady);
    let effects = accept(&mut state, document(1));
    step(
        &mut state,
        Event::ApplyFinished {
            ticket: apply(&effects),
            failures: vec![],
        },
    );
    step(&mut state, lost());
    let effects = step(&mut state, Event::KubernetesReady);
    verify(&effects);
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Apply { .. }))
    );
    assert_eq!(state.phase(), Phase::Verifying);
}

#[test]
fn pain_01_a_restart_with_the_hub_down_brings_everything_back_from_what_is_stored() {
    for step_before in [
        JournalStep::Accepted,
        JournalStep::Applying,
        JournalStep::Applied,
        JournalStep::Proven,
    ] {
        let mut state = State::default();
        let effects = step(
            &mut state,
            restarted(Some((document(7), step_before.clone())), None),
        );
        assert!(
            !effects
                .iter()
                .any(|effect| matches!(effect, Effect::FetchBlobs { .. })),
            "nothing to wait for but Kubernetes: {effects:?}"
        );
        pass(&mut state, effects);
        assert_eq!(state.phase(), Phase::WaitingForKubernetes);
        let effects = step(&mut state, Event::KubernetesReady);
        let effects = match step_before {
            JournalStep::Accepted | JournalStep::Applying => step(
                &mut state,
                Event::ApplyFinished {
                    ticket: apply(&effects),
                    failures: vec![],
                },
            ),
            _ => {
                let rechecked = effects
                    .iter()
                    .any(|effect| matches!(effect, Effect::Verify { recheck: true, .. }));
                assert!(rechecked, "{effects:?}");
                effects
            }
        };
        let effects = step(
            &mut state,
            Event::ReadinessChanged {
                ticket: verify(&effects),
                summary: summary(Health::Healthy),
            },
        );
        assert_eq!(state.phase(), Phase::Committed);
        let was_proven = step_before == JournalStep::Proven;
        assert_eq!(
            effects.is_empty(),
            was_proven,
            "a proven document costs no write and no report: {effects:?}"
        );
    }
}

#[test]
fn pain_20_a_deployment_that_hangs_does_not_block_the_next_one() {
    let mut state = fresh();
    step(&mut state, Event::KubernetesReady);
    let effects = accept(&mut state, document(1));
    let hanging = apply(&effects);
    // Nothing ever comes of it; the next document cancels it.
    let effects = accept(&mut state, document(2));
    assert!(effects.contains(&Effect::Cancel { ticket: hanging }));
    apply(&effects);
}

#[test]
fn what_no_caller_can_send_is_an_error_and_changes_nothing() {
    let mut state = State::default();
    assert_eq!(
        state.step(Event::KubernetesReady),
        Err(IllegalTransition::NotStarted {
            event: "Kubernetes ready"
        })
    );
    let (mut state, _) = committed(document(5));
    let before = state.clone();
    assert_eq!(
        state.step(restarted(None, None)),
        Err(IllegalTransition::AlreadyStarted)
    );
    assert!(matches!(
        state.step(Event::DocumentAccepted(document(5))),
        Err(IllegalTransition::NotNewer { .. })
    ));
    assert_eq!(
        state.step(Event::RetryDue { ticket: Ticket(99) }),
        Err(IllegalTransition::UnknownTicket {
            event: "retry due",
            ticket: 99
        })
    );
    assert_eq!(state, before);
}
