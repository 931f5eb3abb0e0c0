//! Files of earlier versions. `fixtures/schema_1.db` and its floor file were written by the last build that knew schema 1.

use crate::support::{document, later, node, now, open, trust};
use holdfast_core::{admission::readmit, reconcile::JournalStep};
use holdfast_protocol::Generation;
use holdfast_store::{Options, Store};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Names the state directory to the child process.
const CHILD: &str = "HOLDFAST_STORE_TEST_MIGRATION";

const DATABASE: &[u8] = include_bytes!("fixtures/schema_1.db");
const FLOOR: &[u8] = include_bytes!("fixtures/schema_1_floor.json");

fn place(directory: &Path) {
    let store = directory.join("store");
    std::fs::create_dir_all(&store).unwrap();
    for suffix in ["-wal", "-journal", "-shm"] {
        let _ = std::fs::remove_file(store.join(format!("node.db{suffix}")));
    }
    for (name, content) in [("node.db", DATABASE), ("floor.json", FLOOR)] {
        holdfast_store::fs::write_atomic(&store.join(name), content, 0o600).unwrap();
    }
}

fn generation(counter: u64) -> Generation {
    Generation { epoch: 1, counter }
}

fn check(store: &Store) {
    let recovered = store.recover().unwrap();
    let newest = recovered.newest.unwrap();
    assert_eq!(newest.generation, generation(5));
    assert!(matches!(newest.step, JournalStep::Failed { applying: true, .. }));
    readmit(&newest.envelope, &trust(), &node()).unwrap();
    assert_eq!(recovered.applied.unwrap().generation, generation(4));
    assert_eq!(recovered.proven, Some(generation(2)));
    assert_eq!(recovered.fallback.unwrap().generation, generation(2));
    assert!(store.failure(newest.digest).unwrap().is_some());
    assert_eq!(store.pause().unwrap(), None);
    let history = store.history(10).unwrap();
    assert_eq!(history.len(), 5);
    assert_eq!(history[4].proven_at, Some(later(12)));
    assert_eq!(history[0].rolling_back_at, None);
    assert_eq!(store.pending_count(), 6);
}

#[test]
fn a_store_of_schema_1_goes_on_with_all_that_it_held() {
    let directory = tempfile::tempdir().unwrap();
    place(directory.path());
    let store = open(directory.path());
    check(&store);
    assert!(
        store.next_status_sequence().unwrap() > 1_000,
        "the floor file of the older form was not believed"
    );
    store.commit(&document("1.6", 0), &[], now()).unwrap();
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.newest().unwrap().unwrap().generation, generation(6));
    assert_eq!(
        store.recover().unwrap().applied.unwrap().generation,
        generation(4)
    );
}

/// The child process of the test below; on its own it opens a store of schema 1 once.
#[test]
fn a_store_is_brought_to_the_new_schema() {
    if let Some(directory) = std::env::var_os(CHILD) {
        open(Path::new(&directory));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    place(directory.path());
    check(&open(directory.path()));
}

#[test]
fn kill_9_in_the_middle_of_a_migration_leaves_the_old_schema_or_the_new() {
    let directory = tempfile::tempdir().unwrap();
    let child = || {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "migration::a_store_is_brought_to_the_new_schema",
                "--test-threads=1",
            ])
            .env(CHILD, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    place(directory.path());
    let begun = Instant::now();
    child().wait().unwrap();
    let whole = begun.elapsed().max(Duration::from_millis(5));
    let rounds = 20;
    for round in 0..rounds {
        place(directory.path());
        let begun = Instant::now();
        let mut child = child();
        let moment = whole * round / rounds;
        while begun.elapsed() < moment && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().unwrap();
        let (store, quarantined) =
            Store::open_or_quarantine(directory.path(), Options::default(), now()).unwrap();
        assert_eq!(quarantined, None, "round {round}");
        check(&store);
    }
}
