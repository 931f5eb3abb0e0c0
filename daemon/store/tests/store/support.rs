//! Documents and events for the tests.

use holdfast_core::admission::{VerifiedDocument, readmit};
use holdfast_protocol::{
    NodeId, SchemaVersion,
    envelope::{DESIRED_STATE_TYPE, Envelope},
    event::{Event, EventKind, Severity},
    trust::{Role, TrustPolicy, TrustedKey},
};
use holdfast_store::{Options, Store};
use jiff::Timestamp;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Map, json};
use std::path::Path;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

pub(crate) fn later(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap()
}

fn signer() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap()
}

pub(crate) fn trust() -> TrustPolicy {
    TrustPolicy {
        keys: vec![TrustedKey::ed25519(
            signer().public_key().as_ref(),
            vec![Role::DesiredState],
        )],
        ..TrustPolicy::default()
    }
}

pub(crate) fn node() -> NodeId {
    "shop-17".parse().unwrap()
}

/// A document as it would come from the hub, with `filler` more bytes.
pub(crate) fn document(generation: &str, filler: usize) -> VerifiedDocument {
    let payload = json!({
        "schema": "1.0",
        "node": "shop-17",
        "generation": generation,
        "issuedAt": "2026-01-02T03:04:05Z",
        "apps": [],
        "filler": "x".repeat(filler)
    });
    let envelope = Envelope::sign(DESIRED_STATE_TYPE, payload.to_string().into_bytes(), &[&signer()]);
    readmit(&envelope.to_json(), &trust(), &node()).unwrap()
}

pub(crate) fn event(severity: Severity, message: &str) -> Event {
    Event {
        schema: SchemaVersion::CURRENT,
        node: node(),
        sequence: 0,
        at: now(),
        kind: EventKind::Problem,
        severity,
        message: message.to_owned(),
        generation: None,
        problem: None,
        details: Map::new(),
    }
}

pub(crate) fn open(directory: &Path) -> Store {
    Store::open(directory, Options::default()).unwrap()
}
