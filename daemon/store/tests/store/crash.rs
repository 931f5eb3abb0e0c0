//! kill -9 in the middle of everything: whatever was acknowledged is there.

use crate::support::{document, event, node, now, open, trust};
use holdfast_core::{admission::readmit, plan::InventoryEntry, reconcile::JournalStep};
use holdfast_protocol::{Generation, event::Severity};
use holdfast_store::ApplyRecord;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

/// Names the state directory to the child process.
const CHILD: &str = "HOLDFAST_STORE_TEST_CHILD";

fn entry(name: &str) -> InventoryEntry {
    InventoryEntry {
        key: holdfast_core::object::ObjectKey {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            namespace: Some("default".into()),
            name: name.into(),
        },
        app: "web".into(),
        digest: None,
        fingerprint: None,
        keep: false,
    }
}

/// Takes documents through all steps and says each one that returned, as a daemon would acknowledge it.
fn take_documents(directory: &Path, count: u64) -> u64 {
    let store = open(directory);
    let first = store
        .highest()
        .unwrap()
        .map_or(1, |highest| highest.generation.counter + 1);
    let mut out = std::io::stdout();
    let mut say = |counter: u64, step: &str| {
        // In one call, so that a kill cannot tear the line.
        let _ = out.write_all(format!("ack {counter} {step}\n").as_bytes());
        let _ = out.flush();
    };
    for counter in first..first + count {
        let document = document(&format!("1.{counter}"), 3_000);
        let digest = document.digest();
        store
            .commit(&document, &[event(Severity::Info, "accepted")], now())
            .unwrap();
        say(counter, "accepted");
        store.flush_floor().unwrap();
        let name = format!("object-{counter}");
        store.begin_apply(digest, &[entry(&name)], now()).unwrap();
        say(counter, "applying");
        let record = ApplyRecord {
            written: vec![InventoryEntry {
                digest: Some(digest),
                ..entry(&name)
            }],
            removed: vec![entry(&format!("object-{}", counter.saturating_sub(3))).key],
            complete: true,
        };
        store
            .record_apply(digest, &record, &[event(Severity::Info, "applied")], now())
            .unwrap();
        say(counter, "applied");
        store
            .mark_step(
                digest,
                &JournalStep::Proven,
                &[event(Severity::Info, "proven")],
                now(),
            )
            .unwrap();
        say(counter, "proven");
    }
    first + count - 1
}

/// The child process of the test below; on its own it takes a few documents and looks for them.
#[test]
fn documents_taken_through_all_steps_are_proven() {
    if let Some(directory) = std::env::var_os(CHILD) {
        take_documents(Path::new(&directory), 1_000_000);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let last = take_documents(directory.path(), 5);
    let recovered = open(directory.path()).recover().unwrap();
    assert_eq!(
        recovered.proven,
        Some(Generation {
            epoch: 1,
            counter: last
        })
    );
}

fn rank(step: &str) -> u8 {
    match step {
        "accepted" => 0,
        "applying" => 1,
        "applied" => 2,
        "proven" => 3,
        other => panic!("unknown step {other}"),
    }
}

#[test]
fn whatever_was_acknowledged_survives_kill_9_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let mut sequence = 0;
    for round in 0_u64..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crash::documents_taken_through_all_steps_are_proven",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        // Another moment in each round; the test runner's own first lines are passed over.
        let wanted = 1 + (round * 7) % 23;
        let mut acknowledged = None;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        let mut killed = false;
        for line in lines.map_while(Result::ok) {
            let Some((counter, step)) = line.split_once("ack ").and_then(|(_, rest)| rest.split_once(' '))
            else {
                continue;
            };
            acknowledged = Some((counter.parse::<u64>().unwrap(), rank(step)));
            seen += 1;
            if seen == wanted && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        let (counter, step) = acknowledged.expect("the child acknowledged something");

        let store = open(directory.path());
        let newest = store.newest().unwrap().expect("an acknowledged document is lost");
        assert!(
            newest.generation.counter >= counter,
            "acknowledged {counter}, found {}",
            newest.generation
        );
        readmit(&newest.envelope, &trust(), &node()).expect("a torn document");
        if newest.generation.counter == counter {
            let found = match newest.step {
                JournalStep::Accepted => 0,
                JournalStep::Applying => 1,
                JournalStep::Applied => 2,
                JournalStep::Proven => 3,
                other => panic!("nothing failed or switched, but: {other:?}"),
            };
            assert!(found >= step, "acknowledged step {step}, found {found}");
        }
        let highest = store.highest().unwrap().unwrap();
        assert_eq!(highest.generation, newest.generation);
        assert_eq!(highest.digest, newest.digest);
        // What may exist in the cluster is in the inventory.
        if step >= 1 {
            let name = format!("object-{counter}");
            assert!(
                store
                    .inventory()
                    .unwrap()
                    .iter()
                    .any(|entry| entry.key.name == name),
                "{name} would never be pruned"
            );
        }
        // Sequences go on without a gap or a double.
        let pending = store.pending_events(usize::MAX).unwrap();
        for pair in pending.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence + 1);
        }
        let last = pending.last().unwrap().sequence;
        assert!(last > sequence);
        sequence = last;
    }
}
