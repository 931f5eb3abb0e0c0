//! Objects as people write them, and what is made of them.

use super::*;
use crate::codes;
use holdfast_protocol::{
    Digest, Generation,
    document::{App, BlobRef, DesiredState, ManifestSource, Policy},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::convert::Infallible;

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": 2}
    })
}

fn app(name: &str, objects: Vec<Value>) -> App {
    App {
        name: name.into(),
        namespace: Some("shop".into()),
        manifests: vec![ManifestSource::Inline(objects)],
        ..App::default()
    }
}

fn state(apps: Vec<App>) -> DesiredState {
    DesiredState {
        schema: holdfast_protocol::SchemaVersion::CURRENT,
        node: "shop-17".parse().expect("a valid name"),
        generation: Generation { epoch: 1, counter: 1 },
        issued_at: jiff::Timestamp::UNIX_EPOCH,
        release: None,
        k3s: None,
        os: None,
        apps,
        policy: Policy::default(),
        extra: Map::new(),
    }
}

fn all(state: &DesiredState) -> Result<Vec<PreparedObject>, PrepareError<Infallible>> {
    prepare_document(state, &Scopes::default(), |_| Ok(b"[]".to_vec()))
}

#[test]
fn an_object_gets_its_namespace_and_labels_and_nothing_else() {
    let prepared = prepare(deployment(), "web", Some("shop"), &Scopes::default()).expect("a good object");
    assert_eq!(prepared.key.to_string(), "Deployment shop/web");
    let body: Value = serde_json::from_str(&prepared.json).expect("JSON");
    assert_eq!(
        body,
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "web",
                "namespace": "shop",
                "labels": {
                    "app": "web",
                    "app.kubernetes.io/managed-by": "holdfast",
                    "holdfast.dev/app": "web"
                }
            },
            "spec": {"replicas": 2}
        })
    );
    assert_eq!(prepared.digest, Digest::of(prepared.json.as_bytes()));
}

#[test]
fn what_only_the_server_may_set_is_dropped() {
    let mut copied = deployment();
    copied["status"] = json!({"replicas": 2});
    copied["metadata"]["uid"] = "1".into();
    copied["metadata"]["resourceVersion"] = "2".into();
    copied["metadata"]["managedFields"] = json!([]);
    copied["metadata"]["creationTimestamp"] = Value::Null;
    let copied = prepare(copied, "web", None, &Scopes::default()).expect("a good object");
    let written = prepare(deployment(), "web", None, &Scopes::default()).expect("a good object");
    assert_eq!(copied.digest, written.digest);
}

#[test]
fn objects_of_the_whole_cluster_have_no_namespace() {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "reader", "namespace": "shop"}
    });
    let prepared = prepare(role, "web", Some("shop"), &Scopes::default()).expect("a good object");
    assert_eq!(prepared.key.namespace, None);
    assert!(!prepared.json.contains("\"namespace\""));
}

#[test]
fn a_definition_of_the_same_document_tells_the_scope_of_its_objects() {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "pylons.grid.example"},
        "spec": {"group": "grid.example", "scope": "Cluster", "names": {"kind": "Pylon"}}
    });
    let pylon = json!({"apiVersion": "grid.example/v1", "kind": "Pylon", "metadata": {"name": "p1"}});
    let prepared = all(&state(vec![app("grid", vec![pylon, definition])])).expect("good objects");
    assert_eq!(
        prepared[0].key.to_string(),
        "CustomResourceDefinition pylons.grid.example"
    );
    assert_eq!(prepared[1].key.to_string(), "Pylon p1");
}

#[test]
fn objects_come_in_the_order_of_applying() {
    let object = |api_version: &str, kind: &str| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}});
    let prepared = all(&state(vec![app(
        "web",
        vec![
            object(
                "admissionregistration.k8s.io/v1",
                "ValidatingWebhookConfiguration",
            ),
            object("example.com/v1", "Widget"),
            object("apps/v1", "Deployment"),
            object("v1", "Service"),
            object("v1", "Secret"),
            object("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            object("v1", "Namespace"),
        ],
    )]))
    .expect("good objects");
    let kinds: Vec<_> = prepared.iter().map(|object| object.key.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "Namespace",
            "CustomResourceDefinition",
            "Secret",
            "Service",
            "Deployment",
            "Widget",
            "ValidatingWebhookConfiguration"
        ]
    );
}

#[test]
fn two_apps_cannot_own_one_object() {
    let error = all(&state(vec![
        app("web", vec![deployment()]),
        app(
            "shop",
            vec![json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop"}})],
        ),
    ]))
    .expect_err("a duplicate");
    let PrepareError::Refused(problem) = error;
    assert_eq!(problem.code, codes::OBJECT_DUPLICATE);
    assert_eq!(
        problem.message,
        "apps[1] (shop), manifests[0][0]: Deployment shop/web is named before, by apps[0] (web), manifests[0][0]"
    );
}

#[test]
fn a_wrong_object_is_named_with_its_place() {
    let mut labels = deployment();
    labels["metadata"]["labels"] = "many".into();
    let mut prune = deployment();
    prune["metadata"]["annotations"] = json!({"holdfast.dev/prune": "no"});
    let cases = [
        (json!({"kind": "Secret"}), "Secret has no apiVersion"),
        (labels, "metadata.labels is not an object"),
        (prune, "the only value it knows is \"never\""),
    ];
    for (object, reason) in cases {
        // Through a blob, since the document's own rules refuse some of these inline.
        let mut state = state(vec![app("web", vec![])]);
        state.apps[0].manifests = vec![ManifestSource::Blob(BlobRef {
            digest: Digest::of(b"x"),
            size: 1,
        })];
        let error = prepare_document(&state, &Scopes::default(), |_| {
            Ok::<_, Infallible>(Value::from(vec![object.clone()]).to_string().into_bytes())
        })
        .expect_err("a wrong object");
        let PrepareError::Refused(problem) = error;
        assert_eq!(problem.code, codes::OBJECT_INVALID);
        assert!(
            problem.message.starts_with("apps[0] (web), manifests[0][0]: "),
            "{problem}"
        );
        assert!(problem.message.contains(reason), "{problem}");
    }
}

#[test]
fn a_blob_that_is_no_list_of_objects_is_refused_and_one_that_cannot_be_read_is_told_apart() {
    let mut state = state(vec![app("web", vec![])]);
    state.apps[0].manifests = vec![ManifestSource::Blob(BlobRef {
        digest: Digest::of(b"x"),
        size: 1,
    })];
    let refused = prepare_document(&state, &Scopes::default(), |_| {
        Ok::<_, Infallible>(b"{}".to_vec())
    });
    assert!(
        matches!(&refused, Err(PrepareError::Refused(problem)) if problem.code == codes::MANIFESTS_MALFORMED),
        "{refused:?}"
    );
    let unread = prepare_document(&state, &Scopes::default(), |_| Err("no such file"));
    assert_eq!(unread, Err(PrepareError::Blob("no such file")));
}

#[test]
fn the_annotation_keeps_an_object() {
    let mut kept = deployment();
    kept["metadata"]["annotations"] = json!({"holdfast.dev/prune": "never"});
    assert!(
        prepare(kept, "web", None, &Scopes::default())
            .expect("a good object")
            .keep
    );
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn the_body_says_what_the_manifest_says(spec in values()) {
        let mut object = deployment();
        object["spec"] = spec.clone();
        let prepared = prepare(object, "web", None, &Scopes::default()).expect("a good object");
        let body: Value = serde_json::from_str(&prepared.json).expect("JSON");
        prop_assert_eq!(&body["spec"], &spec);
    }

    #[test]
    fn no_value_makes_it_panic(value in values(), metadata in values()) {
        let _ = prepare(value, "web", None, &Scopes::default());
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata});
        let _ = prepare(object, "web", None, &Scopes::default());
    }
}
