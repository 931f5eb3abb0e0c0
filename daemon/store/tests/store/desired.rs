//! Accepted documents, their steps and their history.

use crate::support::{document, event, later, now, open};
use holdfast_core::{admission::Highest, reconcile::JournalStep};
use holdfast_protocol::{Generation, Problem, event::Severity};
use holdfast_store::{ApplyRecord, Recovered, StoreError};

fn generation(text: &str) -> Generation {
    text.parse().unwrap()
}

fn complete() -> ApplyRecord {
    ApplyRecord {
        complete: true,
        ..ApplyRecord::default()
    }
}

#[test]
fn a_document_is_there_after_a_restart_byte_by_byte() {
    let directory = tempfile::tempdir().unwrap();
    let document = document("1.1", 10);
    open(directory.path())
        .commit(&document, &[event(Severity::Info, "accepted")], now())
        .unwrap();
    let store = open(directory.path());
    let newest = store.newest().unwrap().unwrap();
    assert_eq!(newest.envelope, document.envelope());
    assert_eq!(newest.step, JournalStep::Accepted);
    assert_eq!(newest.accepted_at, now());
    assert_eq!(
        store.highest().unwrap(),
        Some(Highest {
            generation: generation("1.1"),
            digest: document.digest(),
            stored: true
        })
    );
    assert_eq!(store.pending_events(10).unwrap().len(), 1);
    assert_eq!(store.document(document.digest()).unwrap(), Some(newest));
}

#[test]
fn an_older_document_cannot_be_stored_even_by_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.commit(&document("2.1", 0), &[], now()).unwrap();
    for (older, filler) in [("1.9", 0), ("2.1", 1)] {
        let refused = store.commit(&document(older, filler), &[event(Severity::Info, "x")], now());
        assert!(matches!(refused, Err(StoreError::NotNewer { .. })), "{refused:?}");
    }
    assert_eq!(store.pending_events(10).unwrap(), []);
    assert_eq!(store.newest().unwrap().unwrap().generation, generation("2.1"));
}

#[test]
fn each_step_is_what_a_restart_goes_on_from() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (document("1.1", 0), document("1.2", 0));
    let store = open(directory.path());
    store.commit(&one, &[], now()).unwrap();
    store
        .record_apply(one.digest(), &complete(), &[], later(1))
        .unwrap();
    store
        .mark_step(one.digest(), &JournalStep::Proven, &[], later(2))
        .unwrap();
    let recovered = store.recover().unwrap();
    assert_eq!(recovered.newest.as_ref().unwrap().step, JournalStep::Proven);
    assert_eq!(recovered.applied, None, "it is the newest itself");
    assert_eq!(recovered.proven, Some(generation("1.1")));

    store.commit(&two, &[], later(3)).unwrap();
    drop(store);
    let store = open(directory.path());
    let recovered = store.recover().unwrap();
    assert_eq!(recovered.newest.as_ref().unwrap().step, JournalStep::Accepted);
    assert_eq!(recovered.applied.as_ref().unwrap().envelope, one.envelope());
    assert_eq!(recovered.proven, Some(generation("1.1")));

    let problem = Problem::new("object-refused", "no", "");
    let failed = JournalStep::Failed {
        problem: problem.clone(),
        applying: true,
    };
    store.mark_step(two.digest(), &failed, &[], later(4)).unwrap();
    drop(store);
    let store = open(directory.path());
    assert_eq!(
        store.newest().unwrap().unwrap().step,
        JournalStep::Failed {
            problem: problem.clone(),
            applying: true
        }
    );
    assert_eq!(store.failure(two.digest()).unwrap(), Some(problem));
    assert_eq!(store.failure(one.digest()).unwrap(), None);

    let history = store.history(10).unwrap();
    assert_eq!(history[0].failed_at, Some(later(4)));
    assert_eq!(history[1].applied_at, Some(later(1)));
    assert_eq!(history[1].proven_at, Some(later(2)));
}

#[test]
fn history_is_bounded_and_keeps_only_the_envelopes_that_matter() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let all: Vec<_> = (1..=50).map(|n| document(&format!("1.{n}"), 0)).collect();
    for (index, document) in all.iter().enumerate() {
        store.commit(document, &[], now()).unwrap();
        if index < 2 {
            store
                .record_apply(document.digest(), &complete(), &[], now())
                .unwrap();
        }
        if index < 1 {
            store
                .mark_step(document.digest(), &JournalStep::Proven, &[], now())
                .unwrap();
        }
    }
    let kept: Vec<_> = all
        .iter()
        .filter(|document| store.document(document.digest()).unwrap().is_some())
        .map(|document| document.generation().counter)
        .collect();
    assert_eq!(kept, [1, 2, 50], "proven, applied, newest");
    assert_eq!(
        store.history(1_000).unwrap().len(),
        34,
        "32, and the two whose envelopes are kept"
    );
    assert_eq!(store.history(5).unwrap().len(), 5);
}

#[test]
fn a_document_that_was_discarded_is_accepted_once_more() {
    let directory = tempfile::tempdir().unwrap();
    let document = document("1.7", 0);
    let store = open(directory.path());
    store.commit(&document, &[], now()).unwrap();
    store.discard(document.digest()).unwrap();
    assert_eq!(store.newest().unwrap(), None);
    assert!(!store.highest().unwrap().unwrap().stored);
    store.commit(&document, &[], now()).unwrap();
    assert!(store.highest().unwrap().unwrap().stored);
    assert_eq!(store.newest().unwrap().unwrap().envelope, document.envelope());
}

#[test]
fn an_older_document_never_stands_in_for_one_that_was_discarded() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (document("1.1", 0), document("1.2", 0));
    let store = open(directory.path());
    store.commit(&one, &[], now()).unwrap();
    store.record_apply(one.digest(), &complete(), &[], now()).unwrap();
    store.commit(&two, &[], now()).unwrap();
    store.discard(two.digest()).unwrap();
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.recover().unwrap(), Recovered::default());
    assert_eq!(store.newest().unwrap(), None);
}

#[test]
fn status_sequences_rise_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let store = open(directory.path());
        for _ in 0..1_500 {
            let next = store.next_status_sequence().unwrap();
            assert!(next > last, "{next} after {last}");
            last = next;
        }
    }
}

#[test]
fn reading_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let document = document("1.1", 100);
    store
        .commit(&document, &[event(Severity::Info, "x")], now())
        .unwrap();
    store
        .record_apply(document.digest(), &complete(), &[], now())
        .unwrap();
    store.flush_floor().unwrap();
    store.next_status_sequence().unwrap();
    let written = || {
        let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        io.lines()
            .find_map(|line| line.strip_prefix("wchar: "))
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = written();
    for _ in 0..10 {
        store.recover().unwrap();
        store.highest().unwrap();
        store.history(10).unwrap();
        store.inventory().unwrap();
        store.pending_events(10).unwrap();
        store.next_status_sequence().unwrap();
        store.flush_floor().unwrap();
        // Nothing new is nothing to write.
        store
            .record_apply(document.digest(), &complete(), &[], now())
            .unwrap();
        store.begin_apply(document.digest(), &[], now()).unwrap();
        store.acknowledge_events(&[]).unwrap();
        store.push_events(&[]).unwrap();
    }
    assert_eq!(written(), before);
}

#[test]
fn the_log_of_the_database_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let log = directory.path().join("store/node.db-wal");
    let mut largest = 0;
    for n in 1..=300 {
        store
            .commit(&document(&format!("1.{n}"), 20_000), &[], now())
            .unwrap();
        largest = largest.max(std::fs::metadata(&log).unwrap().len());
    }
    assert!(largest < 2 * 1024 * 1024, "the log has grown to {largest} bytes");
    let database = std::fs::metadata(directory.path().join("store/node.db"))
        .unwrap()
        .len();
    assert!(
        database < 1024 * 1024,
        "the database has grown to {database} bytes"
    );
}
