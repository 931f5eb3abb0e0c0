//! A restart of the daemon or of the box in the middle of a change or of the way back.

use super::*;

#[test]
fn a_restart_goes_on_exactly_where_the_way_back_was() {
    let problem = failure(false).problem;
    let restart = |step: JournalStep| Event::Restarted {
        newest: Some((document(2), step)),
        applied: Some(document(1)),
        proven: Some(generation(1)),
        fallback: Some(document(1)),
        paused: false,
        os: None,
        deadline_seconds: None,
    };
    let to = generation(1);
    let mut state = State::default();
    let event = restart(JournalStep::RollingBack {
        problem: problem.clone(),
        to,
    });
    let effects = step(&mut state, event);
    assert_eq!(restored(&effects), Some((generation(1), generation(2))));
    assert_eq!(journalled(&effects), Vec::<&JournalStep>::new());
    step(&mut state, Event::KubernetesReady);
    gone_back(&mut state, effects);
    assert_eq!(state.phase(), Phase::RolledBack);

    let mut state = State::default();
    let event = restart(JournalStep::RolledBack {
        problem: problem.clone(),
        to,
    });
    assert_eq!(step(&mut state, event), vec![]);
    let effects = step(&mut state, Event::KubernetesReady);
    let kept_up = effects
        .iter()
        .any(|effect| matches!(effect, Effect::Verify { document: of, .. } if *of == document(1)));
    assert!(kept_up, "{effects:?}");
    assert_eq!(
        (state.phase(), state.cause()),
        (Phase::RolledBack, Some(&problem))
    );
}

#[test]
fn nothing_is_checked_twice_that_was_begun_before_a_restart() {
    for before in [
        JournalStep::Switching,
        JournalStep::Applying,
        JournalStep::Applied,
    ] {
        let mut state = State::default();
        let event = restarted(Some((document(2), before.clone())), Some(document(1)));
        let effects = step(&mut state, event);
        assert_eq!(
            state.phase(),
            Phase::SwitchingKubernetes,
            "{before:?}: {effects:?}"
        );
        deadline(&effects);
    }
}

fn restarted_with(step: JournalStep, fallback: Option<DocumentRef>, seconds: Option<u32>) -> Event {
    Event::Restarted {
        newest: Some((document(2), step)),
        applied: fallback.clone(),
        proven: fallback.as_ref().map(|fallback| fallback.generation),
        fallback,
        paused: false,
        os: None,
        deadline_seconds: seconds,
    }
}

fn times(effects: &[Effect]) -> Vec<u32> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::ScheduleDeadline { after_seconds, .. } => Some(*after_seconds),
            _ => None,
        })
        .collect()
}

const BEGUN: [JournalStep; 3] = [
    JournalStep::Switching,
    JournalStep::Applying,
    JournalStep::Applied,
];

#[test]
fn after_a_restart_a_begun_change_has_the_time_that_is_left_and_goes_back_when_it_has_passed() {
    let whole = document(2).ready_deadline_seconds;
    for before in BEGUN {
        for (given, expected) in [(None, whole), (Some(37), 37)] {
            let mut state = State::default();
            let event = restarted_with(before.clone(), Some(document(1)), given);
            let effects = step(&mut state, event);
            assert_eq!(times(&effects), [expected], "{before:?}");
            let ticket = deadline(&effects);
            let effects = step(&mut state, Event::DeadlineReached { ticket });
            assert_eq!(restored(&effects), Some((generation(1), generation(2))));
            // The way back has its own whole time.
            assert_eq!(times(&effects), [whole], "{before:?}");
        }
    }
}

#[test]
fn a_change_that_restarted_the_box_too_often_is_gone_back_from_at_once() {
    for before in BEGUN {
        let mut state = State::default();
        let event = restarted_with(before.clone(), Some(document(1)), Some(0));
        let effects = step(&mut state, event);
        assert_eq!(
            restored(&effects),
            Some((generation(1), generation(2))),
            "{before:?}"
        );
        assert_eq!(reports(&effects), [EventKind::DocumentFailed]);
        let written = journalled(&effects);
        assert!(
            matches!(written[..], [JournalStep::RollingBack { problem, to }]
                if *to == generation(1) && problem.message.contains("restarted more than 20 times")),
            "{written:?}"
        );
        let begins = |effect: &Effect| {
            matches!(
                effect,
                Effect::FetchBlobs { .. } | Effect::SwitchKubernetes { .. } | Effect::Apply { .. }
            )
        };
        assert!(
            !effects.iter().any(begins),
            "{before:?} is begun once more: {effects:?}"
        );
        step(&mut state, Event::KubernetesReady);
        gone_back(&mut state, effects);
        assert_eq!(state.phase(), Phase::RolledBack);
    }
}

#[test]
fn a_change_that_restarted_the_box_too_often_is_late_where_there_is_nothing_to_go_back_to() {
    for before in BEGUN {
        let mut state = State::default();
        let effects = step(&mut state, restarted_with(before.clone(), None, Some(0)));
        assert_eq!(reports(&effects), [EventKind::DocumentFailed], "{before:?}");
        assert_eq!((restored(&effects), times(&effects)), (None, vec![]));
        assert_eq!(state.phase(), Phase::Failed, "{before:?}");
        // It is looked after all the same.
        step(&mut state, Event::KubernetesReady);
        let mut effects = pass(&mut state, effects);
        if before != JournalStep::Applied {
            effects = applied(&mut state, &effects, vec![]);
        }
        let effects = seen(&mut state, verify(&effects), Health::Healthy);
        assert!(
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::Commit { .. }))
        );
        assert_eq!(state.phase(), Phase::Committed, "{before:?}");
    }
}

#[test]
fn neither_a_good_document_nor_a_way_back_is_given_up_for_restarts() {
    let problem = failure(false).problem;
    let to = generation(1);
    let mut state = State::default();
    let event = restarted_with(JournalStep::Proven, Some(document(1)), Some(0));
    let effects = step(&mut state, event);
    assert_eq!((reports(&effects), times(&effects)), (vec![], vec![]));
    let mut state = State::default();
    let event = restarted_with(
        JournalStep::RollingBack { problem, to },
        Some(document(1)),
        Some(0),
    );
    let effects = step(&mut state, event);
    assert_eq!(times(&effects), [document(1).ready_deadline_seconds]);
    assert_eq!(state.phase(), Phase::RollingBack);
}
