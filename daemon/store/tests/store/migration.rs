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

/// Has this file say that it is of another schema version: "user version" of the database header.
fn set_version(path: &Path, version: u32) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&version.to_be_bytes(), 60).unwrap();
}

#[test]
fn the_schema_before_is_kept_whole_until_a_document_was_good_under_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    place(directory.path());
    let store = open(directory.path());
    let copy = directory.path().join("store/node.db.schema-1");
    let kept =
        rusqlite::Connection::open_with_flags(&copy, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let number = |query: &str| kept.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(number("PRAGMA user_version"), 1);
    assert_eq!(number("SELECT count(*) FROM desired"), 5);
    let checked: String = kept
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(checked, "ok");
    drop(kept);

    let next = document("1.6", 0);
    store.commit(&next, &[], now()).unwrap();
    store
        .mark_step(next.digest(), &JournalStep::Applying, &[], now())
        .unwrap();
    drop(store);
    let store = open(directory.path());
    assert!(copy.exists());
    store
        .mark_step(next.digest(), &JournalStep::Proven, &[], now())
        .unwrap();
    assert!(!copy.exists());
}

#[test]
fn an_older_node_that_finds_a_newer_schema_goes_on_with_the_copy_from_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join("store").join(name);
    let store = open(directory.path());
    let first = document("1.1", 0);
    store.commit(&first, &[], now()).unwrap();
    for step in [JournalStep::Applied, JournalStep::Proven] {
        store.mark_step(first.digest(), &step, &[], now()).unwrap();
    }
    drop(store);
    // What a newer node does: it keeps a copy, changes the schema, and takes another document.
    std::fs::copy(file("node.db"), file("node.db.schema-2")).unwrap();
    let store = open(directory.path());
    let second = document("1.2", 0);
    store.commit(&second, &[], now()).unwrap();
    store.flush_floor().unwrap();
    drop(store);
    set_version(&file("node.db"), 3);

    let (store, aside) = Store::open_or_quarantine(directory.path(), Options::default(), now()).unwrap();
    let aside = aside.expect("it is told");
    assert!(
        aside.newer && aside.detail.contains("copy from before"),
        "{aside:?}"
    );
    assert!(aside.path.exists() && !file("node.db.schema-2").exists());
    assert_eq!(store.quarantined().unwrap(), Some(aside));
    // The document that is lost is taken again, and none older than it; then what ran before is known.
    let highest = store.highest().unwrap().unwrap();
    assert_eq!((highest.generation, highest.stored), (generation(2), false));
    store.commit(&second, &[], now()).unwrap();
    let recovered = store.recover().unwrap();
    assert_eq!(recovered.applied.unwrap().generation, generation(1));
    assert_eq!(recovered.fallback.unwrap().generation, generation(1));
    drop(store);
    let (store, aside) = Store::open_or_quarantine(directory.path(), Options::default(), now()).unwrap();
    assert_eq!(aside, None);
    assert_eq!(store.newest().unwrap().unwrap().generation, generation(2));
}

#[test]
fn a_power_cut_while_the_copy_is_taken_back_takes_it_back_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join("store").join(name);
    let store = open(directory.path());
    store.commit(&document("1.1", 0), &[], now()).unwrap();
    drop(store);
    std::fs::rename(file("node.db"), file("node.db.schema-2")).unwrap();
    let store = open(directory.path());
    assert_eq!(store.newest().unwrap().unwrap().generation, generation(1));
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
