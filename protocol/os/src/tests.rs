//! What holds of cutting, packing, manifests and chunks.

// These files are the input of a test; what writes the product's files is elsewhere.
#![allow(clippy::disallowed_methods)]

use crate::{samples::noise, *};
use holdfast_protocol::{
    Digest,
    envelope::Envelope,
    trust::{Role, TrustPolicy, TrustedKey},
};
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use ruzstd::decoding::FrameDecoder;
use std::{collections::BTreeSet, fs, path::Path};

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn trust(key: &Ed25519KeyPair, role: Role) -> TrustPolicy {
    TrustPolicy {
        keys: vec![TrustedKey::ed25519(key.public_key().as_ref(), vec![role])],
        ..TrustPolicy::default()
    }
}

fn image(directory: &Path, usr: &[u8]) -> (Manifest, Vec<u8>) {
    for (name, content) in [("usr", usr), ("verity", &usr[..8192]), ("uki", &usr[..12_345])] {
        fs::write(directory.join(name), content).unwrap();
    }
    let files = Files {
        version: "7",
        architecture: Architecture::Amd64,
        usr_hash: &"0f".repeat(32),
        usr: &directory.join("usr"),
        verity: &directory.join("verity"),
        uki: &directory.join("uki"),
    };
    let out = directory.join("holdfast_7.pack");
    (pack(&files, &out).unwrap(), fs::read(out).unwrap())
}

fn small() -> (Manifest, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    image(directory.path(), &noise(1, 256 * 1024))
}

fn digests(content: &[u8]) -> BTreeSet<Digest> {
    Cutter::new(content).map(|cut| cut.unwrap().digest()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_cut_is_the_same_when_joined(seed: u64, size in 0_usize..400_000) {
        let content = noise(seed, size);
        let mut joined = Vec::new();
        for cut in Cutter::new(content.as_slice()) {
            let cut = cut.unwrap();
            prop_assert_eq!(cut.offset, joined.len() as u64);
            prop_assert!(cut.data.len() <= MAX_CHUNK_BYTES);
            joined.extend(cut.data);
        }
        prop_assert_eq!(joined, content);
    }

    #[test]
    fn one_insertion_changes_few_chunks(seed: u64, at in 0_usize..2_000_000, size in 1_usize..9_000) {
        let old = noise(seed, 2_000_000);
        let mut new = old.clone();
        new.splice(at..at, noise(!seed, size));
        let fresh = digests(&new).difference(&digests(&old)).count();
        prop_assert!(fresh <= 8, "{fresh} chunks changed");
    }
}

/// A reader that gives few bytes at a time.
struct Dribble<'a>(&'a [u8], usize);

impl std::io::Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let size = self.1.min(self.0.len()).min(buffer.len());
        buffer[..size].copy_from_slice(&self.0[..size]);
        self.0 = &self.0[size..];
        Ok(size)
    }
}

#[test]
fn cuts_do_not_depend_on_how_the_content_is_read() {
    let content = noise(3, 700_000);
    let whole: Vec<_> = Cutter::new(content.as_slice()).map(Result::unwrap).collect();
    let dribbled: Vec<_> = Cutter::new(Dribble(&content, 1013)).map(Result::unwrap).collect();
    assert_eq!(whole, dribbled);
}

/// The places of cuts are part of what boxes in the field rely on: with others, each fetches a whole image once.
#[test]
fn the_places_of_cuts_never_change() {
    let content = noise(5, 200_000);
    let cuts: Vec<_> = Cutter::new(content.as_slice())
        .map(|cut| cut.unwrap().data.len())
        .collect();
    assert_eq!(cuts, GOLDEN_CUTS);
    let zeros: Vec<_> = Cutter::new(vec![0; 150_000].as_slice())
        .map(|cut| cut.unwrap().data.len())
        .collect();
    assert_eq!(zeros, [65_536, 65_536, 18_928]);
}

const GOLDEN_CUTS: &[usize] = &[
    5811, 11903, 13428, 11781, 15894, 22096, 20315, 23439, 14365, 20177, 23430, 17361,
];

#[test]
fn every_chunk_of_a_pack_opens_to_its_part() {
    let directory = tempfile::tempdir().unwrap();
    let mut usr = noise(1, 200_000);
    usr.resize(usr.len() + 200_000, 7);
    usr.resize(409_600, 0);
    let (manifest, pack) = image(directory.path(), &usr);
    assert_eq!(manifest.pack.digest, Digest::of(&pack));
    assert_eq!(manifest.pack.size, pack.len() as u64);
    let mut decoder = FrameDecoder::new();
    for (name, part) in manifest.parts() {
        let mut joined = Vec::new();
        for (at, chunk) in part.placed() {
            assert_eq!(at, joined.len() as u64);
            let frame = &pack[chunk.offset as usize..chunk.end() as usize];
            joined.extend(chunk.open(frame, &mut decoder).unwrap());
        }
        assert_eq!(joined, fs::read(directory.path().join(name)).unwrap(), "{name}");
    }
    assert!(
        pack.len() < 260_000,
        "what is there twice is packed once, and packed"
    );
}

#[test]
fn the_same_files_give_the_same_bytes() {
    assert_eq!(small(), small());
    let (manifest, _) = small();
    let keys = [&key(1)];
    assert_eq!(sign(&manifest, &keys).unwrap(), sign(&manifest, &keys).unwrap());
}

#[test]
fn a_manifest_is_believed_by_its_signer_and_its_type() {
    let (manifest, _) = small();
    let signed = sign(&manifest, &[&key(1)]).unwrap();
    let read = SignedManifest::verify(&signed, &trust(&key(1), Role::OsImage)).unwrap();
    assert_eq!((read.manifest, read.digest), (manifest, Digest::of(&signed)));

    let code = |bytes: &[u8], trust: &TrustPolicy| {
        SignedManifest::verify(bytes, trust)
            .unwrap_err()
            .problem()
            .code
            .into_owned()
    };
    let good = trust(&key(1), Role::OsImage);
    assert_eq!(
        code(&signed, &trust(&key(2), Role::OsImage)),
        codes::OS_MANIFEST_UNTRUSTED
    );
    let other_role = trust(&key(1), Role::DesiredState);
    assert_eq!(code(&signed, &other_role), codes::OS_MANIFEST_UNTRUSTED);
    assert_eq!(
        code(&signed, &TrustPolicy::default()),
        codes::OS_MANIFEST_UNTRUSTED
    );

    let envelope: Envelope = serde_json::from_slice(&signed).unwrap();
    let mut tampered = envelope.clone();
    let last = tampered.payload.len() - 5;
    tampered.payload[last] ^= 1;
    assert_eq!(code(&tampered.to_json(), &good), codes::OS_MANIFEST_UNTRUSTED);
    let unsigned = Envelope {
        signatures: Vec::new(),
        ..envelope.clone()
    };
    assert_eq!(code(&unsigned.to_json(), &good), codes::OS_MANIFEST_UNTRUSTED);

    let as_other = Envelope::sign("application/vnd.other+json", envelope.payload, &[&key(1)]);
    assert_eq!(code(&as_other.to_json(), &good), codes::OS_MANIFEST_INVALID);
    let nonsense = Envelope::sign(MANIFEST_TYPE, b"{}".to_vec(), &[&key(1)]);
    assert_eq!(code(&nonsense.to_json(), &good), codes::OS_MANIFEST_INVALID);
    assert_eq!(code(b"{", &good), codes::OS_MANIFEST_INVALID);
    assert_eq!(
        code(&vec![b' '; MAX_MANIFEST_BYTES + 1], &good),
        codes::OS_MANIFEST_INVALID
    );
}

#[test]
fn values_that_no_image_can_have_are_refused_by_name() {
    type Spoil = fn(&mut Manifest);
    let cases: &[(&str, Spoil)] = &[
        ("version", |it| it.version = "../7".into()),
        ("version", |it| it.version = "1".repeat(21)),
        ("usrHash", |it| it.usr_hash = "0F".repeat(32)),
        ("usrHash", |it| it.usr_hash.truncate(63)),
        ("pack.size", |it| it.pack.size = 0),
        ("pack.size", |it| it.pack.size = u64::MAX),
        ("usr.size", |it| it.usr.size += 1),
        ("usr.size", |it| it.usr.size = MAX_USR_BYTES + 4096),
        ("usr.chunks", |it| it.usr.size += 4096),
        ("usr.chunks", |it| it.usr.chunks.truncate(3)),
        ("usr.chunks[2]", |it| it.usr.chunks[2].size = 0),
        ("usr.chunks[2]", |it| {
            it.usr.chunks[2].size = MAX_CHUNK_BYTES as u32 + 1;
        }),
        ("usr.chunks[2]", |it| it.usr.chunks[2].length = 0),
        ("usr.chunks[2]", |it| {
            it.usr.chunks[2].length = MAX_FRAME_BYTES as u32 + 1;
        }),
        ("usr.chunks[2]", |it| it.usr.chunks[2].offset = u64::MAX),
        ("usr.chunks[2]", |it| it.usr.chunks[2].offset = it.pack.size),
        ("usr.chunks[2]", |it| {
            it.usr.chunks[2].digest = it.usr.chunks[1].digest;
        }),
        ("verity.size", |it| it.verity.size = 4095),
        ("uki.size", |it| it.uki.size = 0),
        ("uki.size", |it| it.uki.size = MAX_UKI_BYTES + 1),
    ];
    let (good, _) = small();
    assert_eq!(good.validate(), Ok(()));
    for (index, (field, spoil)) in cases.iter().enumerate() {
        let mut manifest = good.clone();
        spoil(&mut manifest);
        match manifest.validate() {
            Err(OsError::Invalid { field: found, .. }) => assert_eq!(found, *field, "case {index}"),
            other => panic!("case {index} ({field}): {other:?}"),
        }
        assert!(sign(&manifest, &[&key(1)]).is_err(), "case {index} is not signed");
    }
    let mut newer = good;
    newer.schema.major += 1;
    assert!(matches!(newer.validate(), Err(OsError::Schema(_))));
}

#[test]
fn a_damaged_chunk_is_named() {
    let (manifest, pack) = small();
    let chunk = manifest.usr.chunks[1];
    let frame = &pack[chunk.offset as usize..chunk.end() as usize];
    let mut decoder = FrameDecoder::new();
    let mut told = |frame: &[u8]| match chunk.open(frame, &mut decoder) {
        Err(OsError::Damaged { digest, .. }) => assert_eq!(digest, chunk.digest),
        other => panic!("{other:?}"),
    };
    for at in [0, 4, 5, frame.len() / 2, frame.len() - 1] {
        let mut flipped = frame.to_vec();
        flipped[at] ^= 0x40;
        told(&flipped);
    }
    told(&[]);
    told(&frame[..frame.len() - 1]);
    let other = manifest.usr.chunks[2];
    told(&pack[other.offset as usize..other.end() as usize]);
    told(&[frame, frame].concat());
    // A frame that says it needs 1 GiB of memory is not given it.
    told(&zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap());
    // And nothing of this spoils the next.
    assert!(chunk.open(frame, &mut decoder).is_ok());
}

/// The wire form, which boxes in the field read.
#[test]
fn the_form_on_the_wire_never_changes() {
    let golden = include_str!("../tests/golden/manifest.json");
    let manifest = Manifest::from_payload(golden.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&manifest).unwrap(), golden.trim_end());
    assert_eq!(manifest.usr.chunks[1].offset, 3);
    assert_eq!(manifest.verity.chunks[0].offset, 0);
    assert_eq!(manifest.uki.chunks[0].offset, 5);
}

#[test]
fn a_list_of_chunks_that_is_none_is_refused() {
    let golden = include_str!("../tests/golden/manifest.json");
    for (from, to) in [
        (r",2048,3]", r",2048]"),
        (r",2048,3]", r",-1,3]"),
        ("AQEB", "AQ=="),
        (r#""size":4096"#, r#""size":"4096""#),
    ] {
        let spoilt = golden.replacen(from, to, 1);
        assert_ne!(spoilt, golden, "{from}");
        assert!(
            matches!(
                Manifest::from_payload(spoilt.as_bytes()),
                Err(OsError::Malformed { .. })
            ),
            "{from} → {to}"
        );
    }
}

#[test]
fn the_zeros_behind_a_file_system_take_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let mut usr = noise(1, 200_704);
    usr.resize(64 << 20, 0);
    let (manifest, pack) = image(directory.path(), &usr);
    assert!(manifest.usr.chunks.len() > 1000);
    assert!(pack.len() < 300_000);
    let signed = sign(&manifest, &[&key(1)]).unwrap();
    assert!(signed.len() < 6_000, "{} bytes", signed.len());
    let read = SignedManifest::verify(&signed, &trust(&key(1), Role::OsImage)).unwrap();
    assert_eq!(read.manifest, manifest);

    // Nobody is made to keep more of them than there may be.
    let golden = include_str!("../tests/golden/manifest.json");
    let endless = golden.replacen(",2048,3]", ",2048,3,0,4000000000]", 1);
    assert_ne!(endless, golden);
    assert!(matches!(
        Manifest::from_payload(endless.as_bytes()),
        Err(OsError::Malformed { .. })
    ));
}
