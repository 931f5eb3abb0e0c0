//! Named scenarios of upkeep: drift, rechecks, observations.

use super::{fixtures::*, *};
use crate::failure::Failure;
use holdfast_protocol::{document::DriftPolicy, event::EventKind, report::Health};

#[test]
fn drift_is_corrected_at_once_and_then_paced() {
    let (mut state, _) = committed(document(1));
    let mut pauses = vec![];
    let mut effects = step(&mut state, Event::DriftDetected { keys: vec![key("a")] });
    for _ in 0..4 {
        let (ticket, keys) = put_back(&effects).expect("a correction");
        assert_eq!(keys, BTreeSet::from([key("a")]));
        let ended = step(
            &mut state,
            Event::ApplyFinished {
                ticket,
                failures: vec![],
            },
        );
        assert_eq!(reports(&ended), [EventKind::DriftCorrected]);
        let (timer, attempt) = retry(&ended);
        pauses.push(attempt);
        // The other controller changes it back within the pause.
        let again = step(&mut state, Event::DriftDetected { keys: vec![key("a")] });
        assert_eq!(again, vec![]);
        effects = step(&mut state, Event::RetryDue { ticket: timer });
    }
    assert_eq!(pauses, [0, 1, 2, 3]);
}

#[test]
fn an_object_that_drifts_for_the_first_time_does_not_wait_for_the_pause_of_another() {
    let (mut state, _) = committed(document(1));
    let mut effects = step(&mut state, Event::DriftDetected { keys: vec![key("a")] });
    for name in ["b", "c", "d"] {
        let (ticket, _) = put_back(&effects).expect("a correction at once");
        let ended = step(
            &mut state,
            Event::ApplyFinished {
                ticket,
                failures: vec![],
            },
        );
        // The pause does not grow by others.
        assert_eq!(retry(&ended).1, 0);
        let keys = vec![key("a"), key(name)];
        effects = step(&mut state, Event::DriftDetected { keys });
        let (_, keys) = put_back(&effects).expect("a correction at once");
        assert_eq!(keys, BTreeSet::from([key(name)]));
    }
    let (ticket, _) = put_back(&effects).expect("a correction at once");
    let failures = vec![];
    let ended = step(&mut state, Event::ApplyFinished { ticket, failures });
    // The one that was put back before waits for the pause.
    let effects = step(
        &mut state,
        Event::RetryDue {
            ticket: retry(&ended).0,
        },
    );
    let (_, keys) = put_back(&effects).expect("a correction after the pause");
    assert_eq!(keys, BTreeSet::from([key("a")]));
}

#[test]
fn a_quiet_pause_ends_a_series_of_corrections() {
    let (mut state, _) = committed(document(1));
    for _ in 0..3 {
        let effects = step(&mut state, Event::DriftDetected { keys: vec![key("a")] });
        let (ticket, _) = put_back(&effects).expect("a correction at once");
        let ended = step(
            &mut state,
            Event::ApplyFinished {
                ticket,
                failures: vec![],
            },
        );
        let (timer, attempt) = retry(&ended);
        assert_eq!(attempt, 0);
        assert_eq!(step(&mut state, Event::RetryDue { ticket: timer }), vec![]);
    }
}

#[test]
fn an_object_that_cannot_be_put_back_is_tried_again() {
    let (mut state, _) = committed(document(1));
    let effects = step(
        &mut state,
        Event::DriftDetected {
            keys: vec![key("a"), key("b")],
        },
    );
    let (ticket, _) = put_back(&effects).expect("a correction");
    let ended = step(
        &mut state,
        Event::ApplyFinished {
            ticket,
            failures: vec![failure(false)],
        },
    );
    assert_eq!(reports(&ended), [EventKind::DriftCorrected, EventKind::Problem]);
    let (timer, _) = retry(&ended);
    let effects = step(&mut state, Event::RetryDue { ticket: timer });
    let (_, keys) = put_back(&effects).expect("another correction");
    assert_eq!(keys, BTreeSet::from([key("a")]));
    assert_eq!(state.phase(), Phase::Committed);
}

#[test]
fn drift_is_only_told_where_the_policy_says_so() {
    let (mut state, _) = committed(DocumentRef {
        drift: DriftPolicy::Report,
        ..document(1)
    });
    let effects = step(&mut state, Event::DriftDetected { keys: vec![key("a")] });
    assert_eq!(reports(&effects), [EventKind::DriftSeen]);
    assert_eq!(effects.len(), 1);
}

#[test]
fn what_runs_is_kept_up_while_a_newer_document_waits_for_its_blobs() {
    let (mut state, observation) = committed(document(1));
    let mut effects = step(&mut state, Event::DocumentAccepted(with_blob(2)));
    for _ in 0..3 {
        let failed = step(
            &mut state,
            Event::BlobsFailed {
                ticket: fetch(&effects),
                failure: Failure::of_document(Problem::new("x", "no link", ""), true),
            },
        );
        let (timer, _) = retry(&failed);
        effects = step(&mut state, Event::RetryDue { ticket: timer });
    }
    assert_eq!(state.phase(), Phase::Fetching);
    let upkeep = state.upkeep().expect("something to keep up");
    assert_eq!(
        (&upkeep.document, upkeep.observation),
        (&document(1), Some(observation))
    );
    let effects = step(&mut state, Event::DriftDetected { keys: vec![key("a")] });
    let corrected = effects
        .iter()
        .any(|effect| matches!(effect, Effect::ApplyObjects { document: of, .. } if *of == document(1)));
    assert!(corrected, "{effects:?}");
}

#[test]
fn an_apply_that_was_overtaken_is_brought_to_its_end_while_blobs_are_missing() {
    let mut state = fresh();
    step(&mut state, Event::KubernetesReady);
    let effects = accept(&mut state, document(1));
    let running = apply(&effects);
    let effects = step(&mut state, Event::DocumentAccepted(with_blob(2)));
    assert!(effects.contains(&Effect::Cancel { ticket: running }));
    let rechecked = effects.iter().any(
        |effect| matches!(effect, Effect::Verify { document: of, recheck: true, .. } if *of == document(1)),
    );
    assert!(rechecked, "{effects:?}");
}

#[test]
fn drift_seen_during_an_apply_is_corrected_after_it() {
    let (mut state, _) = committed(document(1));
    let effects = accept(&mut state, document(2));
    assert_eq!(
        step(&mut state, Event::DriftDetected { keys: vec![key("a")] }),
        vec![]
    );
    let effects = applied(&mut state, &effects, vec![]);
    assert!(put_back(&effects).is_some());
}

#[test]
fn a_restart_while_blobs_are_missing_keeps_the_older_document_up() {
    let mut state = State::default();
    let effects = step(
        &mut state,
        restarted(Some((with_blob(8), JournalStep::Accepted)), Some(document(7))),
    );
    fetch(&effects);
    let effects = step(&mut state, Event::KubernetesReady);
    assert_eq!(state.phase(), Phase::Fetching);
    let kept_up = effects.iter().any(
        |effect| matches!(effect, Effect::Verify { document: of, recheck: true, .. } if *of == document(7)),
    );
    assert!(kept_up, "{effects:?}");
    assert_eq!(
        state.generation_status().applied,
        Some(Generation { epoch: 1, counter: 7 })
    );
}

#[test]
fn a_recheck_that_kubernetes_cuts_off_is_asked_for_again() {
    let mut state = State::default();
    let effects = step(
        &mut state,
        restarted(Some((document(7), JournalStep::Proven)), None),
    );
    pass(&mut state, effects);
    for _ in 0..3 {
        let effects = step(&mut state, Event::KubernetesReady);
        assert!(
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::Verify { recheck: true, .. })),
            "{effects:?}"
        );
        step(&mut state, lost());
    }
    let effects = step(&mut state, Event::KubernetesReady);
    let ticket = verify(&effects);
    seen(&mut state, ticket, Health::Progressing);
    // It is done: an observation that begins anew while Kubernetes stays has no need of another.
    let effects = step(
        &mut state,
        Event::ObservationFailed {
            ticket,
            failure: failure(false),
        },
    );
    let (timer, _) = retry(&effects);
    let effects = step(&mut state, Event::RetryDue { ticket: timer });
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Verify { recheck: false, .. })),
        "{effects:?}"
    );
}

#[test]
fn every_object_is_checked_when_kubernetes_comes_back_for_it_may_have_gone_back_in_time() {
    let rechecked = |effects: &[Effect], counter| {
        effects.iter().any(
            |effect| matches!(effect, Effect::Verify { document: of, recheck: true, .. } if *of == document(counter)),
        )
    };
    let (mut state, _) = committed(document(1));
    step(&mut state, lost());
    let effects = step(&mut state, Event::KubernetesReady);
    assert!(rechecked(&effects, 1), "{effects:?}");

    // A newer document that is applied before writes what it changes; the rest is checked all the same.
    step(&mut state, lost());
    accept(&mut state, document(2));
    let effects = step(&mut state, Event::KubernetesReady);
    let effects = pass(&mut state, effects);
    let effects = applied(&mut state, &effects, vec![]);
    assert!(rechecked(&effects, 2), "{effects:?}");
}

#[test]
fn an_observation_that_fails_is_tried_again_and_told_once() {
    let mut state = fresh();
    step(&mut state, Event::KubernetesReady);
    let effects = accept(&mut state, document(1));
    let mut effects = applied(&mut state, &effects, vec![]);
    for number in 0..5 {
        let failed = step(
            &mut state,
            Event::ObservationFailed {
                ticket: verify(&effects),
                failure: failure(false),
            },
        );
        assert_eq!(reports(&failed).len(), usize::from(number == 0));
        assert_eq!(state.cause(), Some(&failure(false).problem));
        let (timer, attempt) = retry(&failed);
        assert_eq!(attempt, number);
        effects = step(&mut state, Event::RetryDue { ticket: timer });
    }
    seen(&mut state, verify(&effects), Health::Healthy);
    assert_eq!(state.phase(), Phase::Committed);
    assert_eq!(state.upkeep().map(|upkeep| upkeep.attempt), Some(0));
}
