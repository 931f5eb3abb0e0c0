//! Apps that may fail alone: they hold nothing up, and are told once.

use super::{fixtures::*, *};
use crate::readiness::Summary;
use holdfast_protocol::{
    event::EventKind,
    report::{Health, Phase},
};

#[test]
fn an_app_that_may_fail_alone_holds_nothing_up_and_is_told_once() {
    let mut alone = document(2);
    alone.isolated.insert("camera".into());
    let (mut state, _) = committed(document(1));
    let effects = accept(&mut state, alone);
    let effects = applied(&mut state, &effects, vec![failure(false).in_app("camera")]);
    assert_eq!(
        reports(&effects),
        [EventKind::DocumentApplied, EventKind::AppFailed]
    );
    assert!(put_back(&effects).is_some(), "it is tried on");
    let observation = verify(&effects);
    let ready = Summary {
        isolated: vec![unready("camera", Health::Degraded)],
        ..summary(Health::Healthy)
    };
    let seen = Event::ReadinessChanged {
        ticket: observation,
        summary: ready,
    };
    let effects = step(&mut state, seen);
    assert_eq!(reports(&effects), [EventKind::DocumentProven]);
    assert_eq!(state.phase(), Phase::Committed);
}

#[test]
fn a_document_that_is_good_without_an_app_tells_which_and_why() {
    for health in [Health::Progressing, Health::Degraded] {
        let mut alone = document(1);
        alone.isolated.insert("lamp".into());
        let mut state = fresh();
        step(&mut state, Event::KubernetesReady);
        let effects = accept(&mut state, alone);
        let effects = applied(&mut state, &effects, vec![]);
        let observation = verify(&effects);
        let seen = |all, lamp| Event::ReadinessChanged {
            ticket: observation,
            summary: Summary {
                isolated: vec![unready("lamp", lamp)],
                ..summary(all)
            },
        };
        // Before the document is good, one on its way is not told.
        let effects = step(&mut state, seen(Health::Progressing, Health::Progressing));
        assert_eq!(reports(&effects), []);
        let effects = step(&mut state, seen(Health::Healthy, health));
        let told: Vec<_> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Report(report) => Some(report),
                _ => None,
            })
            .collect();
        let kinds: Vec<_> = told.iter().map(|report| report.kind.clone()).collect();
        assert_eq!(kinds, [EventKind::AppFailed, EventKind::DocumentProven]);
        assert_eq!(told[0].problem, unready("lamp", health).cause);
        assert_eq!(told[0].details["app"], "lamp");
        assert!(
            told[1].message.ends_with(" but lamp are ready"),
            "{}",
            told[1].message
        );
        assert_eq!(state.phase(), Phase::Committed);
        let effects = step(&mut state, seen(Health::Healthy, Health::Degraded));
        assert_eq!(reports(&effects), [], "it is told once");
    }
}
