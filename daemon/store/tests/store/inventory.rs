//! What was applied, or may have been.

use crate::support::{document, now, open};
use holdfast_core::{object::ObjectKey, plan::InventoryEntry, reconcile::JournalStep};
use holdfast_protocol::Digest;
use holdfast_store::ApplyRecord;

fn entry(api_version: &str, namespace: Option<&str>, name: &str, content: Option<&[u8]>) -> InventoryEntry {
    InventoryEntry {
        key: ObjectKey {
            api_version: api_version.into(),
            kind: "Thing".into(),
            namespace: namespace.map(Into::into),
            name: name.into(),
        },
        app: "web".into(),
        digest: content.map(Digest::of),
        fingerprint: content.map(|content| u64::MAX - content.len() as u64),
        keep: name == "kept",
    }
}

#[test]
fn intents_come_before_writes_and_never_hide_what_was_applied() {
    let directory = tempfile::tempdir().unwrap();
    let document = document("1.1", 0);
    let store = open(directory.path());
    store.commit(&document, &[], now()).unwrap();
    let applied = entry("x/v1", Some("a"), "one", Some(b"1"));
    let record = ApplyRecord {
        written: vec![applied.clone()],
        ..ApplyRecord::default()
    };
    store
        .record_apply(document.digest(), &record, &[], now())
        .unwrap();
    assert_eq!(store.newest().unwrap().unwrap().step, JournalStep::Accepted);

    let new = entry("x/v1", None, "kept", None);
    let again = entry("x/v1", Some("a"), "one", None);
    store
        .begin_apply(document.digest(), &[again, new.clone()], now())
        .unwrap();
    assert_eq!(store.newest().unwrap().unwrap().step, JournalStep::Applying);
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.inventory().unwrap(), [new, applied]);
}

#[test]
fn another_version_of_an_object_takes_its_entry_over() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let digest = Digest::of(b"document");
    let record = |entry: &InventoryEntry| ApplyRecord {
        written: vec![entry.clone()],
        ..ApplyRecord::default()
    };
    let old = entry("x/v1beta1", Some("a"), "one", Some(b"1"));
    let new = entry("x/v1", Some("a"), "one", Some(b"2"));
    store.record_apply(digest, &record(&old), &[], now()).unwrap();
    store.record_apply(digest, &record(&new), &[], now()).unwrap();
    assert_eq!(store.inventory().unwrap(), std::slice::from_ref(&new));
    let gone = ApplyRecord {
        removed: vec![new.key],
        ..ApplyRecord::default()
    };
    store.record_apply(digest, &gone, &[], now()).unwrap();
    assert_eq!(store.inventory().unwrap(), []);
}
