//! Named scenarios of gates, stability, pauses, and the way back.

mod restarts;

use super::{fixtures::*, *};
use holdfast_protocol::{
    document::FailurePolicy,
    event::EventKind,
    report::{Health, Phase},
};

fn restored(effects: &[Effect]) -> Option<(Generation, Generation)> {
    effects.iter().find_map(|effect| match effect {
        Effect::RestoreKubernetes { document, undo, .. } => Some((document.generation, undo.generation)),
        _ => None,
    })
}

fn journalled(effects: &[Effect]) -> Vec<&JournalStep> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Journal { step, .. } => Some(step),
            _ => None,
        })
        .collect()
}

fn stability(effects: &[Effect]) -> Option<Ticket> {
    effects.iter().find_map(|effect| match effect {
        Effect::ScheduleStability { ticket, .. } => Some(*ticket),
        _ => None,
    })
}

/// Leads the way back to its end; gives the effects of the last step.
fn gone_back(state: &mut State, effects: Vec<Effect>) -> Vec<Effect> {
    let effects = pass(state, effects);
    let effects = applied(state, &effects, vec![]);
    seen(state, verify(&effects), Health::Healthy)
}

/// Document 1 is good, document 2 is verified; gives the deadline's and the observation's ticket.
fn verifying(second: DocumentRef) -> (State, Ticket, Ticket) {
    let (mut state, _) = committed(document(1));
    let effects = accept(&mut state, second);
    let timer = deadline(&effects);
    let effects = applied(&mut state, &effects, vec![]);
    (state, timer, verify(&effects))
}

#[test]
fn pain_13_a_document_whose_apps_are_not_ready_in_time_is_gone_back_from_with_the_first_cause() {
    let (mut state, timer, observation) = verifying(document(2));
    seen(&mut state, observation, Health::Degraded);
    let effects = step(&mut state, Event::DeadlineReached { ticket: timer });
    assert_eq!(restored(&effects), Some((generation(1), generation(2))));
    assert_eq!(reports(&effects), [EventKind::DocumentFailed]);
    assert!(matches!(
        journalled(&effects)[..],
        [JournalStep::RollingBack { problem, to }]
            if problem.code == crate::codes::IMAGE_PULL_FAILED && *to == generation(1)
    ));
    assert_eq!(state.phase(), Phase::RollingBack);
    assert_eq!(state.newest(), Some(&document(2)));
    let effects = gone_back(&mut state, effects);
    assert!(matches!(
        journalled(&effects)[..],
        [JournalStep::RolledBack { .. }]
    ));
    assert_eq!(reports(&effects), [EventKind::DocumentRolledBack]);
    let status = state.generation_status();
    assert_eq!(status.phase, Phase::RolledBack);
    assert_eq!(
        (status.accepted, status.running),
        (Some(generation(2)), Some(generation(1)))
    );
    assert_eq!(
        status.cause.map(|cause| cause.code.into_owned()).as_deref(),
        Some(crate::codes::IMAGE_PULL_FAILED)
    );
    // What runs is kept up.
    let effects = step(&mut state, Event::DriftDetected { keys: vec![key("a")] });
    assert!(put_back(&effects).is_some());
}

#[test]
fn an_object_refused_for_good_leads_back_at_once() {
    let (mut state, _) = committed(document(1));
    let effects = accept(&mut state, document(2));
    let effects = applied(&mut state, &effects, vec![failure(false)]);
    assert_eq!(restored(&effects), Some((generation(1), generation(2))));
}

#[test]
fn what_cannot_be_written_until_the_deadline_leads_back() {
    let (mut state, _) = committed(document(1));
    let effects = accept(&mut state, document(2));
    let timer = deadline(&effects);
    applied(&mut state, &effects, vec![failure(true)]);
    let effects = step(&mut state, Event::DeadlineReached { ticket: timer });
    assert_eq!(restored(&effects), Some((generation(1), generation(2))));
    assert_eq!(state.cause(), Some(&failure(true).problem));
}

#[test]
fn k3s_that_cannot_be_switched_or_does_not_come_up_leads_back() {
    let (mut state, _) = committed(document(1));
    let switch = |state: &mut State| {
        let effects = step(state, Event::DocumentAccepted(document(2)));
        let ticket = ticket_of(&effects);
        let effects = step(state, Event::PreflightPassed { ticket });
        let ticket = ticket_of(&effects);
        step(state, Event::GateOpened { ticket })
    };
    let mut other = state.clone();
    let effects = switch(&mut state);
    let failed = Event::KubernetesSwitchFailed {
        ticket: ticket_of(&effects),
        failure: failure(false),
    };
    let effects = step(&mut state, failed);
    assert_eq!(restored(&effects), Some((generation(1), generation(2))));

    let effects = switch(&mut other);
    let timer = deadline(&effects);
    step(&mut other, lost());
    let ticket = ticket_of(&effects);
    step(&mut other, Event::KubernetesSwitched { ticket });
    assert_eq!(other.phase(), Phase::WaitingForKubernetes);
    let effects = step(&mut other, Event::DeadlineReached { ticket: timer });
    assert_eq!(restored(&effects), Some((generation(1), generation(2))));
}

#[test]
fn going_back_never_gives_up_and_tells_once_that_it_takes_long() {
    let (mut state, _) = committed(document(1));
    let effects = accept(&mut state, document(2));
    let effects = applied(&mut state, &effects, vec![failure(false)]);
    let timer = deadline(&effects);
    let mut effects = pass(&mut state, effects);
    for attempt in 0..20 {
        let failed = applied(&mut state, &effects, vec![failure(false)]);
        let (timer, number) = retry(&failed);
        assert_eq!(number, attempt);
        effects = step(&mut state, Event::RetryDue { ticket: timer });
    }
    let told = step(&mut state, Event::DeadlineReached { ticket: timer });
    assert_eq!(reports(&told), [EventKind::Problem]);
    assert_eq!(state.phase(), Phase::RollingBack);
    let effects = applied(&mut state, &effects, vec![]);
    seen(&mut state, verify(&effects), Health::Healthy);
    assert_eq!(state.phase(), Phase::RolledBack);
}

#[test]
fn a_document_that_says_so_stays_when_it_fails() {
    let (mut state, timer, observation) = verifying(DocumentRef {
        on_failure: FailurePolicy::Isolate,
        ..document(2)
    });
    let effects = step(&mut state, Event::DeadlineReached { ticket: timer });
    assert_eq!(restored(&effects), None);
    assert_eq!(state.phase(), Phase::Failed);
    seen(&mut state, observation, Health::Healthy);
    assert_eq!(state.phase(), Phase::Committed);
}

#[test]
fn a_failed_check_touches_nothing() {
    let (mut state, observation) = committed(document(1));
    let effects = step(&mut state, Event::DocumentAccepted(document(2)));
    let failed = Event::PreflightFailed {
        ticket: ticket_of(&effects),
        failure: failure(false),
    };
    let effects = step(&mut state, failed);
    assert!(matches!(
        journalled(&effects)[..],
        [JournalStep::Failed { applying: false, .. }]
    ));
    assert_eq!(restored(&effects), None);
    assert_eq!(state.phase(), Phase::Failed);
    assert_eq!(
        state.upkeep().and_then(|upkeep| upkeep.observation),
        Some(observation)
    );
    assert_eq!(state.generation_status().running, Some(generation(1)));
}

#[test]
fn a_check_that_missed_kubernetes_is_done_again_when_it_is_back() {
    let mut state = fresh();
    let effects = step(&mut state, Event::DocumentAccepted(document(1)));
    let failed = Event::PreflightFailed {
        ticket: ticket_of(&effects),
        failure: failure(true),
    };
    let (timer, _) = retry(&step(&mut state, failed));
    let effects = step(&mut state, Event::KubernetesReady);
    assert!(effects.contains(&Effect::Cancel { ticket: timer }));
    ticket_of(&effects);
    assert_eq!(state.phase(), Phase::Preflight);
}

#[test]
fn apps_must_stay_ready_for_the_stability_period() {
    let (mut state, timer, observation) = verifying(DocumentRef {
        stability_seconds: 60,
        ..document(2)
    });
    let first = stability(&seen(&mut state, observation, Health::Healthy)).expect("a timer");
    assert_eq!(
        seen(&mut state, observation, Health::Healthy),
        vec![],
        "it runs on"
    );
    assert_eq!(
        seen(&mut state, observation, Health::Degraded),
        vec![Effect::Cancel { ticket: first }]
    );
    let second = stability(&seen(&mut state, observation, Health::Healthy)).expect("it begins anew");
    // The deadline falls into it: it is brought to its end.
    assert_eq!(step(&mut state, Event::DeadlineReached { ticket: timer }), vec![]);
    let effects = step(&mut state, Event::StabilityReached { ticket: second });
    assert_eq!(reports(&effects), [EventKind::DocumentProven]);
    assert_eq!(state.phase(), Phase::Committed);
}

#[test]
fn an_app_that_fails_again_after_the_deadline_leads_back_at_once() {
    let (mut state, timer, observation) = verifying(DocumentRef {
        stability_seconds: 60,
        ..document(2)
    });
    seen(&mut state, observation, Health::Healthy);
    step(&mut state, Event::DeadlineReached { ticket: timer });
    let effects = seen(&mut state, observation, Health::Degraded);
    assert_eq!(restored(&effects), Some((generation(1), generation(2))));
}

#[test]
fn a_closed_window_holds_a_document_and_names_the_reason() {
    let (mut state, _) = committed(document(1));
    let effects = step(&mut state, Event::DocumentAccepted(document(2)));
    let ticket = ticket_of(&effects);
    let effects = step(&mut state, Event::PreflightPassed { ticket });
    let gate = ticket_of(&effects);
    let problem = Problem::new(crate::codes::OUTSIDE_WINDOW, "it opens at 22:00", "");
    let closed = Event::GateClosed {
        ticket: gate,
        problem: problem.clone(),
    };
    assert_eq!(step(&mut state, closed), vec![]);
    assert_eq!(
        (state.phase(), state.cause()),
        (Phase::WaitingForWindow, Some(&problem))
    );
    // What runs is kept up meanwhile.
    let effects = step(&mut state, Event::DriftDetected { keys: vec![key("a")] });
    assert!(put_back(&effects).is_some());
    let effects = step(&mut state, Event::GateOpened { ticket: gate });
    deadline(&effects);
    assert_eq!(state.cause(), None);
}

#[test]
fn a_pause_holds_newer_documents_and_corrections_until_it_ends() {
    let (mut state, _) = committed(document(1));
    step(&mut state, Event::Paused);
    assert_eq!(
        step(&mut state, Event::DriftDetected { keys: vec![key("a")] }),
        vec![]
    );
    let effects = step(&mut state, Event::DocumentAccepted(document(2)));
    let ticket = ticket_of(&effects);
    assert_eq!(step(&mut state, Event::PreflightPassed { ticket }), vec![]);
    assert_eq!(state.phase(), Phase::WaitingForWindow);
    assert_eq!(
        state.cause().map(|cause| cause.code.as_ref()),
        Some(crate::codes::CHANGES_PAUSED)
    );
    let effects = step(&mut state, Event::Resumed);
    assert!(put_back(&effects).is_some(), "what drifted is put back");
    let effects = pass(&mut state, effects);
    apply(&effects);
}

#[test]
fn a_pause_lets_what_is_being_written_and_the_way_back_come_to_their_end() {
    let (mut state, _) = committed(document(1));
    let effects = accept(&mut state, document(2));
    step(&mut state, Event::Paused);
    let effects = applied(&mut state, &effects, vec![failure(false)]);
    gone_back(&mut state, effects);
    assert_eq!(state.phase(), Phase::RolledBack);
}

#[test]
fn a_person_goes_back_and_it_holds_until_a_newer_document() {
    let (mut state, _) = committed(document(1));
    let effects = accept(&mut state, document(2));
    let effects = applied(&mut state, &effects, vec![]);
    seen(&mut state, verify(&effects), Health::Healthy);
    let request = Event::RollBackRequested {
        to: document(1),
        problem: Problem::new("rollback-requested", "root asked for 1.1", ""),
    };
    let effects = step(&mut state, request.clone());
    assert_eq!(restored(&effects), Some((generation(1), generation(2))));
    gone_back(&mut state, effects);
    assert_eq!(state.phase(), Phase::RolledBack);
    for event in [lost(), Event::KubernetesReady] {
        for effect in step(&mut state, event) {
            assert!(!matches!(effect, Effect::Apply { .. }), "{effect:?}");
        }
    }
    let effects = accept(&mut state, document(3));
    apply(&effects);
    assert_eq!(state.fallback(), Some(&document(1)));
}

#[test]
fn a_newer_document_takes_over_from_a_way_back_without_waiting_for_a_window() {
    let (mut state, _) = committed(document(1));
    let effects = accept(&mut state, document(2));
    let back = applied(&mut state, &effects, vec![failure(false)]);
    let effects = step(&mut state, Event::DocumentAccepted(document(3)));
    assert!(effects.contains(&Effect::Cancel {
        ticket: ticket_of(&back)
    }));
    let ticket = ticket_of(&effects);
    let effects = step(&mut state, Event::PreflightPassed { ticket });
    assert!(
        matches!(effects[0], Effect::SwitchKubernetes { .. }),
        "the box is in the middle of a change: {effects:?}"
    );
    assert_eq!(state.fallback(), Some(&document(1)));
}

#[test]
fn a_newer_document_that_cannot_work_leads_back_from_the_half_written_one() {
    let (mut state, _) = committed(document(1));
    accept(&mut state, document(2));
    let effects = step(&mut state, Event::DocumentAccepted(document(3)));
    let failed = Event::PreflightFailed {
        ticket: ticket_of(&effects),
        failure: failure(false),
    };
    let effects = step(&mut state, failed);
    assert_eq!(restored(&effects), Some((generation(1), generation(3))));
}
