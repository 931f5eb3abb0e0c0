//! Releases that say something else for each node, at a real hub.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use holdfast_hub::codes as hub_codes;
use holdfast_protocol::{
    Digest, MAX_INLINE_BYTES, codes,
    document::{DesiredState, ManifestSource},
    operator::{CreateToken, NodeInfo, ReleaseInfo},
};
use holdfast_release::codes as release_codes;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::path::Path;
use support::{Device, Hub, Node, Site, problem};

/// Enrols a box with labels.
async fn node(hub: &Hub, name: &str, labels: &[(&str, &str)]) -> Node {
    let request = CreateToken {
        node_name: Some(name.parse().unwrap()),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..CreateToken::default()
    };
    let token = hub.token(request).await;
    let device = Device::new();
    let answer = hub.try_enrol(&token, &device).await.unwrap();
    Node { device, answer }
}

/// The document that the hub has for a node now: what the same box is answered again.
async fn document(hub: &Hub, node: &Node) -> DesiredState {
    let known: NodeInfo = hub.get(&format!("/api/v1/nodes/{}", node.id())).await;
    let token = hub
        .token(CreateToken {
            node_name: Some(node.answer.node.clone()),
            labels: known.labels,
            ..CreateToken::default()
        })
        .await;
    let answer = hub.try_enrol(&token, &node.device).await.unwrap();
    let document: DesiredState = serde_json::from_slice(&answer.desired.unwrap().payload).unwrap();
    document.validate().unwrap();
    document
}

fn object(document: &DesiredState) -> &Value {
    match &document.apps[0].manifests[0] {
        ManifestSource::Inline(objects) => &objects[0],
        ManifestSource::Blob(_) => panic!("{document:?}"),
    }
}

fn content() -> Value {
    json!({
        "variables": {
            "replicas": {"type": "integer", "default": 2, "max": 5},
            "site": {"from": "node.labels.site", "pattern": "[a-z]+"},
        },
        "values": [{"selector": "site=berlin", "set": {"replicas": 3}}],
        "k3s": {"config": {"node-label": ["site=${variables.site}"]}},
        "fields": {"/k3s/nodeAddress": "${node.labels.address}"},
        "apps": [{"name": "web", "namespace": "site-${variables.site}", "manifests": [{"inline": [{
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": "${variables.replicas}"}, "note": "${node.name}, not ${HOME} or $${node.name}",
        }]}]}],
    })
}

async fn create(hub: &Hub, name: &str, content: Value) -> ReleaseInfo {
    hub.ask(
        Method::POST,
        "/api/v1/releases",
        json!({"name": name, "content": content}),
    )
    .await
}

async fn assign(hub: &Hub, release: &str, nodes: &[&str]) -> Value {
    let path = format!("/api/v1/releases/{release}/assign");
    let assigned: Value = hub.ask(Method::POST, &path, json!({ "nodes": nodes })).await;
    assigned["generations"].clone()
}

#[tokio::test]
async fn each_node_gets_its_own_values_with_their_types() {
    let site = Site::new();
    let hub = site.start().await;
    let berlin = node(&hub, "shop-1", &[("site", "berlin"), ("address", "10.200.0.1")]).await;
    let hamburg = node(&hub, "shop-2", &[("site", "hamburg"), ("address", "10.200.0.2")]).await;
    create(&hub, "r1", content()).await;
    assign(&hub, "r1", &["shop-1", "shop-2"]).await;

    let document_1 = document(&hub, &berlin).await;
    assert_eq!(object(&document_1)["spec"]["replicas"], 3);
    assert_eq!(object(&document_1)["note"], "shop-1, not ${HOME} or ${node.name}");
    assert_eq!(document_1.apps[0].namespace.as_deref(), Some("site-berlin"));
    let k3s = document_1.k3s.as_ref().unwrap();
    assert_eq!(k3s.node_address, Some("10.200.0.1".parse().unwrap()));
    assert_eq!(k3s.config["node-label"], json!(["site=berlin"]));
    let document_2 = document(&hub, &hamburg).await;
    assert_eq!(object(&document_2)["spec"]["replicas"], 2);
    assert_eq!(document_2.apps[0].namespace.as_deref(), Some("site-hamburg"));

    let again = assign(&hub, "r1", &["shop-1"]).await;
    assert_eq!(again["shop-1"], "1.1", "the same again is no new document");
    hub.stop().await;
}

#[tokio::test]
async fn a_changed_label_changes_what_it_is_filled_into_and_nothing_else() {
    let site = Site::new();
    let hub = site.start().await;
    let berlin = node(&hub, "shop-1", &[("site", "berlin"), ("address", "10.200.0.1")]).await;
    create(&hub, "r1", content()).await;
    assign(&hub, "r1", &["shop-1"]).await;
    let label = async |labels: Value| {
        let path = "/api/v1/nodes/shop-1/labels";
        let changed: NodeInfo = hub.ask(Method::PATCH, path, json!({ "labels": labels })).await;
        changed.wanted.unwrap().to_string()
    };
    assert_eq!(label(json!({"colour": "red"})).await, "1.1");
    assert_eq!(label(json!({"site": "bremen"})).await, "1.2");
    assert_eq!(
        document(&hub, &berlin).await.apps[0].namespace.as_deref(),
        Some("site-bremen")
    );

    // What the release needs cannot be taken away from under it.
    for (labels, code) in [
        (json!({"site": null}), release_codes::VARIABLE_MISSING),
        (json!({"site": "B"}), release_codes::VARIABLE_INVALID),
        (json!({"address": "no-address"}), release_codes::VARIABLE_MISSING),
    ] {
        let (status, problem) = hub
            .refused(
                Method::PATCH,
                "/api/v1/nodes/shop-1/labels",
                json!({ "labels": labels }),
            )
            .await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(problem.code, code, "{labels}: {problem}");
        assert!(problem.message.contains("node shop-1"), "{problem}");
    }
    let now: NodeInfo = hub.get("/api/v1/nodes/shop-1").await;
    assert_eq!(now.labels["site"], "bremen", "a refused change changes nothing");
    hub.stop().await;
}

#[tokio::test]
async fn a_box_that_enrols_again_with_other_labels_gets_what_they_say() {
    let site = Site::new();
    let hub = site.start().await;
    let labels = [("site", "berlin"), ("address", "10.200.0.1")];
    let shop = node(&hub, "shop-1", &labels).await;
    create(&hub, "r1", content()).await;
    assign(&hub, "r1", &["shop-1"]).await;
    let again = async |site: Option<&str>| {
        let site = site.map(|site| ("site".to_owned(), site.to_owned()));
        let address = ("address".to_owned(), "10.200.0.1".to_owned());
        let token = hub
            .token(CreateToken {
                node_name: Some("shop-1".parse().unwrap()),
                labels: site.into_iter().chain([address]).collect(),
                ..CreateToken::default()
            })
            .await;
        let answer = hub.try_enrol(&token, &shop.device).await.unwrap();
        let document: DesiredState = serde_json::from_slice(&answer.desired.unwrap().payload).unwrap();
        document
    };
    assert_eq!(
        again(Some("bremen")).await.apps[0].namespace.as_deref(),
        Some("site-bremen")
    );
    // It must come back whatever its token says; what it runs stays.
    assert_eq!(
        again(None).await.apps[0].namespace.as_deref(),
        Some("site-bremen")
    );
    hub.stop().await;
}

#[tokio::test]
async fn a_missing_value_is_told_when_the_release_is_given_with_node_and_place() {
    let site = Site::new();
    let hub = site.start().await;
    node(&hub, "shop-1", &[("site", "berlin"), ("address", "10.200.0.1")]).await;
    node(&hub, "shop-2", &[("address", "10.200.0.1")]).await;
    create(&hub, "r1", content()).await;
    let (status, problem) = hub
        .refused(
            Method::POST,
            "/api/v1/releases/r1/assign",
            json!({"nodes": ["shop-1", "shop-2"]}),
        )
        .await;
    assert_eq!(
        (status, problem.code.as_ref()),
        (StatusCode::UNPROCESSABLE_ENTITY, release_codes::VARIABLE_MISSING)
    );
    for word in [
        "node shop-2",
        "k3s.config.node-label[0]",
        "the variable site has no value",
    ] {
        assert!(problem.message.contains(word), "{word}: {problem}");
    }
    let untouched: NodeInfo = hub.get("/api/v1/nodes/shop-1").await;
    assert_eq!(untouched.wanted, None, "all nodes or none");
    hub.stop().await;
}

#[tokio::test]
async fn blobs_are_filled_in_for_each_node_and_equal_ones_are_stored_once() {
    let site = Site::new();
    let hub = site.start().await;
    let one = node(&hub, "shop-1", &[("site", "berlin")]).await;
    let two = node(&hub, "shop-2", &[("site", "berlin")]).await;
    let objects = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"},
        "data": {"site": "${node.labels.site}", "text": "x".repeat(MAX_INLINE_BYTES)},
    }]);
    let bytes = objects.to_string().into_bytes();
    let digest = Digest::of(&bytes);
    let put = hub.client.put(format!("{}/api/v1/blobs/{digest}", hub.api));
    put.bearer_auth(&hub.token)
        .body(bytes.clone())
        .send()
        .await
        .unwrap();
    let content =
        json!({"apps": [{"name": "big", "manifests": [{"blob": {"digest": digest, "size": bytes.len()}}]}]});
    create(&hub, "r1", content).await;
    assign(&hub, "r1", &["shop-1", "shop-2"]).await;
    let blob = |document: &DesiredState| match &document.apps[0].manifests[0] {
        ManifestSource::Blob(blob) => blob.digest,
        ManifestSource::Inline(_) => panic!("{document:?}"),
    };
    let (first, second) = (document(&hub, &one).await, document(&hub, &two).await);
    assert_ne!(blob(&first), digest);
    assert_eq!(blob(&first), blob(&second), "equal content is one blob");
    let url = format!("{}/v1/blobs/{}", hub.api, blob(&first));
    let fetched = one.client().get(url).send().await.unwrap();
    let fetched: Value = serde_json::from_slice(&fetched.bytes().await.unwrap()).unwrap();
    assert_eq!(fetched[0]["data"]["site"], "berlin");
    // Lost, both come back: what was uploaded by another upload, what was filled in when the release is given again.
    let file = |digest: &Digest| site.data_dir().join("blobs/sha256").join(digest.hex());
    std::fs::remove_file(file(&digest)).unwrap();
    std::fs::remove_file(file(&blob(&first))).unwrap();
    let given = json!({"nodes": ["shop-1"]});
    let (_, problem) = hub
        .refused(Method::POST, "/api/v1/releases/r1/assign", given)
        .await;
    assert_eq!(problem.code, codes::BLOB_UNKNOWN);
    assert_eq!(hub.put_blob(bytes).await.1, StatusCode::CREATED);
    assign(&hub, "r1", &["shop-1"]).await;
    assert!(file(&blob(&first)).exists());
    hub.stop().await;
}

#[tokio::test]
async fn a_release_that_no_node_could_be_given_is_refused_when_it_is_made() {
    let site = Site::new();
    let hub = site.start().await;
    for (pointer, value, word) in [
        (
            "/variables/replicas/default",
            json!("two"),
            "variables.replicas.default",
        ),
        (
            "/variables/site/from",
            json!("labels.site"),
            "variables.site.from",
        ),
        ("/values/0/set/replica", json!(3), "did you mean \"replicas\"?"),
        ("/values/0/set/replicas", json!(6), "above the greatest, 5"),
        (
            "/apps/0/manifests/0/inline/0/note",
            json!("${variables.sites}"),
            "did you mean \"site\"?",
        ),
        (
            "/apps/0/manifests/0/inline/0/note",
            json!("${variable.site}"),
            "variables.",
        ),
        (
            "/policy",
            json!({"windows": [{"start": "22:00", "end": "23:00", "timeZone": "Nowhere/Else"}]}),
            "no time zone",
        ),
        (
            "/policy",
            json!({"stabilitySecond": 3}),
            "did you mean \"stabilitySeconds\"?",
        ),
        (
            "/policy",
            json!({"stabilitySeconds": 700}),
            "policy.stabilitySeconds",
        ),
        ("/k3s/datastor", json!("ram"), "did you mean \"datastore\"?"),
    ] {
        let mut content = content();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = content.pointer_mut(parent).unwrap();
        parent.as_object_mut().unwrap().insert(key.to_owned(), value);
        let body = json!({"name": "bad", "content": content});
        let (status, problem) = hub.refused(Method::POST, "/api/v1/releases", body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{pointer}");
        assert_eq!(problem.code, hub_codes::RELEASE_INVALID, "{problem}");
        assert!(problem.message.contains(word), "{pointer}: {problem}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_release_is_deleted_with_its_blobs_once_no_node_uses_it() {
    let site = Site::new();
    let hub = site.start().await;
    node(&hub, "shop-1", &[]).await;
    let bytes = json!([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}])
        .to_string()
        .into_bytes();
    let digest = Digest::of(&bytes);
    let put = async || {
        let put = hub.client.put(format!("{}/api/v1/blobs/{digest}", hub.api));
        put.bearer_auth(&hub.token)
            .body(bytes.clone())
            .send()
            .await
            .unwrap()
            .status()
    };
    assert_eq!(put().await, StatusCode::CREATED);
    let content =
        json!({"apps": [{"name": "big", "manifests": [{"blob": {"digest": digest, "size": bytes.len()}}]}]});
    create(&hub, "r1", content.clone()).await;
    create(&hub, "r2", content).await;
    create(&hub, "r3", json!({"apps": []})).await;
    assign(&hub, "r1", &["shop-1"]).await;
    let delete = async |name: &str| {
        let path = format!("/api/v1/releases/{name}");
        hub.send(Some(&hub.token), Method::DELETE, &path, None).await
    };
    let (status, refused) = problem(delete("r1").await).await;
    assert_eq!(
        (status, refused.code.as_ref()),
        (StatusCode::CONFLICT, codes::CONFLICT)
    );
    assert!(refused.message.contains("shop-1"), "{refused}");
    assign(&hub, "r3", &["shop-1"]).await;
    assert_eq!(delete("r1").await.status(), StatusCode::NO_CONTENT);
    let file = |digest: &Digest| site.data_dir().join("blobs/sha256").join(digest.hex());
    let there = |path: &Path| path.exists();
    assert!(there(&file(&digest)), "the other release needs it");
    assert_eq!(delete("r2").await.status(), StatusCode::NO_CONTENT);
    assert!(!there(&file(&digest)));
    assert_eq!(put().await, StatusCode::CREATED, "it can be uploaded again");
    assert_eq!(problem(delete("r2").await).await.0, StatusCode::NOT_FOUND);
    hub.stop().await;
}
