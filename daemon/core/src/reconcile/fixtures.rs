//! What the tests of the machine share: documents, events, and picks among effects.

use super::*;
use crate::{
    codes,
    failure::Failure,
    readiness::{IsolatedApp, Summary},
};
use holdfast_protocol::{
    Digest,
    document::{BlobRef, DriftPolicy, FailurePolicy},
    event::EventKind,
    report::{Health, Phase},
};

pub(super) fn document(counter: u64) -> DocumentRef {
    DocumentRef {
        generation: generation(counter),
        digest: Digest::of(&counter.to_be_bytes()),
        blobs: Vec::new(),
        ready_deadline_seconds: 600,
        drift: DriftPolicy::Correct,
        stability_seconds: 0,
        on_failure: FailurePolicy::RollBack,
        artifacts: Vec::new(),
        isolated: BTreeSet::new(),
        os: None,
    }
}

/// One that wants another operating system.
pub(super) fn with_os(counter: u64, version: &str) -> DocumentRef {
    DocumentRef {
        os: Some(OsRef {
            version: version.into(),
            manifest: None,
            max_bytes_per_second: None,
        }),
        ..document(counter)
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

pub(super) fn unready(name: &str, health: Health) -> IsolatedApp {
    IsolatedApp {
        name: name.into(),
        health,
        cause: Some(failure(false).problem),
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
        os: None,
        deadline_seconds: None,
    }
}

/// As [`restarted`], on a box whose operating system documents decide.
pub(super) fn booted(
    os: &str,
    newest: Option<(DocumentRef, JournalStep)>,
    good: Option<DocumentRef>,
) -> Event {
    Event::Restarted {
        newest,
        applied: good.clone(),
        proven: good.as_ref().map(|good| good.generation),
        fallback: good,
        paused: false,
        os: Some(os.into()),
        deadline_seconds: None,
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
        Effect::StageOs { ticket, .. } => Some(Event::OsStaged { ticket: *ticket }),
        Effect::SwitchOs { ticket, .. } | Effect::RestoreOs { ticket, .. } => {
            Some(Event::OsSwitched { ticket: *ticket })
        }
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
        | Effect::StageOs { ticket, .. }
        | Effect::SwitchOs { ticket, .. }
        | Effect::RestoreOs { ticket, .. }
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

pub(super) fn generation(counter: u64) -> Generation {
    Generation { epoch: 1, counter }
}

/// The objects were written, all but these; gives what follows.
pub(super) fn applied(state: &mut State, effects: &[Effect], failures: Vec<Failure>) -> Vec<Effect> {
    let ticket = apply(effects);
    step(state, Event::ApplyFinished { ticket, failures })
}

/// The observed objects are like this; gives what follows.
pub(super) fn seen(state: &mut State, ticket: Ticket, health: Health) -> Vec<Effect> {
    let summary = summary(health);
    step(state, Event::ReadinessChanged { ticket, summary })
}

/// A state whose document is committed; gives the observation's ticket too.
pub(super) fn committed(document: DocumentRef) -> (State, Ticket) {
    let mut state = fresh();
    step(&mut state, Event::KubernetesReady);
    let effects = accept(&mut state, document);
    let effects = applied(&mut state, &effects, vec![]);
    let observation = verify(&effects);
    seen(&mut state, observation, Health::Healthy);
    assert_eq!(state.phase(), Phase::Committed);
    (state, observation)
}
