//! The signed envelope.

use crate::golden;
use holdfast_protocol::{
    MAX_ENVELOPE_BYTES,
    envelope::{Envelope, EnvelopeError, MAX_SIGNATURES, TIME_TYPE, TimeStatement},
    trust::{Role, TrustPolicy, TrustedKey},
};
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::collections::BTreeMap;

/// A key that is always the same.
pub(crate) fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

pub(crate) fn trust(seeds: &[u8], threshold: u16) -> TrustPolicy {
    TrustPolicy {
        keys: seeds
            .iter()
            .map(|seed| {
                TrustedKey::ed25519(
                    key(*seed).public_key().as_ref(),
                    vec![Role::DesiredState, Role::Time],
                )
            })
            .collect(),
        thresholds: BTreeMap::from([(Role::DesiredState, threshold)]),
    }
}

pub(crate) fn signed_time() -> Envelope {
    let statement = TimeStatement {
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
    };
    Envelope::sign(TIME_TYPE, serde_json::to_vec(&statement).unwrap(), &[&key(1)])
}

#[test]
fn the_trust_policy_and_the_signed_time_have_their_golden_forms() {
    golden::check("trust.json", &trust(&[1, 2], 2));
    golden::check("time.envelope.json", &signed_time());
    signed_time().verify(&trust(&[1], 1), Role::Time).unwrap();
}

#[test]
fn what_is_signed_is_what_the_dsse_specification_says() {
    // The example of https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
    let envelope = Envelope {
        payload_type: "http://example.com/HelloWorld".into(),
        payload: b"hello world".to_vec(),
        signatures: vec![],
    };
    assert_eq!(
        envelope.pre_authentication_encoding(),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}

#[test]
fn the_golden_envelope_is_trusted_and_nothing_else_is() {
    let text = golden::read("desired-state.envelope.json");
    let envelope = Envelope::from_json(text.as_bytes()).unwrap();
    envelope.verify(&trust(&[1], 1), Role::DesiredState).unwrap();
    envelope.verify(&trust(&[2, 1], 1), Role::DesiredState).unwrap();
    for policy in [
        trust(&[2], 1),
        trust(&[1, 2], 2),
        trust(&[], 0),
        TrustPolicy::default(),
    ] {
        assert!(matches!(
            envelope.verify(&policy, Role::DesiredState),
            Err(EnvelopeError::Untrusted { .. })
        ));
    }
    // A key that goes by another's name.
    let mut renamed = trust(&[2], 1);
    renamed.keys[0].key_id = trust(&[1], 1).keys[0].key_id;
    assert!(envelope.verify(&renamed, Role::DesiredState).is_err());
}

#[test]
fn a_signature_of_one_type_is_none_of_another() {
    let mut envelope = signed_time();
    envelope.payload_type = "application/vnd.holdfast.desired-state.v1+json".into();
    assert!(envelope.verify(&trust(&[1], 1), Role::Time).is_err());
}

#[test]
fn a_threshold_of_zero_still_needs_a_signature() {
    let mut envelope = signed_time();
    envelope.verify(&trust(&[1], 0), Role::DesiredState).unwrap();
    envelope.signatures.clear();
    assert_eq!(
        envelope.verify(&trust(&[1], 0), Role::DesiredState),
        Err(EnvelopeError::Unsigned)
    );
}

#[test]
fn one_key_that_signs_twice_counts_once() {
    let mut envelope = signed_time();
    envelope.signatures.push(envelope.signatures[0].clone());
    assert!(matches!(
        envelope.verify(&trust(&[1, 2], 2), Role::DesiredState),
        Err(EnvelopeError::Untrusted {
            valid: 1,
            threshold: 2,
            ..
        })
    ));
    // Nor does one key that the policy names twice.
    let mut twice = trust(&[1, 1], 2);
    twice.keys[1].roles = vec![Role::DesiredState];
    assert!(envelope.verify(&twice, Role::DesiredState).is_err());
}

#[test]
fn too_many_signatures_are_refused_before_any_is_checked() {
    let mut envelope = signed_time();
    envelope.signatures = vec![envelope.signatures[0].clone(); MAX_SIGNATURES + 1];
    assert!(matches!(
        envelope.verify(&trust(&[1], 1), Role::Time),
        Err(EnvelopeError::TooManySignatures { .. })
    ));
}

#[test]
fn the_largest_envelope_is_accepted_and_a_byte_more_is_not() {
    let bytes = |length: usize| {
        let mut bytes = signed_time().to_json();
        bytes.resize(length, b' ');
        bytes
    };
    Envelope::from_json(&bytes(MAX_ENVELOPE_BYTES)).unwrap();
    assert_eq!(
        Envelope::from_json(&bytes(MAX_ENVELOPE_BYTES + 1)),
        Err(EnvelopeError::TooLarge {
            bytes: MAX_ENVELOPE_BYTES + 1
        })
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(envelope) = Envelope::from_json(&bytes) {
            prop_assert!(envelope.verify(&trust(&[1], 1), Role::Time).is_err());
        }
    }

    #[test]
    fn one_flipped_bit_breaks_the_signature(at: usize, bit in 0_u8..8) {
        let mut envelope = signed_time();
        let at = at % envelope.payload.len();
        envelope.payload[at] ^= 1 << bit;
        prop_assert!(envelope.verify(&trust(&[1], 1), Role::Time).is_err());
    }
}
