//! Named scenarios of the operating system on a document's way.

use super::{fixtures::*, *};
use crate::failure::Failure;
use holdfast_protocol::{
    event::EventKind,
    report::{Health, Phase},
};

/// Document 1 is good, on version 1 of the operating system.
fn on_image() -> State {
    let mut state = State::default();
    step(
        &mut state,
        booted("1", Some((document(1), JournalStep::Proven)), None),
    );
    step(&mut state, Event::KubernetesReady);
    let effects = switched_kubernetes(&mut state);
    assert!(!asks_for_os(&effects));
    let ticket = verify(&effects);
    let summary = summary(Health::Healthy);
    step(&mut state, Event::ReadinessChanged { ticket, summary });
    assert_eq!(state.phase(), Phase::Committed);
    state
}

/// Answers the switch that is asked for after each start.
fn switched_kubernetes(state: &mut State) -> Vec<Effect> {
    let Stage::SwitchingKubernetes {
        wait: Wait::Running(ticket),
        ..
    } = state.stage()
    else {
        panic!("no switch under way: {:?}", state.stage());
    };
    let ticket = *ticket;
    step(state, Event::KubernetesSwitched { ticket })
}

fn asks_for_os(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| {
        matches!(
            effect,
            Effect::StageOs { .. } | Effect::SwitchOs { .. } | Effect::RestoreOs { .. }
        )
    })
}

fn refused(text: &'static str) -> Failure {
    Failure::of_document(Problem::new("os-fell-back", text, ""), false)
}

/// Leads document 2, which wants version 2, to where it is asked to be switched to.
fn switching(state: &mut State) -> Vec<Effect> {
    let effects = step(state, Event::DocumentAccepted(with_os(2, "2")));
    let ticket = ticket_of(&effects);
    let effects = step(state, Event::PreflightPassed { ticket });
    assert_eq!(state.phase(), Phase::StagingOs);
    assert!(matches!(effects[..], [Effect::StageOs { .. }]), "{effects:?}");
    let ticket = ticket_of(&effects);
    let effects = step(state, Event::OsStaged { ticket });
    assert_eq!(reports(&effects), [EventKind::OsStaged]);
    assert_eq!(state.phase(), Phase::WaitingForWindow);
    let ticket = ticket_of(&effects);
    let effects = step(state, Event::GateOpened { ticket });
    assert_eq!(state.phase(), Phase::SwitchingOs);
    effects
}

fn has_deadline(effects: &[Effect]) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::ScheduleDeadline { .. }))
}

#[test]
fn a_document_gets_its_operating_system_before_its_kubernetes_and_its_deadline_runs_only_then() {
    let mut state = on_image();
    let effects = switching(&mut state);
    assert!(matches!(effects[..], [Effect::SwitchOs { .. }]), "{effects:?}");
    // The box restarts into it; what ran before is what the boot is judged by.
    let mut state = State::default();
    let newest = Some((with_os(2, "2"), JournalStep::SwitchingOs));
    let effects = step(&mut state, booted("2", newest, Some(document(1))));
    assert!(matches!(effects[..], [Effect::SwitchOs { .. }]), "{effects:?}");
    assert_eq!(state.phase(), Phase::SwitchingOs);
    assert_eq!(state.generation_status().running, Some(generation(1)));
    let observed = step(&mut state, Event::KubernetesReady);
    verify(&observed);
    let effects = step(
        &mut state,
        Event::OsSwitched {
            ticket: ticket_of(&effects),
        },
    );
    assert_eq!(reports(&effects), [EventKind::OsSwitched]);
    assert!(has_deadline(&effects));
    let effects = pass(&mut state, effects);
    let effects = applied(&mut state, &effects, vec![]);
    let ticket = verify(&effects);
    seen(&mut state, ticket, Health::Healthy);
    assert_eq!(state.phase(), Phase::Committed);
}

#[test]
fn a_document_whose_operating_system_runs_or_that_names_none_passes_without_a_trace() {
    for next in [document(2), with_os(2, "1")] {
        let mut state = on_image();
        let effects = accept(&mut state, next);
        assert!(!asks_for_os(&effects), "{effects:?}");
        assert_eq!(state.phase(), Phase::Applying);
    }
}

#[test]
fn pain_12_an_operating_system_that_the_box_comes_back_from_takes_its_document_back_with_the_cause() {
    let mut state = State::default();
    let newest = Some((with_os(2, "2"), JournalStep::SwitchingOs));
    let effects = step(&mut state, booted("1", newest, Some(document(1))));
    let failed = Event::OsSwitchFailed {
        ticket: ticket_of(&effects),
        failure: refused("version 2 did not come up"),
    };
    let effects = step(&mut state, failed);
    assert_eq!(reports(&effects), [EventKind::DocumentFailed]);
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::Journal { step: JournalStep::RollingBack { problem, to }, .. }
            if problem.code == "os-fell-back" && *to == generation(1)
    )));
    assert!(
        matches!(effects.last(), Some(Effect::RestoreOs { document, undo, .. })
            if document.generation == generation(1) && undo.generation == generation(2)),
        "{effects:?}"
    );
    step(&mut state, Event::KubernetesReady);
    let effects = pass(&mut state, effects);
    let restores = effects
        .iter()
        .any(|effect| matches!(effect, Effect::RestoreKubernetes { .. }));
    assert!(restores);
    let effects = applied(&mut state, &effects, vec![]);
    let ticket = verify(&effects);
    seen(&mut state, ticket, Health::Healthy);
    assert_eq!(state.phase(), Phase::RolledBack);
    assert_eq!(
        state.cause().map(|cause| cause.code.as_ref()),
        Some("os-fell-back")
    );
}

#[test]
fn a_document_that_fails_on_its_new_operating_system_takes_the_old_one_back_first_over_a_restart() {
    let mut state = on_image();
    let effects = switching(&mut state);
    let effects = pass(&mut state, effects);
    let timer = deadline(&effects);
    let effects = step(&mut state, Event::DeadlineReached { ticket: timer });
    assert!(
        matches!(effects.last(), Some(Effect::RestoreOs { .. })),
        "{effects:?}"
    );
    assert!(!has_deadline(&effects));
    // The box restarts into it and goes on with the way back.
    let problem = refused("too late").problem;
    let to = generation(1);
    let mut state = State::default();
    let newest = Some((with_os(2, "2"), JournalStep::RollingBack { problem, to }));
    let effects = step(&mut state, booted("1", newest, Some(document(1))));
    assert!(matches!(effects[..], [Effect::RestoreOs { .. }]), "{effects:?}");
    assert_eq!(state.phase(), Phase::RollingBack);
    let effects = step(
        &mut state,
        Event::OsSwitched {
            ticket: ticket_of(&effects),
        },
    );
    assert!(matches!(
        effects[..],
        [Effect::RestoreKubernetes { .. }, Effect::ScheduleDeadline { .. }]
    ));
    assert_eq!(reports(&effects), []);
}

#[test]
fn a_way_back_goes_on_where_the_earlier_operating_system_is_gone_and_tells_of_it() {
    let mut state = on_image();
    let effects = accept(&mut state, document(2));
    let effects = step(
        &mut state,
        Event::DeadlineReached {
            ticket: deadline(&effects),
        },
    );
    let failed = Event::OsSwitchFailed {
        ticket: ticket_of(&effects),
        failure: refused("the other slot is empty"),
    };
    let effects = step(&mut state, failed);
    assert_eq!(reports(&effects), [EventKind::Problem]);
    let restores = effects
        .iter()
        .any(|effect| matches!(effect, Effect::RestoreKubernetes { .. }));
    assert!(restores, "{effects:?}");
}

#[test]
fn a_newer_document_takes_over_from_staging_and_from_a_switch_and_waits_for_its_own_window() {
    let mut state = on_image();
    let effects = step(&mut state, Event::DocumentAccepted(with_os(2, "2")));
    let effects = step(
        &mut state,
        Event::PreflightPassed {
            ticket: ticket_of(&effects),
        },
    );
    let staging = ticket_of(&effects);
    let effects = step(&mut state, Event::DocumentAccepted(with_os(3, "3")));
    assert!(effects.contains(&Effect::Cancel { ticket: staging }));
    let effects = step(
        &mut state,
        Event::PreflightPassed {
            ticket: ticket_of(&effects[1..]),
        },
    );
    let effects = step(
        &mut state,
        Event::OsStaged {
            ticket: ticket_of(&effects),
        },
    );
    let effects = step(
        &mut state,
        Event::GateOpened {
            ticket: ticket_of(&effects),
        },
    );
    let switch = ticket_of(&effects);
    let effects = step(&mut state, Event::DocumentAccepted(document(4)));
    assert!(effects.contains(&Effect::Cancel { ticket: switch }));
    let preflight = ticket(&effects, |effect| match effect {
        Effect::Preflight { ticket, .. } => Some(*ticket),
        _ => None,
    });
    step(&mut state, Event::PreflightPassed { ticket: preflight });
    assert_eq!(state.phase(), Phase::WaitingForWindow);
}

#[test]
fn an_operating_system_that_cannot_be_staged_is_tried_again_or_fails_before_anything_is_touched() {
    let mut state = on_image();
    let effects = step(&mut state, Event::DocumentAccepted(with_os(2, "2")));
    let effects = step(
        &mut state,
        Event::PreflightPassed {
            ticket: ticket_of(&effects),
        },
    );
    let failed = Event::OsStageFailed {
        ticket: ticket_of(&effects),
        failure: failure(true),
    };
    let effects = step(&mut state, failed);
    let (timer, _) = retry(&effects);
    let effects = step(&mut state, Event::RetryDue { ticket: timer });
    let failed = Event::OsStageFailed {
        ticket: ticket_of(&effects),
        failure: refused("a chunk is not what its digest says"),
    };
    let effects = step(&mut state, failed);
    assert!(!asks_for_os(&effects), "{effects:?}");
    assert_eq!(state.phase(), Phase::Failed);
    assert_eq!(state.generation_status().running, Some(generation(1)));
}

#[test]
fn a_good_document_stays_when_the_box_came_back_from_its_operating_system_long_after() {
    let mut state = State::default();
    let effects = step(
        &mut state,
        booted(
            "1",
            Some((with_os(2, "2"), JournalStep::Proven)),
            Some(document(1)),
        ),
    );
    assert!(!asks_for_os(&effects), "{effects:?}");
    assert_eq!(state.phase(), Phase::SwitchingKubernetes);
}

#[test]
fn a_document_in_the_middle_of_its_way_whose_operating_system_was_lost_is_asked_for_it_again() {
    let mut state = State::default();
    let effects = step(
        &mut state,
        booted(
            "1",
            Some((with_os(2, "2"), JournalStep::Applying)),
            Some(document(1)),
        ),
    );
    let failed = Event::OsStageFailed {
        ticket: ticket_of(&effects),
        failure: refused("version 2 did not come up"),
    };
    let effects = step(&mut state, failed);
    assert!(
        matches!(effects.last(), Some(Effect::RestoreOs { .. })),
        "{effects:?}"
    );
}

#[test]
fn what_drifts_of_the_document_that_is_gone_back_from_is_not_put_back_for_the_other_is_written_whole() {
    let mut state = State::default();
    let good = Some((with_os(1, "1"), JournalStep::Proven));
    step(&mut state, booted("1", good, None));
    step(&mut state, Event::KubernetesReady);
    let effects = switched_kubernetes(&mut state);
    let ticket = verify(&effects);
    let summary = summary(Health::Healthy);
    step(&mut state, Event::ReadinessChanged { ticket, summary });
    let effects = accept(&mut state, document(2));
    apply(&effects);
    let keys = vec![key("a")];
    assert_eq!(step(&mut state, Event::DriftDetected { keys }), vec![]);
    let request = Event::RollBackRequested {
        to: with_os(1, "1"),
        problem: failure(false).problem,
    };
    let effects = step(&mut state, request);
    assert_eq!(put_back(&effects), None);
    let effects = pass(&mut state, effects);
    assert_eq!(put_back(&effects), None);
    let written = effects.iter().find_map(|effect| match effect {
        Effect::Apply { ticket, document } => Some((*ticket, document.generation)),
        _ => None,
    });
    let (ticket, written) = written.expect("document 1 is written");
    assert_eq!(written, generation(1));
    let failures = vec![];
    let effects = step(&mut state, Event::ApplyFinished { ticket, failures });
    assert_eq!(put_back(&effects), None, "drift of another document is put back");
}
