//! The desired state.

use crate::{envelope::key, golden};
use holdfast_protocol::{
    Digest, Generation, MAX_INLINE_BYTES, SchemaVersion,
    document::{
        App, BlobRef, DesiredState, DriftPolicy, K3sSection, MAX_APPS, MAX_MANIFEST_BLOB_BYTES,
        ManifestSource, Policy, ReleaseRef,
    },
    envelope::{DESIRED_STATE_TYPE, Envelope},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

pub(crate) fn full() -> DesiredState {
    DesiredState {
        schema: SchemaVersion::CURRENT,
        node: "shop-17".parse().unwrap(),
        generation: Generation {
            epoch: 1,
            counter: 42,
        },
        issued_at: "2026-01-02T03:04:05Z".parse().unwrap(),
        release: Some(ReleaseRef {
            name: "spring".into(),
            digest: Digest::of(b"release"),
        }),
        k3s: Some(K3sSection {
            version: Some("v1.36.3+k3s1".into()),
            config: Map::from_iter([("disable".to_owned(), json!(["traefik"]))]),
            ..K3sSection::default()
        }),
        os: None,
        apps: vec![
            App {
                name: "web".into(),
                namespace: Some("shop".into()),
                manifests: vec![ManifestSource::Inline(vec![json!({
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": "web"},
                    "data": {"greeting": "grüezi"}
                })])],
                ..App::default()
            },
            App {
                name: "big".into(),
                namespace: None,
                manifests: vec![ManifestSource::Blob(BlobRef {
                    digest: Digest::of(b"manifests"),
                    size: 123_456,
                })],
                ..App::default()
            },
        ],
        policy: Policy {
            drift: DriftPolicy::Report,
            prune: false,
            ready_deadline_seconds: 900,
            ..Policy::default()
        },
        extra: Map::new(),
    }
}

#[test]
fn a_full_document_has_its_golden_form() {
    golden::check("desired-state.json", &full());
    full().validate().unwrap();
}

#[test]
fn the_envelope_of_a_document_has_its_golden_form() {
    let payload = serde_json::to_vec(&full()).unwrap();
    golden::check(
        "desired-state.envelope.json",
        &Envelope::sign(DESIRED_STATE_TYPE, payload, &[&key(1)]),
    );
}

#[test]
fn a_document_with_nothing_but_what_must_be_is_read_with_its_defaults() {
    let document: DesiredState = serde_json::from_str(&golden::read("desired-state.minimal.json")).unwrap();
    assert_eq!(document.apps, []);
    assert_eq!(document.policy, Policy::default());
    assert_eq!(
        (
            document.policy.drift,
            document.policy.prune,
            document.policy.ready_deadline_seconds
        ),
        (DriftPolicy::Correct, true, 600)
    );
    assert_eq!((document.k3s, document.release), (None, None));
}

#[test]
fn fields_of_a_newer_minor_version_are_kept_and_written_again() {
    let text = golden::read("desired-state.newer-minor.json");
    let document: DesiredState = serde_json::from_str(&text).unwrap();
    document.schema.check_supported().unwrap();
    document.validate().unwrap();
    assert_eq!(document.extra["maintenanceWindow"]["from"], "02:00");
    assert_eq!(document.apps[0].extra["priority"], 7);
    assert_eq!(document.policy.extra["soakSeconds"], 30);
    assert_eq!(document.k3s.as_ref().unwrap().extra["futureKey"], "ram");
    let again: Value = serde_json::to_value(&document).unwrap();
    assert_eq!(again, serde_json::from_str::<Value>(&text).unwrap());
}

#[test]
fn an_unknown_major_version_is_refused_by_name() {
    #[derive(serde::Deserialize)]
    struct SchemaOnly {
        schema: SchemaVersion,
    }
    let document: SchemaOnly =
        serde_json::from_str(&golden::read("desired-state.unknown-major.json")).unwrap();
    let error = document.schema.check_supported().unwrap_err().to_string();
    assert!(error.contains("schema 2.0 is not supported"), "{error}");
    assert!(error.contains("major version 1"), "{error}");
    for wrong in ["1", "1.", ".1", "1.0.0", "v1.0", "1.x", "", "-1.0", "70000.0"] {
        assert!(wrong.parse::<SchemaVersion>().is_err(), "{wrong:?}");
    }
}

/// Breaks a rule.
type Change = Box<dyn Fn(&mut DesiredState)>;

#[test]
fn each_rule_that_a_document_breaks_is_told_with_its_place() {
    let config = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let inline = |value: Value| vec![ManifestSource::Inline(vec![value])];
    let mut large = config("x");
    large["data"] = json!({"x": "x".repeat(MAX_INLINE_BYTES)});
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|d| d.generation.epoch = 0), "generation: 0.42"),
        (Box::new(|d| d.generation.counter = 0), "generation: 1.0"),
        (
            Box::new(|d| d.apps = vec![d.apps[0].clone(); MAX_APPS + 1]),
            "apps: 257 apps; at most 256",
        ),
        (
            Box::new(|d| d.policy.ready_deadline_seconds = 0),
            "policy.readyDeadlineSeconds: 0",
        ),
        (
            Box::new(|d| d.policy.ready_deadline_seconds = 86_401),
            "policy.readyDeadlineSeconds: 86401",
        ),
        (
            Box::new(|d| d.apps[0].name = "Web".into()),
            "apps[0].name: \"Web\"",
        ),
        (
            Box::new(|d| d.apps[1].name = "web".into()),
            "apps[1].name: \"web\" is the name of an earlier app too",
        ),
        (
            Box::new(|d| d.apps[0].namespace = Some("a/b".into())),
            "apps[0].namespace: \"a/b\"",
        ),
        (
            Box::new(move |d| d.apps[0].manifests = inline(large.clone())),
            "apps[0].manifests: ",
        ),
        (
            Box::new(|d| {
                d.apps[1].manifests = vec![ManifestSource::Blob(BlobRef {
                    digest: Digest::of(b""),
                    size: MAX_MANIFEST_BLOB_BYTES + 1,
                })];
            }),
            "apps[1].manifests[0].blob.size: ",
        ),
        (
            Box::new(move |d| d.apps[0].manifests = inline(json!({"kind": "Secret"}))),
            "apps[0].manifests[0].inline[0]: Secret has no apiVersion",
        ),
        (
            Box::new(move |d| d.apps[0].manifests = inline(json!([]))),
            "apps[0].manifests[0].inline[0]: has no kind",
        ),
        (
            Box::new(move |d| {
                d.apps[0].manifests = inline(json!({"apiVersion": "v1", "kind": "List", "items": []}));
            }),
            "apps[0].manifests[0].inline[0]: List is a list",
        ),
        (
            Box::new(move |d| {
                d.apps[0].manifests =
                    inline(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "x-"}}));
            }),
            "apps[0].manifests[0].inline[0]: Pod has no metadata.name",
        ),
        (
            // Deleting it would delete all pods of the namespace: `DELETE …/pods/?…`.
            Box::new(move |d| {
                d.apps[0].manifests =
                    inline(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "?"}}));
            }),
            "apps[0].manifests[0].inline[0]: Pod has the name \"?\"",
        ),
        (
            Box::new(move |d| {
                d.apps[0].manifests = inline(json!({
                    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop/../kube-system"}
                }));
            }),
            "apps[0].manifests[0].inline[0]: Pod web has the namespace \"shop/../kube-system\"",
        ),
    ];
    for (change, expected) in cases {
        let mut document = full();
        change(&mut document);
        let error = document.validate().unwrap_err().to_string();
        assert!(
            error.starts_with(expected),
            "{error:?} does not start with {expected:?}"
        );
    }
}

proptest! {
    #[test]
    fn generations_are_read_as_they_are_written(epoch: u32, counter in 0..=i64::MAX as u64) {
        let generation = Generation { epoch, counter };
        prop_assert_eq!(generation.to_string().parse(), Ok(generation));
    }

    #[test]
    fn generations_are_ordered_by_epoch_then_counter(a: (u32, u32), b: (u32, u32)) {
        let generation = |(epoch, counter): (u32, u32)| Generation { epoch, counter: counter.into() };
        prop_assert_eq!(generation(a).cmp(&generation(b)), a.cmp(&b));
    }

    #[test]
    fn no_text_makes_an_identifier_panic(text in ".{0,100}") {
        let _ = text.parse::<Generation>();
        let _ = text.parse::<Digest>();
        let _ = text.parse::<SchemaVersion>();
        if let Ok(node) = text.parse::<holdfast_protocol::NodeId>() {
            prop_assert_eq!(node.to_string(), text.clone());
        }
        if let Some(node) = holdfast_protocol::NodeId::sanitised(&text) {
            prop_assert!(node.as_str().parse::<holdfast_protocol::NodeId>().is_ok());
        }
    }

    #[test]
    fn digests_are_read_as_they_are_written(content: Vec<u8>) {
        let digest = Digest::of(&content);
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        prop_assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
    }
}

#[test]
fn names_that_only_some_kinds_allow_pass() {
    for name in ["system:node-proxier", "v1.apps", "A_b", "5", "foos.example.com"] {
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}});
        assert_eq!(holdfast_protocol::document::check_object(&role), Ok(()), "{name}");
    }
    for name in [".", "..", "a/b", "a%2fb", "a#b", "a b", "a\nb"] {
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}});
        assert!(
            holdfast_protocol::document::check_object(&role).is_err(),
            "{name}"
        );
    }
}
