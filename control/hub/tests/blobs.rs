//! Blobs at a real hub: large ones, what names them, and the end of those that nothing names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use holdfast_protocol::{
    Digest, codes,
    operator::{BlobInfo, CollectedBlobs},
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use support::{Hub, Site};

/// Resident memory of the hub's process.
fn memory_kib(hub: &Hub) -> u64 {
    let path = format!("/proc/{}/status", hub.process.id().unwrap());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn upload(hub: &Hub, content: Vec<u8>) -> (Digest, StatusCode) {
    let digest = Digest::of(&content);
    let answer = hub
        .client
        .put(format!("{}/api/v1/blobs/{digest}", hub.api))
        .bearer_auth(&hub.token)
        .body(content)
        .send()
        .await
        .unwrap();
    (digest, answer.status())
}

/// Lets all blobs be as if they had been uploaded two hours ago.
async fn age(site: &Site) {
    let database = site.data_dir().join("hub.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", database.display()))
        .await
        .unwrap();
    sqlx::query("UPDATE blobs SET created_at = created_at - 7200000000")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
}

#[tokio::test]
async fn artifacts_are_kept_as_long_as_something_names_them() {
    let site = Site::new();
    let hub = site.start().await;
    // Far more than a blob of manifests may have, and more than the hub may hold in memory.
    let before = memory_kib(&hub);
    let (binary, status) = upload(&hub, vec![7; 64 << 20]).await;
    assert_eq!(status, StatusCode::CREATED);
    let grown = memory_kib(&hub).saturating_sub(before);
    assert!(grown < 24 * 1024, "the hub grew by {grown} KiB");
    let (unused, _) = upload(&hub, vec![8; 100_000]).await;
    let (again, _) = upload(&hub, vec![9; 1_000]).await;
    let (_, status) = upload(&hub, Vec::new()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "an empty blob is taken");
    let release = json!({"name": "one", "content": {
        "apps": [],
        "k3s": {"binaries": {"amd64": {"digest": binary, "size": 64 << 20, "name": "k3s"}}}
    }});
    let _: serde_json::Value = hub.ask(Method::POST, "/api/v1/releases", release).await;

    let list: Vec<BlobInfo> = hub.get("/api/v1/blobs").await;
    assert_eq!(list.len(), 3);
    let of = |digest: Digest| list.iter().find(|blob| blob.digest == digest).unwrap();
    assert_eq!(
        (of(binary).releases.as_slice(), of(binary).size),
        (["one".to_owned()].as_slice(), 64 << 20)
    );
    assert!(of(unused).releases.is_empty());

    let collect = async |older: u64, dry: bool| -> CollectedBlobs {
        let request = json!({"olderThanSeconds": older, "dryRun": dry});
        hub.ask(Method::POST, "/api/v1/blobs/collect", request).await
    };
    assert_eq!(
        collect(3_600, false).await,
        CollectedBlobs::default(),
        "all are young"
    );
    age(&site).await;
    // Sent once more, as for a release that is being made.
    assert_eq!(upload(&hub, vec![9; 1_000]).await, (again, StatusCode::OK));
    let would = collect(3_600, true).await;
    assert_eq!(
        would.blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>(),
        [unused]
    );
    assert_eq!(collect(3_600, false).await, would);
    assert_eq!(would.bytes, 100_000);
    let left: Vec<BlobInfo> = hub.get("/api/v1/blobs").await;
    assert_eq!(left.len(), 2);
    let files = std::fs::read_dir(site.data_dir().join("blobs/sha256"))
        .unwrap()
        .count();
    assert_eq!(files, 2);
    // It can come back.
    assert_eq!(upload(&hub, vec![8; 100_000]).await.1, StatusCode::CREATED);

    let (status, problem) = hub
        .refused(
            Method::POST,
            "/api/v1/blobs/collect",
            json!({"olderThanSeconds": 5}),
        )
        .await;
    assert_eq!(
        (status, problem.code.as_ref()),
        (StatusCode::BAD_REQUEST, codes::BAD_REQUEST)
    );
    hub.stop().await;
}
