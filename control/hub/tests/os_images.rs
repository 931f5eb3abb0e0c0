//! Images of the operating system at a real hub: what a release of them is held against, who gets their packs, and how long those are kept.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use holdfast_os::{Architecture, Chunk, MANIFEST_TYPE, Manifest, Part, sign};
use holdfast_protocol::{
    Digest, SchemaVersion, codes,
    document::Artifact,
    envelope::Envelope,
    operator::{BlobInfo, CollectedBlobs},
};
use reqwest::{Method, StatusCode, header};
use ring::signature::Ed25519KeyPair;
use serde_json::{Map, Value, json};
use support::{Hub, Node, Site, problem};

/// Bytes of a pack: more than a node asks for at once.
const PACK_BYTES: usize = 24 << 20;

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap()
}

/// A pack whose bytes all differ from place to place, and the manifest of an image in it.
fn image(version: &str, architecture: Architecture) -> (Vec<u8>, Manifest) {
    let mut pack: Vec<u8> = (0..PACK_BYTES / 8)
        .flat_map(|place| (place as u64).to_be_bytes())
        .collect();
    pack[..version.len()].copy_from_slice(version.as_bytes());
    let part = |number: u64| Part {
        size: 4096,
        chunks: vec![Chunk {
            digest: Digest::of(&number.to_be_bytes()),
            size: 4096,
            offset: number * 4096,
            length: 4096,
        }],
    };
    let manifest = Manifest {
        schema: SchemaVersion::CURRENT,
        version: version.to_owned(),
        architecture,
        usr_hash: "0123456789abcdef".repeat(4),
        pack: Artifact {
            digest: Digest::of(&pack),
            size: pack.len() as u64,
            name: "holdfast.pack".to_owned(),
            sources: Vec::new(),
            extra: Map::new(),
        },
        usr: part(0),
        verity: part(1),
        uki: part(2),
    };
    (pack, manifest)
}

async fn upload(hub: &Hub, content: Vec<u8>) -> Value {
    let (digest, size) = (Digest::of(&content), content.len());
    let answer = hub
        .client
        .put(format!("{}/api/v1/blobs/{digest}", hub.api))
        .bearer_auth(&hub.token)
        .body(content)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
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
    let far = PACK_BYTES - 70_000;
    for (asked, expected) in [
        ("bytes=0-9".to_owned(), &content[..10]),
        (
            format!("bytes={far}-{}", far + 65_535),
            &content[far..far + 65_536],
        ),
        (format!("bytes={}-", PACK_BYTES - 3), &content[PACK_BYTES - 3..]),
    ] {
        let (status, bytes) = range(&hub, &node, &pack, &asked).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT, "{asked}");
        assert!(bytes == expected, "{asked}: {} bytes", bytes.len());
    }
    let (status, _) = range(&hub, &node, &pack, &format!("bytes={PACK_BYTES}-")).await;
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
    let database = site.data_dir().join("hub.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", database.display()))
        .await
        .unwrap();
    sqlx::query("UPDATE blobs SET created_at = created_at - 7200000000")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
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
