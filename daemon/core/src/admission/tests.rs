//! What admission lets through, and what it names.

use super::*;
use holdfast_protocol::{MAX_ENVELOPE_BYTES, trust::TrustedKey};
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

fn signer(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed of 32 bytes")
}

fn trust(seeds: &[u8]) -> TrustPolicy {
    TrustPolicy {
        keys: seeds
            .iter()
            .map(|seed| TrustedKey::ed25519(signer(*seed).public_key().as_ref(), vec![Role::DesiredState]))
            .collect(),
        ..TrustPolicy::default()
    }
}

fn node() -> NodeId {
    "shop-17".parse().expect("a valid name")
}

fn payload(counter: u64) -> Value {
    json!({
        "schema": "1.0",
        "node": "shop-17",
        "generation": format!("1.{counter}"),
        "issuedAt": "2026-01-02T03:04:05Z",
        "apps": [{
            "name": "web",
            "manifests": [{"inline": [{
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"a": "1"}
            }]}]
        }]
    })
}

fn signed(payload: &Value, seed: u8) -> Vec<u8> {
    Envelope::sign(
        DESIRED_STATE_TYPE,
        payload.to_string().into_bytes(),
        &[&signer(seed)],
    )
    .to_json()
}

fn highest(counter: u64, payload: &Value, stored: bool) -> Highest {
    Highest {
        generation: Generation { epoch: 1, counter },
        digest: Digest::of(payload.to_string().as_bytes()),
        stored,
    }
}

fn rejection(bytes: &[u8], trust: &TrustPolicy, highest: Option<Highest>) -> Rejection {
    match admit(bytes, trust, &node(), highest) {
        Err(rejection) => *rejection,
        Ok(admission) => panic!("it was let through: {admission:?}"),
    }
}

#[test]
fn a_signed_document_for_this_node_is_accepted_with_its_exact_bytes() {
    let bytes = signed(&payload(1), 1);
    let Ok(Admission::Accept(document)) = admit(&bytes, &trust(&[1]), &node(), None) else {
        panic!("a good document is refused");
    };
    assert_eq!(document.envelope(), bytes);
    assert_eq!(document.digest(), Digest::of(payload(1).to_string().as_bytes()));
    assert_eq!(document.generation(), Generation { epoch: 1, counter: 1 });
    assert_eq!(readmit(&bytes, &trust(&[1]), &node()), Ok(document));
}

#[test]
fn fields_of_a_newer_minor_version_are_kept() {
    let mut newer = payload(1);
    newer["schema"] = "1.7".into();
    newer["rollback"] = json!({"to": "1.0"});
    newer["apps"][0]["priority"] = 3.into();
    let document = readmit(&signed(&newer, 1), &trust(&[1]), &node()).expect("a readable document");
    let state = document.into_state();
    assert_eq!(state.extra["rollback"], json!({"to": "1.0"}));
    assert_eq!(state.apps[0].extra["priority"], 3);
}

#[test]
fn what_is_wrong_is_named() {
    let good = payload(5);
    let with = |field: &str, value: Value| {
        let mut changed = good.clone();
        changed[field] = value;
        signed(&changed, 1)
    };
    let other_type = |payload_type: &str| {
        Envelope::sign(payload_type, good.to_string().into_bytes(), &[&signer(1)]).to_json()
    };
    let unsigned = Envelope::sign(DESIRED_STATE_TYPE, good.to_string().into_bytes(), &[]).to_json();
    let not_json = Envelope::sign(DESIRED_STATE_TYPE, b"{".to_vec(), &[&signer(1)]).to_json();
    let newer = Some(highest(6, &good, true));
    let other = Some(highest(5, &payload(4), true));
    let cases = [
        (
            vec![b' '; MAX_ENVELOPE_BYTES + 1],
            None,
            codes::ENVELOPE_TOO_LARGE,
            false,
            false,
        ),
        (b"hello".to_vec(), None, codes::DOCUMENT_MALFORMED, false, false),
        (b"{}".to_vec(), None, codes::DOCUMENT_MALFORMED, false, false),
        (
            other_type("text/plain"),
            None,
            codes::PAYLOAD_TYPE_UNKNOWN,
            false,
            false,
        ),
        (
            other_type("application/vnd.holdfast.desired-state.v2+json"),
            None,
            codes::SCHEMA_UNSUPPORTED,
            false,
            false,
        ),
        (unsigned, None, codes::DOCUMENT_UNSIGNED, true, false),
        (signed(&good, 2), None, codes::SIGNATURE_INVALID, true, false),
        (
            with("schema", "2.0".into()),
            None,
            codes::SCHEMA_UNSUPPORTED,
            false,
            false,
        ),
        (not_json, None, codes::DOCUMENT_MALFORMED, false, false),
        (
            with("apps", "none".into()),
            None,
            codes::DOCUMENT_MALFORMED,
            false,
            false,
        ),
        (
            with("node", "shop-18".into()),
            None,
            codes::WRONG_NODE,
            true,
            true,
        ),
        (
            with("generation", "0.5".into()),
            None,
            codes::DOCUMENT_INVALID,
            false,
            true,
        ),
        (signed(&good, 1), newer, codes::GENERATION_OLDER, false, true),
        (signed(&good, 1), other, codes::GENERATION_CONFLICT, true, true),
    ];
    for (bytes, highest, code, alarm, has_generation) in cases {
        let rejection = rejection(&bytes, &trust(&[1]), highest);
        assert_eq!(rejection.problem.code, code, "{rejection:?}");
        assert_eq!(rejection.alarm, alarm, "{rejection:?}");
        assert_eq!(rejection.generation.is_some(), has_generation, "{rejection:?}");
        assert!(!rejection.problem.action.is_empty(), "{rejection:?}");
    }
}

#[test]
fn an_unknown_major_is_named_even_if_nothing_else_can_be_read() {
    let alien = json!({"schema": "3.1", "spec": {}});
    let rejection = rejection(&signed(&alien, 1), &trust(&[1]), None);
    assert_eq!(rejection.problem.code, codes::SCHEMA_UNSUPPORTED);
    assert!(rejection.problem.message.contains("3.1"), "{rejection:?}");
}

#[test]
fn nothing_of_an_untrusted_payload_is_parsed() {
    // Deep nesting would be an error of the parser, if it came to that.
    let bomb = "[".repeat(100_000).into_bytes();
    let bytes = Envelope::sign(DESIRED_STATE_TYPE, bomb, &[&signer(2)]).to_json();
    let rejection = rejection(&bytes, &trust(&[1]), None);
    assert_eq!(rejection.problem.code, codes::SIGNATURE_INVALID);
}

#[test]
fn a_threshold_counts_different_keys() {
    let mut two = trust(&[1, 2]);
    two.thresholds.insert(Role::DesiredState, 2);
    let bytes = payload(1).to_string().into_bytes();
    let sign = |seeds: &[u8]| {
        let signers: Vec<_> = seeds.iter().map(|seed| signer(*seed)).collect();
        Envelope::sign(
            DESIRED_STATE_TYPE,
            bytes.clone(),
            &signers.iter().collect::<Vec<_>>(),
        )
        .to_json()
    };
    assert_eq!(
        rejection(&sign(&[1, 1]), &two, None).problem.code,
        codes::SIGNATURE_INVALID
    );
    assert!(admit(&sign(&[1, 2]), &two, &node(), None).is_ok());
}

#[test]
fn a_key_of_another_role_signs_no_documents() {
    let mut time_only = trust(&[1]);
    time_only.keys[0].roles = vec![Role::Time];
    assert_eq!(
        rejection(&signed(&payload(1), 1), &time_only, None).problem.code,
        codes::SIGNATURE_INVALID
    );
}

#[test]
fn pain_19_a_duplicate_is_no_news_unless_it_was_lost() {
    let bytes = signed(&payload(5), 1);
    let admission = |stored| {
        admit(
            &bytes,
            &trust(&[1]),
            &node(),
            Some(highest(5, &payload(5), stored)),
        )
    };
    let generation = Generation { epoch: 1, counter: 5 };
    assert_eq!(admission(true), Ok(Admission::Duplicate { generation }));
    assert!(matches!(admission(false), Ok(Admission::Accept(_))));
}

#[test]
fn a_row_altered_in_the_store_has_no_effect() {
    let mut envelope = Envelope::from_json(&signed(&payload(5), 1)).expect("an envelope");
    envelope.payload = payload(6).to_string().into_bytes();
    let rejection = readmit(&envelope.to_json(), &trust(&[1]), &node()).expect_err("a forged row");
    assert_eq!(rejection.problem.code, codes::SIGNATURE_INVALID);
}

/// A way to spoil bytes.
#[derive(Clone, Debug)]
enum Spoil {
    Flip { at: usize, bit: u8 },
    Delete { at: usize },
    Insert { at: usize, byte: u8 },
    Cut { at: usize },
    Swap { a: usize, b: usize },
}

fn spoils() -> impl Strategy<Value = Vec<Spoil>> {
    let one = prop_oneof![
        (any::<usize>(), 0_u8..8).prop_map(|(at, bit)| Spoil::Flip { at, bit }),
        any::<usize>().prop_map(|at| Spoil::Delete { at }),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Spoil::Insert { at, byte }),
        any::<usize>().prop_map(|at| Spoil::Cut { at }),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Spoil::Swap { a, b }),
    ];
    prop::collection::vec(one, 1..4)
}

fn spoil(bytes: &mut Vec<u8>, spoil: &Spoil) {
    let len = bytes.len().max(1);
    match *spoil {
        _ if bytes.is_empty() => {}
        Spoil::Flip { at, bit } => bytes[at % len] ^= 1 << bit,
        Spoil::Delete { at } => {
            bytes.remove(at % len);
        }
        Spoil::Insert { at, byte } => bytes.insert(at % len, byte),
        Spoil::Cut { at } => bytes.truncate(at % len),
        Spoil::Swap { a, b } => bytes.swap(a % len, b % len),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(700))]

    #[test]
    fn no_mutation_of_an_envelope_gets_another_content_accepted(spoils in spoils()) {
        let mut bytes = signed(&payload(5), 1);
        for one in &spoils {
            spoil(&mut bytes, one);
        }
        // What is outside the signed content (blanks between tokens, fields that nobody reads) may change; the content never.
        if let Ok(Admission::Accept(document)) = admit(&bytes, &trust(&[1]), &node(), None) {
            prop_assert_eq!(document.digest(), Digest::of(payload(5).to_string().as_bytes()));
        }
    }

    #[test]
    fn no_mutation_of_a_payload_is_accepted(spoils in spoils()) {
        let good = payload(5).to_string().into_bytes();
        let mut envelope = Envelope::sign(DESIRED_STATE_TYPE, good.clone(), &[&signer(1)]);
        for one in &spoils {
            spoil(&mut envelope.payload, one);
        }
        let admission = admit(&envelope.to_json(), &trust(&[1]), &node(), None);
        prop_assert_eq!(admission.is_ok(), envelope.payload == good);
    }

    #[test]
    fn no_bytes_make_admission_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(admit(&bytes, &trust(&[1]), &node(), None).is_err());
        // Nor as a payload that is signed.
        let bytes = Envelope::sign(DESIRED_STATE_TYPE, bytes, &[&signer(1)]).to_json();
        prop_assert!(admit(&bytes, &trust(&[1]), &node(), None).is_err());
    }

    #[test]
    fn generations_are_in_one_total_order(a in (1_u32..4, 1_u64..6), b in (1_u32..4, 1_u64..6)) {
        let document = |(epoch, counter): (u32, u64)| {
            let mut document = payload(1);
            document["generation"] = format!("{epoch}.{counter}").into();
            document
        };
        let highest = Highest {
            generation: Generation { epoch: a.0, counter: a.1 },
            digest: Digest::of(document(a).to_string().as_bytes()),
            stored: true,
        };
        let accepted = match admit(&signed(&document(b), 1), &trust(&[1]), &node(), Some(highest)) {
            Ok(Admission::Accept(_)) => std::cmp::Ordering::Greater,
            Ok(Admission::Duplicate { .. }) => std::cmp::Ordering::Equal,
            Err(_) => std::cmp::Ordering::Less,
        };
        prop_assert_eq!(accepted, b.cmp(&a));
    }
}
