//! Named scenarios of the machine.

use super::{fixtures::*, *};
use crate::codes;
use holdfast_protocol::{
    event::EventKind,
    report::{Health, Phase},
};

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
    let effects = applied(&mut state, &effects, vec![]);
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
    let effects = seen(&mut state, observation, Health::Healthy);
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
    let effects = applied(&mut state, &effects, vec![failure(false)]);
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
        effects = applied(&mut state, &effects, vec![failure(true)]);
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
    applied(&mut state, &effects, vec![passing, failure(false)]);
    assert_eq!(state.phase(), Phase::Applying);
    assert_eq!(state.cause(), Some(&failure(false).problem));
}

#[test]
fn a_late_document_counts_as_failed_and_can_still_become_proven() {
    let mut state = fresh();
    step(&mut state, Event::KubernetesReady);
    let effects = accept(&mut state, document(1));
    let timer = deadline(&effects);
    let effects = applied(&mut state, &effects, vec![]);
    let observation = verify(&effects);
    seen(&mut state, observation, Health::Degraded);
    let effects = step(&mut state, Event::DeadlineReached { ticket: timer });
    assert_eq!(reports(&effects), [EventKind::DocumentFailed]);
    assert_eq!(state.phase(), Phase::Failed);
    assert_eq!(
        state.cause().map(|cause| cause.code.as_ref()),
        Some(codes::IMAGE_PULL_FAILED)
    );
    let effects = seen(&mut state, observation, Health::Healthy);
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
    applied(&mut state, &effects, vec![]);
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
            JournalStep::Accepted | JournalStep::Applying => applied(&mut state, &effects, vec![]),
            _ => {
                let rechecked = effects
                    .iter()
                    .any(|effect| matches!(effect, Effect::Verify { recheck: true, .. }));
                assert!(rechecked, "{effects:?}");
                effects
            }
        };
        let effects = seen(&mut state, verify(&effects), Health::Healthy);
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
