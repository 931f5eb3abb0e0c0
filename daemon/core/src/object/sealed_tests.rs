//! Sealed Secrets on their way to objects.

use super::*;
use holdfast_protocol::{
    Digest, Generation, Problem,
    document::{App, DesiredState, Policy, Sealed, SealedSecret, SealedValue},
};
use serde_json::{Map, Value, json};
use std::convert::Infallible;

fn secret(ciphertext: &str) -> SealedSecret {
    let value = SealedValue {
        source: "till-password".into(),
        sealed: Some(Sealed {
            key: Digest::of(b"key"),
            encapsulated: "AAAA".into(),
            ciphertext: ciphertext.into(),
        }),
    };
    SealedSecret {
        name: "till".into(),
        namespace: None,
        kind: None,
        data: [("password".to_owned(), value)].into(),
    }
}

fn state(secret: SealedSecret) -> DesiredState {
    DesiredState {
        schema: holdfast_protocol::SchemaVersion::CURRENT,
        node: "shop-17".parse().unwrap(),
        generation: Generation { epoch: 1, counter: 1 },
        issued_at: jiff::Timestamp::UNIX_EPOCH,
        release: None,
        k3s: None,
        os: None,
        apps: vec![App {
            name: "till".into(),
            namespace: Some("shop".into()),
            secrets: vec![secret],
            ..App::default()
        }],
        policy: Policy::default(),
        extra: Map::new(),
    }
}

fn opened(
    state: &DesiredState,
    value: Result<&str, &str>,
) -> Result<Vec<PreparedObject>, PrepareError<Infallible>> {
    prepare_document_opened(
        state,
        &Scopes::default(),
        |_| unreachable!("there is no blob"),
        |place, sealed| {
            assert_eq!(sealed.source, "till-password");
            value
                .map(ToOwned::to_owned)
                .map_err(|reason| Problem::new("x", format!("{place}: {reason}"), ""))
        },
    )
}

#[test]
fn a_sealed_secret_becomes_an_object_whose_digest_tells_nothing_of_its_value() {
    let state = state(secret("BBBB"));
    let one = opened(&state, Ok("aHVudGVyMg==")).unwrap().remove(0);
    assert_eq!(one.key.to_string(), "Secret shop/till");
    let body: Value = serde_json::from_str(&one.json).unwrap();
    assert_eq!(body["type"], "Opaque");
    assert_eq!(body["data"], json!({"password": "aHVudGVyMg=="}));
    assert_eq!(body["metadata"]["labels"][APP_LABEL], "till");

    let other = opened(&state, Ok("YW5vdGhlcg==")).unwrap().remove(0);
    assert_eq!(one.digest, other.digest, "the digest is that of the sealed form");
    let sealed_only = prepare_document::<Infallible>(&state, &Scopes::default(), |_| unreachable!()).unwrap();
    assert_eq!(sealed_only[0].digest, one.digest);
    assert!(!sealed_only[0].json.contains("aHVudGVyMg"));
    assert!(!format!("{one:?}").contains("aHVudGVyMg"));
}

#[test]
fn a_secret_that_is_sealed_again_is_another_object() {
    let digest = |ciphertext| opened(&state(secret(ciphertext)), Ok("eA==")).unwrap()[0].digest;
    assert_ne!(digest("BBBB"), digest("CCCC"));
}

#[test]
fn a_value_that_does_not_open_is_named_by_its_place() {
    let Err(PrepareError::Refused(problem)) = opened(&state(secret("BBBB")), Err("sealed to an older key"))
    else {
        panic!("it opened");
    };
    assert_eq!(
        problem.message,
        "apps[0] (till), secrets[0] (till).data.password (till-password): sealed to an older key"
    );
}

#[test]
fn a_sealed_secret_and_a_manifest_cannot_be_the_same_object() {
    let mut state = state(secret("BBBB"));
    let manifest = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "till"}});
    state.apps[0].manifests = vec![holdfast_protocol::document::ManifestSource::Inline(vec![
        manifest,
    ])];
    let error = opened(&state, Ok("eA==")).unwrap_err().to_string();
    assert!(error.contains("Secret shop/till is named before"), "{error}");
}
