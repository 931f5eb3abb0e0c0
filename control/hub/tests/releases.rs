//! Releases at a real hub: what is refused, what nodes get, and what they fetch.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use futures::StreamExt as _;
use holdfast_hub::codes as hub_codes;
use holdfast_protocol::{
    Digest, MAX_INLINE_BYTES, codes,
    document::{DesiredState, ManifestSource},
    envelope::{DESIRED_STATE_TYPE, Envelope},
    operator::{CreateToken, NodeInfo, ReleaseInfo},
    trust::Role,
};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use support::{Hub, Node, Site, problem, release};

/// The document that the hub gives to a node now, as its own enrolment answer carries it.
async fn document(hub: &Hub, node: &Node) -> Option<(Envelope, DesiredState)> {
    let token = hub
        .token(CreateToken {
            node_name: Some(node.answer.node.clone()),
            ..CreateToken::default()
        })
        .await;
    let answer = hub.try_enrol(&token, &node.device).await.unwrap();
    answer.desired.map(|envelope| {
        envelope.verify(&node.answer.trust, Role::DesiredState).unwrap();
        assert_eq!(envelope.payload_type, DESIRED_STATE_TYPE);
        let document: DesiredState = serde_json::from_slice(&envelope.payload).unwrap();
        document.validate().unwrap();
        (envelope, document)
    })
}

async fn assign(hub: &Hub, release: &str, node: &str) -> String {
    let path = format!("/api/v1/releases/{release}/assign");
    let assigned: Value = hub.ask(Method::POST, &path, json!({ "nodes": [node] })).await;
    assigned["generations"][node].as_str().unwrap().to_owned()
}

async fn upload(hub: &Hub, content: &[u8]) -> reqwest::Response {
    upload_as(hub, &Digest::of(content), content).await
}

async fn upload_as(hub: &Hub, digest: &Digest, content: &[u8]) -> reqwest::Response {
    hub.client
        .put(format!("{}/api/v1/blobs/{digest}", hub.api))
        .bearer_auth(&hub.token)
        .body(content.to_vec())
        .send()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_node_gets_the_signed_document_of_its_release() {
    let site = Site::new();
    let hub = site.start().await;
    let node = hub.node("shop-17").await;
    assert!(document(&hub, &node).await.is_none());
    let made: ReleaseInfo = hub
        .ask(Method::POST, "/api/v1/releases", release("r1", "one"))
        .await;
    assert_eq!(made.apps, ["hello"]);
    assert_eq!(assign(&hub, "r1", "shop-17").await, "1.1");
    let (envelope, document) = document(&hub, &node).await.unwrap();
    assert_eq!(document.node.as_str(), "shop-17");
    assert_eq!(document.generation.to_string(), "1.1");
    let reference = document.release.unwrap();
    assert_eq!((reference.name.as_str(), reference.digest), ("r1", made.digest));
    let ManifestSource::Inline(objects) = &document.apps[0].manifests[0] else {
        panic!()
    };
    assert_eq!(objects[0]["data"]["text"], "one");
    // The key for time cannot pass for the key for documents.
    envelope.verify(&node.answer.trust, Role::Time).unwrap_err();
    let shown: NodeInfo = hub.get("/api/v1/nodes/shop-17").await;
    assert_eq!(
        (shown.release.as_deref(), shown.wanted),
        (Some("r1"), Some(document.generation))
    );
    let shown: ReleaseInfo = hub.get("/api/v1/releases/r1").await;
    assert_eq!(shown.nodes, 1);
    assert!(shown.content.is_some());
}

#[tokio::test]
async fn pain_21_unchanged_content_makes_no_new_generation() {
    let site = Site::new();
    let hub = site.start().await;
    let node = hub.node("shop-17").await;
    for (name, text) in [("r1", "one"), ("r1-again", "one"), ("r2", "two")] {
        let _: Value = hub
            .ask(Method::POST, "/api/v1/releases", release(name, text))
            .await;
    }
    assert_eq!(assign(&hub, "r1", "shop-17").await, "1.1");
    let (first, _) = document(&hub, &node).await.unwrap();
    assert_eq!(assign(&hub, "r1", "shop-17").await, "1.1");
    assert_eq!(assign(&hub, "r1-again", "shop-17").await, "1.1");
    assert_eq!(document(&hub, &node).await.unwrap().0, first);
    assert_eq!(assign(&hub, "r2", "shop-17").await, "1.2");
    assert_eq!(assign(&hub, "r1", "shop-17").await, "1.3");
}

#[tokio::test]
async fn a_release_never_changes_under_its_name() {
    let site = Site::new();
    let hub = site.start().await;
    let create = async |name: &str, text: &str| {
        hub.send(
            Some(&hub.token),
            Method::POST,
            "/api/v1/releases",
            Some(release(name, text)),
        )
        .await
    };
    assert_eq!(create("r1", "one").await.status(), StatusCode::CREATED);
    assert_eq!(create("r1", "one").await.status(), StatusCode::OK);
    let (status, refused) = problem(create("r1", "two").await).await;
    assert_eq!(
        (status, refused.code.as_ref()),
        (StatusCode::CONFLICT, codes::CONFLICT)
    );
    assert_eq!(hub.get::<Vec<ReleaseInfo>>("/api/v1/releases").await.len(), 1);
    let (status, _) = hub
        .refused(
            Method::POST,
            "/api/v1/releases/none/assign",
            json!({ "selector": "" }),
        )
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_a_node_would_refuse_is_refused_with_its_place() {
    let site = Site::new();
    let hub = site.start().await;
    let good = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
    let app = |manifests: Value| json!([{ "name": "a", "manifests": manifests }]);
    let listed = serde_json::to_vec(&json!([good, { "kind": "ConfigMap" }])).unwrap();
    upload(&hub, &listed).await;
    upload(&hub, b"no JSON").await;
    let blob = |content: &[u8], size: usize| {
        app(json!([{ "blob": { "digest": Digest::of(content), "size": size } }]))
    };
    for (apps, place) in [
        (json!([{ "name": "A", "manifests": [] }]), "content.apps[0].name"),
        (
            json!([{ "name": "a", "manifests": [] }, { "name": "a", "manifests": [] }]),
            "content.apps[1].name",
        ),
        (
            app(json!([{ "inline": [{ "kind": "X" }] }])),
            "content.apps[0].manifests[0].inline[0]",
        ),
        (
            app(
                json!([{ "inline": [{ "apiVersion": "v1", "kind": "X", "metadata": { "name": "a" }, "b": "x".repeat(MAX_INLINE_BYTES) }] }]),
            ),
            "content.apps[0].manifests",
        ),
        (
            blob(b"never uploaded", 1),
            "content.apps[0].manifests[0].blob.digest",
        ),
        (blob(b"no JSON", 8), "content.apps[0].manifests[0].blob.size"),
        (blob(b"no JSON", 7), "content.apps[0].manifests[0].blob: "),
        (
            blob(&listed, listed.len()),
            "content.apps[0].manifests[0].blob[1]",
        ),
    ] {
        let body = json!({ "name": "r", "content": { "apps": apps } });
        let (status, refused) = hub.refused(Method::POST, "/api/v1/releases", body).await;
        assert_eq!(
            (status, refused.code.as_ref()),
            (StatusCode::UNPROCESSABLE_ENTITY, hub_codes::RELEASE_INVALID)
        );
        assert!(refused.message.starts_with(place), "{place}: {refused}");
    }
    // All apps within their own limit, and together too much for one document.
    let object =
        json!({ "apiVersion": "v1", "kind": "X", "metadata": { "name": "a" }, "b": "x".repeat(15_000) });
    let apps: Vec<Value> = (0..60)
        .map(|number| json!({ "name": format!("a{number}"), "manifests": [{ "inline": [object] }] }))
        .collect();
    let (status, refused) = hub
        .refused(
            Method::POST,
            "/api/v1/releases",
            json!({ "name": "r", "content": { "apps": apps } }),
        )
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.message.contains("move manifests into blobs"), "{refused}");
    assert!(hub.get::<Vec<ReleaseInfo>>("/api/v1/releases").await.is_empty());
}

#[tokio::test]
async fn pain_18_large_content_travels_as_a_blob_that_only_its_nodes_can_fetch() {
    let site = Site::new();
    let hub = site.start_with(&[("api", "max_blob_bytes = 300000")]).await;
    let node = hub.node("shop-17").await;
    let other = hub.node("shop-18").await;
    let objects: Vec<Value> = (0..2_000)
        .map(|number| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("c{number}") } }))
        .collect();
    let content = serde_json::to_vec(&objects).unwrap();
    let digest = Digest::of(&content);
    assert!(content.len() > 100_000);

    let (status, refused) = problem(upload_as(&hub, &digest, b"else").await).await;
    assert_eq!(
        (status.as_u16(), refused.code.as_ref()),
        (422, codes::BLOB_DIGEST_MISMATCH)
    );
    let (status, refused) = problem(upload(&hub, &vec![b'x'; 300_001]).await).await;
    assert_eq!(
        (status.as_u16(), refused.code.as_ref()),
        (413, hub_codes::BODY_TOO_LARGE)
    );
    assert_eq!(upload(&hub, &content).await.status(), StatusCode::CREATED);
    assert_eq!(upload(&hub, &content).await.status(), StatusCode::OK);
    let left: Vec<_> = std::fs::read_dir(site.data_dir().join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, [digest.hex()]);

    let body = json!({ "name": "big", "content": { "apps": [{
        "name": "a", "manifests": [{ "blob": { "digest": digest, "size": content.len() } }]
    }] } });
    let url = format!("{}/v1/blobs/{digest}", hub.api);
    let refused = async |client: &reqwest::Client| {
        let (status, refused) = problem(client.get(&url).send().await.unwrap()).await;
        (status.as_u16(), refused.code.into_owned())
    };
    let _: Value = hub.ask(Method::POST, "/api/v1/releases", body).await;
    assert_eq!(refused(&node.client()).await, (404, codes::BLOB_UNKNOWN.into()));
    assign(&hub, "big", "shop-17").await;
    assert_eq!(refused(&other.client()).await, (404, codes::BLOB_UNKNOWN.into()));
    assert_eq!(refused(&hub.client).await, (401, codes::UNAUTHENTICATED.into()));

    let client = node.client();
    let whole = client.get(&url).send().await.unwrap();
    assert_eq!(whole.headers()[header::ACCEPT_RANGES], "bytes");
    assert_eq!(whole.headers()[header::CONTENT_LENGTH], content.len().to_string());
    assert_eq!(whole.bytes().await.unwrap(), content);
    // As after a cut: the rest from where it broke off.
    let rest = client
        .get(&url)
        .header(header::RANGE, "bytes=70000-")
        .send()
        .await
        .unwrap();
    assert_eq!(rest.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(
        rest.headers()[header::CONTENT_RANGE],
        format!("bytes 70000-{}/{}", content.len() - 1, content.len())
    );
    assert_eq!(rest.bytes().await.unwrap(), content[70_000..]);
    let outside = client
        .get(&url)
        .header(header::RANGE, "bytes=9999999-")
        .send()
        .await
        .unwrap();
    let (status, refused) = problem(outside).await;
    assert_eq!(
        (status.as_u16(), refused.code.as_ref()),
        (416, hub_codes::RANGE_NOT_SATISFIABLE)
    );
    // The document itself stays small.
    let (envelope, _) = document(&hub, &node).await.unwrap();
    assert!(envelope.to_json().len() < 2_000);
}

#[tokio::test]
async fn the_stream_tells_what_happens_to_nodes() {
    let site = Site::new();
    let hub = site.start().await;
    let response = hub
        .send(Some(&hub.token), Method::GET, "/api/v1/stream", None)
        .await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut chunks = response.bytes_stream();
    let mut text = String::new();
    let mut next = async || {
        loop {
            if let Some((event, rest)) = text.split_once("\n\n") {
                let (name, data) = event.split_once('\n').unwrap_or((event, ""));
                let name = name.trim_start_matches("event: ").to_owned();
                let data: Value = serde_json::from_str(data.trim_start_matches("data: ")).unwrap_or_default();
                text = rest.to_owned();
                if name != ":" {
                    return (name, data);
                }
            } else {
                let chunk = tokio::time::timeout(support::PATIENCE, chunks.next())
                    .await
                    .unwrap();
                text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
            }
        }
    };
    assert_eq!(next().await.0, "tick");
    hub.node("shop-17").await;
    let (name, node) = next().await;
    assert_eq!((name.as_str(), &node["id"]), ("node", &json!("shop-17")));
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases", release("r1", "x"))
        .await;
    assign(&hub, "r1", "shop-17").await;
    let (name, node) = next().await;
    assert_eq!((name.as_str(), &node["wanted"]), ("node", &json!("1.1")));
    let _: () = hub.ask(Method::DELETE, "/api/v1/nodes/shop-17", ()).await;
    assert_eq!(
        next().await,
        ("node-deleted".to_owned(), json!({ "id": "shop-17" }))
    );
    // It ends with the hub, and does not hold it up.
    hub.stop().await;
}
