//! Blobs by content.

use holdfast_protocol::{Digest, codes as protocol_codes};
use holdfast_store::{BlobError, Blobs, codes};
use std::collections::BTreeSet;

fn content() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn partial(directory: &std::path::Path, digest: Digest) -> std::path::PathBuf {
    directory.join("store/blobs/partial").join(digest.hex())
}

#[test]
fn a_fetch_that_was_cut_off_goes_on_where_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let content = content();
    let (digest, size) = (Digest::of(&content), content.len() as u64);
    for (from, to) in [(0, 1_000), (1_000, 70_000), (70_000, content.len())] {
        let blobs = Blobs::open(directory.path()).unwrap();
        assert!(!blobs.contains(digest, size));
        let mut writer = blobs.writer(digest, size).unwrap();
        assert_eq!(writer.offset(), from as u64);
        for chunk in content[from..to].chunks(777) {
            writer.write(chunk).unwrap();
        }
        let ended = writer.finish();
        assert_eq!(ended.is_ok(), to == content.len(), "{ended:?}");
    }
    let blobs = Blobs::open(directory.path()).unwrap();
    assert!(blobs.contains(digest, size));
    assert_eq!(blobs.read(digest).unwrap(), content);
    assert!(!partial(directory.path(), digest).exists());
}

#[test]
fn other_content_is_refused_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(directory.path()).unwrap();
    let digest = Digest::of(b"wanted");
    let mut writer = blobs.writer(digest, 6).unwrap();
    writer.write(b"forged").unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.problem().code, protocol_codes::BLOB_DIGEST_MISMATCH);
    assert!(!blobs.contains(digest, 6));
    assert!(!partial(directory.path(), digest).exists());
    // Nor does more of it than the document says.
    let mut writer = blobs.writer(digest, 6).unwrap();
    let error = writer.write(b"wanted and more").unwrap_err();
    assert_eq!(error.problem().code, codes::BLOB_SIZE_MISMATCH);
    assert!(!partial(directory.path(), digest).exists());
}

#[test]
fn a_server_that_cannot_go_on_from_an_offset_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(directory.path()).unwrap();
    let digest = Digest::of(b"wanted");
    blobs.writer(digest, 6).unwrap().write(b"wan").unwrap();
    let mut writer = blobs.writer(digest, 6).unwrap();
    assert_eq!(writer.offset(), 3);
    writer.restart().unwrap();
    writer.write(b"wanted").unwrap();
    writer.finish().unwrap();
    assert_eq!(blobs.read(digest).unwrap(), b"wanted");
}

#[test]
fn a_blob_that_the_disk_spoilt_is_never_given_out() {
    let directory = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(directory.path()).unwrap();
    let digest = blobs.put(b"content").unwrap();
    holdfast_store::fs::write_atomic(&blobs.path(digest), b"cOntent", 0o600).unwrap();
    assert!(matches!(
        blobs.read(digest),
        Err(BlobError::DigestMismatch { .. })
    ));
    assert!(matches!(blobs.read(digest), Err(BlobError::Missing { .. })));
    assert_eq!(blobs.put(b"content").unwrap(), digest);
    assert_eq!(blobs.read(digest).unwrap(), b"content");
}

#[test]
fn only_what_is_referred_to_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(directory.path()).unwrap();
    let (kept, gone) = (blobs.put(b"kept").unwrap(), blobs.put(b"gone").unwrap());
    blobs
        .writer(Digest::of(b"half"), 4)
        .unwrap()
        .write(b"ha")
        .unwrap();
    let collected = blobs.collect_garbage(&BTreeSet::from([kept])).unwrap();
    assert_eq!((collected.blobs, collected.bytes), (2, 6));
    assert!(blobs.contains(kept, 4) && !blobs.contains(gone, 4));
    assert_eq!(blobs.collect_garbage(&BTreeSet::from([kept])).unwrap().blobs, 0);
}

#[test]
fn a_blob_that_can_never_fit_is_refused_before_its_first_byte() {
    let directory = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(directory.path()).unwrap();
    let refused = blobs.writer(Digest::of(b"huge"), u64::MAX / 2).err().unwrap();
    assert_eq!(refused.problem().code, protocol_codes::DISK_FULL);
}
