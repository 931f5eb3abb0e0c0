//! Times that a box without a battery clock meets.

use super::*;
use holdfast_protocol::trust::TrustedKey;
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time in range")
}

#[test]
fn pain_05_a_clock_in_1970_is_lifted_to_the_floor() {
    let floor = at(1_767_225_600);
    assert_eq!(
        effective(at(60), Some(floor), None),
        EffectiveTime {
            time: floor,
            trusted: false
        }
    );
}

#[test]
fn pain_04_without_a_floor_the_wall_clock_is_all_there_is() {
    assert_eq!(
        effective(at(60), None, None),
        EffectiveTime {
            time: at(60),
            trusted: true
        }
    );
}

#[test]
fn a_signed_time_lifts_the_clock_before_it_is_stored() {
    let lifted = effective(at(60), Some(at(100)), Some(at(200)));
    assert_eq!((lifted.time, lifted.trusted), (at(200), false));
}

proptest! {
    #[test]
    fn the_time_is_never_below_the_floor_and_the_floor_never_sinks(
        wall in 0_i64..1_000, floor in prop::option::of(0_i64..1_000), signed in prop::option::of(0_i64..1_000)
    ) {
        let (wall, floor, signed) = (at(wall), floor.map(at), signed.map(at));
        let time = effective(wall, floor, signed);
        let raised = raised_floor(floor, signed);
        prop_assert!(raised >= floor);
        prop_assert!(Some(time.time) >= raised);
        prop_assert!(time.time >= wall);
        prop_assert_eq!(time.trusted, time.time == wall);
    }
}

#[test]
fn only_a_time_key_states_the_time() {
    let key = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).expect("a seed of 32 bytes");
    let trust = |role| TrustPolicy {
        keys: vec![TrustedKey::ed25519(key.public_key().as_ref(), vec![role])],
        ..TrustPolicy::default()
    };
    let statement = serde_json::to_vec(&TimeStatement { time: at(1_000) }).expect("JSON");
    let envelope = Envelope::sign(TIME_TYPE, statement.clone(), &[&key]);
    assert_eq!(verified_time(&envelope, &trust(Role::Time)), Ok(at(1_000)));
    let code = |envelope: &Envelope, role| {
        verified_time(envelope, &trust(role))
            .expect_err("it must be refused")
            .code
    };
    assert_eq!(
        code(&envelope, Role::DesiredState),
        protocol_codes::SIGNATURE_INVALID
    );
    let other_type = Envelope::sign("text/plain", statement, &[&key]);
    assert_eq!(
        code(&other_type, Role::Time),
        protocol_codes::PAYLOAD_TYPE_UNKNOWN
    );
    let not_json = Envelope::sign(TIME_TYPE, b"noon".to_vec(), &[&key]);
    assert_eq!(code(&not_json, Role::Time), protocol_codes::DOCUMENT_MALFORMED);
}
