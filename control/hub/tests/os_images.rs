//! Images of the operating system at a real hub: what a release of them is held against, who gets their packs, and how long those are kept.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use holdfast_harness::images;
use holdfast_os::{Architecture, MANIFEST_TYPE, Manifest, sign};
use holdfast_protocol::{
    Digest, codes,
    envelope::Envelope,
    operator::{BlobInfo, CollectedBlobs},
};
use reqwest::{Method, StatusCode, header};
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};
use support::{Hub, Node, Site, problem};

/// Bytes of an image: many times what a node asks for at once.
const BYTES: usize = 2 << 20;

/// A pack, and the manifest of the image in it.
fn image(version: &str, architecture: Architecture) -> (Vec<u8>, Manifest) {
    let directory = tempfile::tempdir().unwrap();
    let image = images::build(directory.path(), version, architecture, BYTES, &key()).unwrap();
    (std::fs::read(image.pack).unwrap(), image.manifest)
}

fn key() -> Ed25519KeyPair {
    images::key(1).unwrap()
}

async fn upload(hub: &Hub, content: Vec<u8>) -> Value {
    let size = content.len();
    let (digest, status) = hub.put_blob(content).await;
    assert_eq!(status, StatusCode::CREATED);
    json!({"digest": digest, "size": size})
}

fn release(name: &str, version: &str, architecture: &str, manifest: &Value) -> Value {
    json!({"name": name, "content": {
        "apps": [],
        "os": {"version": version, "images": {architecture: manifest}}
    }})
}

async fn range(hub: &Hub, node: &Node, digest: &Digest, range: &str) -> (StatusCode, Vec<u8>) {
    let url = format!("{}/v1/blobs/{digest}", hub.api);
    let asked = node.client().get(url).header(header::RANGE, range);
    let answer = asked.send().await.unwrap();
    (answer.status(), answer.bytes().await.unwrap().to_vec())
}

#[tokio::test]
async fn a_node_may_fetch_the_pack_that_the_manifest_of_its_release_names() {
    let site = Site::new();
    let hub = site.start().await;
    let (node, other) = (hub.node("shop-17").await, hub.node("shop-18").await);
    let (content, manifest) = image("2", Architecture::Amd64);
    let pack = manifest.pack.digest;
    upload(&hub, content.clone()).await;
    let manifest = upload(&hub, sign(&manifest, &[&key()]).unwrap()).await;
    let _: Value = hub
        .ask(
            Method::POST,
            "/api/v1/releases",
            release("os-2", "2", "amd64", &manifest),
        )
        .await;
    // Named by a release is not enough: by the node's document it must be.
    let (status, _) = range(&hub, &node, &pack, "bytes=0-9").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let assign = json!({"nodes": ["shop-17"]});
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases/os-2/assign", assign)
        .await;
    let (size, far) = (content.len(), content.len() - 70_000);
    for (asked, expected) in [
        ("bytes=0-9".to_owned(), &content[..10]),
        (
            format!("bytes={far}-{}", far + 65_535),
            &content[far..far + 65_536],
        ),
        (format!("bytes={}-", size - 3), &content[size - 3..]),
    ] {
        let (status, bytes) = range(&hub, &node, &pack, &asked).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT, "{asked}");
        assert!(bytes == expected, "{asked}: {} bytes", bytes.len());
    }
    let (status, _) = range(&hub, &node, &pack, &format!("bytes={size}-")).await;
    assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
    let url = format!("{}/v1/blobs/{pack}", hub.api);
    let (status, refused) = problem(other.client().get(url).send().await.unwrap()).await;
    assert_eq!(
        (status, refused.code.as_ref()),
        (StatusCode::NOT_FOUND, codes::BLOB_UNKNOWN)
    );

    // It is listed as named, kept as long, and goes with the release.
    let list: Vec<BlobInfo> = hub.get("/api/v1/blobs").await;
    let named = list.iter().find(|blob| blob.digest == pack).unwrap();
    assert_eq!(
        (named.releases.as_slice(), named.nodes),
        (["os-2".to_owned()].as_slice(), 1)
    );
    site.age_blobs().await;
    let collect = json!({"olderThanSeconds": 3_600, "dryRun": true});
    let collected: CollectedBlobs = hub.ask(Method::POST, "/api/v1/blobs/collect", collect).await;
    assert_eq!(collected, CollectedBlobs::default());
    let next = json!({"name": "none", "content": {"apps": []}});
    let _: Value = hub.ask(Method::POST, "/api/v1/releases", next).await;
    let assign = json!({"nodes": ["shop-17"]});
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases/none/assign", assign)
        .await;
    let (status, _) = range(&hub, &node, &pack, "bytes=0-9").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "its document names it no more");
    let deleted = hub
        .send(Some(&hub.token), Method::DELETE, "/api/v1/releases/os-2", None)
        .await;
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    let left: Vec<BlobInfo> = hub.get("/api/v1/blobs").await;
    assert!(left.is_empty(), "{left:?}");
    hub.stop().await;
}

#[tokio::test]
async fn a_release_of_an_image_that_no_node_could_use_is_refused_with_its_place() {
    let site = Site::new();
    let hub = site.start().await;
    let (content, manifest) = image("2", Architecture::Arm64);
    let bytes = sign(&manifest, &[&key()]).unwrap();
    let mut unsigned = Envelope::sign(MANIFEST_TYPE, serde_json::to_vec(&manifest).unwrap(), &[&key()]);
    unsigned.signatures.clear();
    let good = json!({"digest": Digest::of(&bytes), "size": bytes.len()});
    let refused = async |body: Value| -> String {
        let (status, problem) = hub.refused(Method::POST, "/api/v1/releases", body).await;
        assert_eq!(
            (status, problem.code.as_ref()),
            (StatusCode::UNPROCESSABLE_ENTITY, "release-invalid")
        );
        problem.message
    };
    let message = refused(release("a", "2", "arm64", &good)).await;
    assert!(
        message.contains("content.os.images.arm64.digest: there is no manifest"),
        "{message}"
    );
    upload(&hub, bytes).await;
    let message = refused(release("a", "2", "arm64", &good)).await;
    assert!(
        message.contains("its pack") && message.contains("is not at the hub"),
        "{message}"
    );
    upload(&hub, content.clone()).await;
    let unsigned = upload(&hub, unsigned.to_json()).await;
    let garbage = upload(&hub, b"{}".to_vec()).await;
    let mut unknown = release("a", "2", "arm64", &good);
    unknown["content"]["os"]["channel"] = json!("stable");
    for (body, words) in [
        (release("a", "3", "arm64", &good), "the image has the version 2"),
        (release("a", "2", "amd64", &good), "the image is for arm64"),
        (
            release("a", "no version", "arm64", &good),
            "the image has the version 2",
        ),
        (release("a", "2", "arm64", &unsigned), "no signature"),
        (release("a", "2", "arm64", &garbage), "not a DSSE envelope"),
        (
            release("a", "2", "arm64", &json!({"digest": good["digest"], "size": 5})),
            "5 bytes; the manifest at the hub has",
        ),
        (unknown, "content.os.channel: unknown key"),
        (
            release("a", "2", "banana", &good),
            "os.images.banana: \"banana\" is no architecture of a box; known are amd64, arm64",
        ),
    ] {
        let message = refused(body).await;
        assert!(message.contains(words), "{words}: {message}");
    }
    let _: Value = hub
        .ask(
            Method::POST,
            "/api/v1/releases",
            release("a", "2", "arm64", &good),
        )
        .await;
    hub.stop().await;
}

#[tokio::test]
async fn an_image_that_was_lost_at_the_hub_is_told_as_missing_and_can_be_sent_again() {
    let site = Site::new();
    let hub = site.start().await;
    let node = hub.node("shop-17").await;
    let (content, manifest) = image("2", Architecture::Amd64);
    let pack = manifest.pack.digest;
    let bytes = sign(&manifest, &[&key()]).unwrap();
    upload(&hub, content.clone()).await;
    let manifest = upload(&hub, bytes.clone()).await;
    let create = async |name: &str| -> Value {
        let release = release(name, "2", "amd64", &manifest);
        hub.ask(Method::POST, "/api/v1/releases", release).await
    };
    create("one").await;
    let assign = json!({"nodes": ["shop-17"]});
    let _: Value = hub.ask(Method::POST, "/api/v1/releases/one/assign", assign).await;
    let file = |digest: &Digest| site.data_dir().join("blobs/sha256").join(digest.hex());
    let refused = async || -> String {
        let release = release("two", "2", "amd64", &manifest);
        let (status, problem) = hub.refused(Method::POST, "/api/v1/releases", release).await;
        assert_eq!(
            (status, problem.code.as_ref()),
            (StatusCode::UNPROCESSABLE_ENTITY, "release-invalid")
        );
        problem.message
    };
    let whole = std::fs::File::options().write(true).open(file(&pack)).unwrap();
    whole.set_len(content.len() as u64 - 1).unwrap();
    let message = refused().await;
    assert!(message.contains("is not at the hub"), "{message}");
    let url = format!("{}/v1/blobs/{pack}", hub.api);
    let (status, told) = problem(node.client().get(url).send().await.unwrap()).await;
    assert_eq!(
        (status, told.code.as_ref()),
        (StatusCode::NOT_FOUND, codes::BLOB_UNKNOWN)
    );
    assert!(told.message.contains("is not at the hub"), "{told:?}");
    std::fs::remove_file(file(&Digest::of(&bytes))).unwrap();
    let message = refused().await;
    assert!(message.contains("there is no manifest"), "{message}");
    upload(&hub, content.clone()).await;
    upload(&hub, bytes).await;
    create("two").await;
    let (status, sent) = range(&hub, &node, &pack, "bytes=0-").await;
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    assert!(sent == content, "{} bytes", sent.len());
    hub.stop().await;
}
