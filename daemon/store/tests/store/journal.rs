//! The way of a document through its steps and back, and what is kept for the way back.

use crate::support::{document, event, later, now, open};
use holdfast_core::{admission::VerifiedDocument, reconcile::JournalStep};
use holdfast_protocol::{Generation, Problem, event::Severity};
use holdfast_store::{ApplyRecord, KEPT_PROVEN, Pause, Store};

fn generation(text: &str) -> Generation {
    text.parse().unwrap()
}

fn apply(store: &Store, document: &VerifiedDocument) {
    let complete = ApplyRecord {
        complete: true,
        ..ApplyRecord::default()
    };
    store.begin_apply(document.digest(), &[], later(1)).unwrap();
    store
        .record_apply(document.digest(), &complete, &[], later(2))
        .unwrap();
}

fn prove(store: &Store, document: &VerifiedDocument) {
    store.commit(document, &[], now()).unwrap();
    apply(store, document);
    mark(store, document, &JournalStep::Proven);
}

fn mark(store: &Store, document: &VerifiedDocument, step: &JournalStep) {
    let event = event(Severity::Info, "step");
    store
        .mark_step(document.digest(), step, &[event], later(3))
        .unwrap();
}

fn kept(store: &Store) -> Vec<u64> {
    store
        .kept()
        .unwrap()
        .iter()
        .map(|digest| store.document(*digest).unwrap().unwrap().generation.counter)
        .collect()
}

#[test]
fn a_way_back_is_taken_up_at_each_of_its_steps() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (document("1.1", 0), document("1.2", 0));
    let store = open(directory.path());
    prove(&store, &one);
    store.commit(&two, &[], now()).unwrap();
    let to = generation("1.1");
    let problem = Problem::new("not-ready-in-time", "web is not ready", "");
    let steps = [
        JournalStep::Switching,
        JournalStep::RollingBack {
            problem: problem.clone(),
            to,
        },
        JournalStep::RolledBack {
            problem: problem.clone(),
            to,
        },
    ];
    let mut store = store;
    for (index, step) in steps.iter().enumerate() {
        mark(&store, &two, step);
        if index == 0 {
            apply(&store, &two);
            let recovered = store.recover().unwrap();
            assert_eq!(recovered.newest.as_ref().unwrap().step, JournalStep::Applied);
            assert_eq!(recovered.applied, None, "the newest runs");
            assert_eq!(recovered.fallback.unwrap().generation, to);
            continue;
        }
        drop(store);
        store = open(directory.path());
        let recovered = store.recover().unwrap();
        assert_eq!(&recovered.newest.as_ref().unwrap().step, step);
        assert_eq!(recovered.applied.unwrap().generation, to);
        assert_eq!(recovered.fallback.unwrap().generation, to);
        assert_eq!(recovered.proven, Some(to));
        // The objects are written again; that tells nothing new.
        apply(&store, &one);
        assert_eq!(&store.newest().unwrap().unwrap().step, step);
        assert_eq!(store.running().unwrap().unwrap().step, JournalStep::Proven);
    }
    assert_eq!(store.failure(two.digest()).unwrap(), Some(problem));
    let entry = &store.history(1).unwrap()[0];
    assert_eq!(entry.switching_at, Some(later(3)));
    assert_eq!(entry.applying_at, Some(later(1)));
    assert_eq!(entry.applied_at, Some(later(2)));
    assert_eq!(entry.proven_at, None);
    assert_eq!(entry.rolling_back_at, Some(later(3)));
    assert_eq!(entry.rolled_back_at, Some(later(3)));

    // The next one starts from what runs, not from what failed.
    store.commit(&document("1.3", 0), &[], now()).unwrap();
    let recovered = store.recover().unwrap();
    assert_eq!(recovered.applied.unwrap().generation, to);
    assert_eq!(recovered.fallback.unwrap().generation, to);
}

#[test]
fn after_a_rollback_by_hand_the_next_failure_goes_back_to_what_ran() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let all: Vec<_> = (1..=3).map(|n| document(&format!("1.{n}"), 0)).collect();
    for document in &all {
        prove(&store, document);
    }
    let to = generation("1.1");
    let problem = Problem::new("rolled-back-by-hand", "", "");
    for step in [
        JournalStep::RollingBack {
            problem: problem.clone(),
            to,
        },
        JournalStep::RolledBack { problem, to },
    ] {
        mark(&store, &all[2], &step);
    }
    assert_eq!(
        store.failure(all[2].digest()).unwrap(),
        None,
        "it was good; a person wanted another"
    );
    store.commit(&document("1.4", 0), &[], now()).unwrap();
    let recovered = store.recover().unwrap();
    assert_eq!(recovered.fallback.unwrap().generation, to);
}

#[test]
fn what_a_rollback_can_go_back_to_is_kept_and_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 1..=10 {
        prove(&store, &document(&format!("1.{n}"), 0));
    }
    assert_eq!(KEPT_PROVEN, 3);
    assert_eq!(kept(&store), [10, 9, 8]);
    for n in 11..=20 {
        store.commit(&document(&format!("1.{n}"), 0), &[], now()).unwrap();
    }
    assert_eq!(kept(&store), [20, 10, 9, 8], "the newest, and the proven ones");
    // What runs is kept, however old it is.
    let newest = document("1.20", 0);
    let to = generation("1.8");
    let problem = Problem::new("x", "", "");
    mark(&store, &newest, &JournalStep::RolledBack { problem, to });
    for n in 21..=24 {
        store.commit(&document(&format!("1.{n}"), 0), &[], now()).unwrap();
        mark(&store, &document(&format!("1.{n}"), 0), &JournalStep::Proven);
    }
    assert_eq!(kept(&store), [24, 23, 22, 8]);
    assert_eq!(store.recover().unwrap().applied.unwrap().generation, to);
}

#[test]
fn restarts_are_counted_for_one_change_and_anew_for_another() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (document("1.1", 0).digest(), document("1.2", 0).digest());
    let count = |digest| open(directory.path()).count_restart(digest).unwrap();
    assert_eq!([count(first), count(first), count(first)], [1, 2, 3]);
    assert_eq!([count(second), count(second)], [1, 2]);
    assert_eq!(count(first), 1);
}

#[test]
fn a_pause_survives_a_restart_and_is_taken_away() {
    let directory = tempfile::tempdir().unwrap();
    let pause = Pause {
        since: now(),
        until: later(7_200),
        reason: "work on the shelf".into(),
    };
    let store = open(directory.path());
    assert_eq!(store.pause().unwrap(), None);
    store
        .set_pause(Some(&pause), &[event(Severity::Info, "paused")])
        .unwrap();
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.pause().unwrap(), Some(pause));
    assert_eq!(store.pending_count(), 1);
    store.set_pause(None, &[]).unwrap();
    drop(store);
    assert_eq!(open(directory.path()).pause().unwrap(), None);
}
