//! Events on their way to the hub.

use crate::support::{event, open};
use holdfast_protocol::event::{Event, EventKind, Severity};
use holdfast_store::{Options, PendingEvent, Store};
use std::path::Path;

fn small(directory: &Path, events: usize, bytes: u64) -> Store {
    Store::open(
        directory,
        Options {
            outbox_max_events: events,
            outbox_max_bytes: bytes,
            ..Options::default()
        },
    )
    .unwrap()
}

fn read(pending: &PendingEvent) -> Event {
    let event: Event = serde_json::from_slice(&pending.payload).unwrap();
    assert_eq!(event.sequence, pending.sequence);
    event
}

fn messages(store: &Store) -> Vec<String> {
    let pending = store.pending_events(1_000).unwrap();
    pending.iter().map(|pending| read(pending).message).collect()
}

#[test]
fn events_stay_in_order_until_each_is_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for name in ["a", "b", "c"] {
        store.push_events(&[event(Severity::Info, name)]).unwrap();
    }
    let first = store.pending_events(2).unwrap();
    assert_eq!(
        first.iter().map(|event| event.sequence).collect::<Vec<_>>(),
        [1, 2]
    );
    // Acknowledged out of order, twice, or never heard of: all the same.
    store.acknowledge_events(&[2, 2, 99]).unwrap();
    drop(store);
    let store = open(directory.path());
    assert_eq!(messages(&store), ["a", "c"]);
    store.acknowledge_events(&[1, 3]).unwrap();
    assert_eq!((messages(&store).len(), store.pending_count()), (0, 0));
    // Sequences go on even if nothing was left to tell them.
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.push_events(&[event(Severity::Info, "d")]).unwrap(), 4);
}

#[test]
fn a_full_outbox_drops_the_least_severe_first_and_says_how_many() {
    let directory = tempfile::tempdir().unwrap();
    let store = small(directory.path(), 4, 1 << 20);
    store.push_events(&[event(Severity::Alarm, "alarm")]).unwrap();
    for n in 0..10 {
        store
            .push_events(&[event(Severity::Info, &format!("info {n}"))])
            .unwrap();
    }
    store.push_events(&[event(Severity::Warning, "warning")]).unwrap();
    drop(store);
    // The count survives a restart.
    let store = small(directory.path(), 4, 1 << 20);
    let pending = store.pending_events(100).unwrap();
    let events: Vec<_> = pending.iter().map(read).collect();
    let texts: Vec<_> = events.iter().map(|event| event.message.as_str()).collect();
    assert_eq!(
        texts,
        [
            "alarm",
            "info 8",
            "info 9",
            "warning",
            "8 events were dropped because the outbox was full"
        ]
    );
    assert_eq!(events[4].kind, EventKind::EventsDropped);
    assert_eq!(events[4].details["count"], 8);
    assert_eq!(store.pending_events(100).unwrap(), pending, "it is told once");
}

#[test]
fn the_count_of_dropped_events_is_never_lost_itself() {
    let directory = tempfile::tempdir().unwrap();
    let store = small(directory.path(), 3, 1 << 20);
    let mut sent = 0;
    for round in 0..20 {
        for _ in 0..=round % 5 {
            store.push_events(&[event(Severity::Alarm, "x")]).unwrap();
            sent += 1;
        }
        store.pending_events(10).unwrap();
    }
    let told: u64 = store
        .pending_events(100)
        .unwrap()
        .iter()
        .map(read)
        .map(|event| match event.kind {
            EventKind::EventsDropped => event.details["count"].as_u64().unwrap(),
            _ => 1,
        })
        .sum();
    assert_eq!(told, sent);
}

#[test]
fn the_bytes_of_the_outbox_are_bounded_too() {
    let directory = tempfile::tempdir().unwrap();
    let store = small(directory.path(), 1_000, 10_000);
    for n in 0..200 {
        store
            .push_events(&[event(Severity::Info, &format!("{n} {}", "x".repeat(400)))])
            .unwrap();
    }
    let pending = store.pending_events(1_000).unwrap();
    let bytes: usize = pending.iter().map(|event| event.payload.len()).sum();
    assert!(bytes <= 10_000 + 400, "{bytes} bytes wait");
    assert!(pending.len() > 10);
}

#[test]
fn an_event_beyond_all_measure_loses_its_details() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut large = event(Severity::Alarm, &"x".repeat(50_000));
    large.details.insert("objects".into(), "y".repeat(50_000).into());
    store.push_events(&[large]).unwrap();
    let kept = read(&store.pending_events(1).unwrap()[0]);
    assert_eq!((kept.message.len(), kept.details.len()), (2_000, 0));
}

#[test]
fn an_outbox_without_room_takes_nothing_and_fails_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = small(directory.path(), 0, 0);
    store.push_events(&[event(Severity::Alarm, "x")]).unwrap();
    assert_eq!(store.pending_events(10).unwrap(), []);
    assert_eq!(store.pending_count(), 0);
}
