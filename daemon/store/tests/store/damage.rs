//! Damaged, foreign and newer files.

use crate::support::{document, event, later, now, open};
use holdfast_core::{object::ObjectKey, plan::InventoryEntry};
use holdfast_protocol::{Digest, event::Severity};
use holdfast_store::{ApplyRecord, Options, Store, StoreError, codes};
use std::path::{Path, PathBuf};

fn database(directory: &Path) -> PathBuf {
    directory.join("store/node.db")
}

fn expected_inventory() -> Vec<InventoryEntry> {
    let entry = |number: u8| InventoryEntry {
        key: ObjectKey {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            namespace: Some("default".into()),
            name: format!("object-{number:03}"),
        },
        app: "web".into(),
        digest: Some(Digest::of(&[number])),
        fingerprint: None,
        keep: false,
    };
    (0..50).map(entry).collect()
}

/// A store with some content, closed; gives the bytes of its database.
fn filled(directory: &Path) -> Vec<u8> {
    let store = open(directory);
    for n in 1..=20 {
        store
            .commit(
                &document(&format!("3.{n}"), 500),
                &[event(Severity::Info, "x")],
                now(),
            )
            .unwrap();
    }
    let record = ApplyRecord {
        written: expected_inventory(),
        ..ApplyRecord::default()
    };
    store.record_apply(Digest::of(b""), &record, &[], now()).unwrap();
    store.next_status_sequence().unwrap();
    store.flush_floor().unwrap();
    drop(store);
    std::fs::read(database(directory)).unwrap()
}

/// Puts bytes in the database's place, without its log.
fn replace(directory: &Path, bytes: &[u8]) {
    for suffix in ["", "-wal"] {
        let mut path = database(directory).into_os_string();
        path.push(suffix);
        let _ = std::fs::remove_file(path);
    }
    holdfast_store::fs::write_atomic(&database(directory), bytes, 0o600).unwrap();
}

#[test]
fn damage_anywhere_never_lets_an_older_document_in_and_never_stops_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let good = filled(directory.path());
    let floor = std::fs::read(directory.path().join("store/floor.json")).unwrap();
    let mut quarantines = 0;
    // A damaged stretch of 64 bytes at many places, and files cut short.
    let step = (good.len() / 60).max(1);
    let cases = (0..good.len()).step_by(step).map(|offset| {
        let mut bytes = good.clone();
        let end = (offset + 64).min(bytes.len());
        for byte in &mut bytes[offset..end] {
            *byte = !*byte;
        }
        bytes
    });
    let cut = [1, 99, 100, 4_095, good.len() / 2, good.len() - 1].map(|length| good[..length].to_vec());
    for (number, bytes) in cases.chain(cut).enumerate() {
        replace(directory.path(), &bytes);
        holdfast_store::fs::write_atomic(&directory.path().join("store/floor.json"), &floor, 0o600).unwrap();
        let at = later(i64::try_from(number).unwrap());
        let (store, quarantined) =
            Store::open_or_quarantine(directory.path(), Options::default(), at).unwrap();
        let highest = store.highest().unwrap().expect("the highest generation is lost");
        assert_eq!(highest.generation.to_string(), "3.20");
        assert!(matches!(
            store.commit(&document("3.19", 0), &[], now()),
            Err(StoreError::NotNewer { .. })
        ));
        if let Some(quarantined) = quarantined {
            quarantines += 1;
            assert!(quarantined.path.exists());
            assert!(!highest.stored, "the same document must be accepted once more");
            store.commit(&document("3.20", 500), &[], now()).unwrap();
            assert_eq!(store.quarantined().unwrap(), Some(quarantined));
            // Sequences go on above all that were used.
            assert!(store.push_events(&[event(Severity::Info, "x")]).unwrap() > 20);
        } else {
            // Damage in unused space, or in bytes that are checked where they are used: an envelope, an event.
            store.recover().unwrap();
            store.pending_events(100).unwrap();
            store.history(100).unwrap();
            assert_eq!(store.inventory().unwrap(), expected_inventory());
        }
    }
    assert!(quarantines > 10, "only {quarantines} of the damages were noticed");
    let kept = std::fs::read_dir(directory.path().join("store"))
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("node.db.damaged-")
        })
        .count();
    assert!(kept <= 2, "{kept} damaged files fill the disk");
}

#[test]
fn a_damaged_floor_file_is_made_anew_from_the_database() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let path = directory.path().join("store/floor.json");
    let good = std::fs::read_to_string(&path).unwrap();
    // Still JSON, but another generation: only the digest tells.
    for damaged in [good.replace("3.20", "1.20"), String::new(), "{".into()] {
        holdfast_store::fs::write_atomic(&path, damaged.as_bytes(), 0o600).unwrap();
        let store = open(directory.path());
        assert_eq!(store.highest().unwrap().unwrap().generation.to_string(), "3.20");
        assert!(std::fs::read_to_string(&path).unwrap().contains("3.20"));
    }
}

#[test]
fn an_older_copy_of_the_database_lets_no_older_document_in() {
    let directory = tempfile::tempdir().unwrap();
    let older = filled(directory.path());
    let store = open(directory.path());
    store.commit(&document("4.1", 0), &[], now()).unwrap();
    store.flush_floor().unwrap();
    drop(store);
    replace(directory.path(), &older);
    let store = open(directory.path());
    assert_eq!(store.highest().unwrap().unwrap().generation.to_string(), "4.1");
    assert!(matches!(
        store.commit(&document("3.21", 0), &[], now()),
        Err(StoreError::NotNewer { .. })
    ));
    // Nor is one of them put in place of what was accepted last.
    assert_eq!(store.newest().unwrap(), None);
    store.commit(&document("4.1", 0), &[], now()).unwrap();
    assert!(store.newest().unwrap().is_some());
}

/// Sets a number of a database's header; see "The Database Header" of the SQLite file format.
fn set_header(bytes: &mut [u8], offset: usize, value: u32) {
    bytes[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
}

#[test]
fn a_newer_schema_is_refused_by_name_and_a_node_that_must_go_on_sets_it_aside_unharmed() {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = filled(directory.path());
    set_header(&mut bytes, 60, 7);
    replace(directory.path(), &bytes);
    let error = Store::open(directory.path(), Options::default())
        .err()
        .expect("a newer schema is opened");
    assert!(matches!(error, StoreError::Newer { found: 7, .. }), "{error}");
    assert_eq!(error.problem().code, codes::STORE_NEWER);
    assert_eq!(std::fs::read(database(directory.path())).unwrap(), bytes);

    let (store, aside) = Store::open_or_quarantine(directory.path(), Options::default(), now()).unwrap();
    let aside = aside.expect("it is told");
    assert!(aside.newer && aside.detail.contains("no copy"), "{aside:?}");
    assert_eq!(std::fs::read(&aside.path).unwrap(), bytes);
    assert_eq!(store.newest().unwrap(), None);
    // What is known of the past keeps older documents out.
    assert!(store.highest().unwrap().is_some_and(|highest| !highest.stored));
}

#[test]
fn a_file_of_another_program_is_refused_by_name_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = filled(directory.path());
    set_header(&mut bytes, 68, 0x1234);
    replace(directory.path(), &bytes);
    // Without the floor file nothing says that the directory is Holdfast's.
    std::fs::remove_file(directory.path().join("store/floor.json")).unwrap();
    let error = Store::open_or_quarantine(directory.path(), Options::default(), now())
        .err()
        .expect("a foreign file is opened");
    assert_eq!(error.problem().code, codes::STORE_FOREIGN);
    assert_eq!(std::fs::read(database(directory.path())).unwrap(), bytes);
}

#[test]
fn a_database_that_someone_has_open_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let _store = open(directory.path());
    let error = Store::open(directory.path(), Options::default())
        .err()
        .expect("a store is opened twice");
    assert_eq!(error.problem().code, codes::STORE_BUSY);
}

#[test]
fn opening_checks_the_whole_file_in_little_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.commit(&document("1.1", 700_000), &[], now()).unwrap();
    for _ in 0..1_000 {
        store
            .push_events(&[event(Severity::Info, &"x".repeat(300))])
            .unwrap();
    }
    drop(store);
    // The quickest of some: what is beside this on the machine makes it slower, never quicker.
    let times = (0..10).map(|_| {
        let started = std::time::Instant::now();
        let store = open(directory.path());
        let elapsed = started.elapsed();
        assert_eq!(store.pending_count(), 1_000);
        elapsed
    });
    let elapsed = times.min().unwrap();
    // A box starts its first apply within 50 ms; this is a part of it. Wide, since this is a build for tests.
    assert!(elapsed.as_millis() < 250, "opening took {elapsed:?}");
    println!("opening took {elapsed:?}");
}
