//! Blobs at a real hub: large ones, what names them, and the end of those that nothing names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use holdfast_hub::codes as hub_codes;
use holdfast_protocol::{
    Digest, codes,
    operator::{BlobInfo, BlobUpload, CollectedBlobs},
};
use reqwest::{Body, Method, Response, StatusCode};
use serde_json::json;
use std::{convert::Infallible, time::Duration};
use support::{Hub, Site, eventually, problem};
use tokio::sync::mpsc;

/// Resident memory of the hub's process.
fn memory_kib(hub: &Hub) -> u64 {
    let path = format!("/proc/{}/status", hub.process.id().unwrap());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn artifacts_are_kept_as_long_as_something_names_them() {
    let site = Site::new();
    let hub = site.start().await;
    // Far more than a blob of manifests may have, and more than the hub may hold in memory.
    let before = memory_kib(&hub);
    let (binary, status) = hub.put_blob(vec![7; 64 << 20]).await;
    assert_eq!(status, StatusCode::CREATED);
    let grown = memory_kib(&hub).saturating_sub(before);
    assert!(grown < 24 * 1024, "the hub grew by {grown} KiB");
    let (unused, _) = hub.put_blob(vec![8; 100_000]).await;
    let (again, _) = hub.put_blob(vec![9; 1_000]).await;
    let (_, status) = hub.put_blob(Vec::new()).await;
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
    site.age_blobs().await;
    // Sent once more, as for a release that is being made.
    assert_eq!(hub.put_blob(vec![9; 1_000]).await, (again, StatusCode::OK));
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
    assert_eq!(hub.put_blob(vec![8; 100_000]).await.1, StatusCode::CREATED);

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

/// Asks how far an upload is.
async fn begin(hub: &Hub, digest: Digest, size: usize) -> Response {
    let path = format!("/api/v1/blobs/{digest}/upload");
    hub.send(Some(&hub.token), Method::POST, &path, Some(json!({"size": size})))
        .await
}

/// Sends a piece of an upload.
async fn piece(hub: &Hub, digest: Digest, range: &str, content: impl Into<Body>) -> Response {
    hub.client
        .patch(format!("{}/api/v1/blobs/{digest}/upload", hub.api))
        .bearer_auth(&hub.token)
        .header("content-range", range)
        .body(content)
        .send()
        .await
        .unwrap()
}

async fn received(answer: Response) -> (StatusCode, u64, bool) {
    let status = answer.status();
    let upload: BlobUpload = answer.json().await.unwrap();
    (status, upload.received, upload.complete)
}

#[tokio::test]
async fn a_blob_comes_in_pieces_each_where_the_last_one_ended() {
    let site = Site::new();
    let hub = site.start().await;
    let content: Vec<u8> = (0..100_u8).collect();
    let digest = Digest::of(&content);
    assert_eq!(
        received(begin(&hub, digest, 100).await).await,
        (StatusCode::OK, 0, false)
    );
    let answer = piece(&hub, digest, "bytes 0-39/100", content[..40].to_vec()).await;
    assert_eq!(received(answer).await, (StatusCode::ACCEPTED, 40, false));
    // Not twice, and with no gap.
    for wrong in ["bytes 0-39/100", "bytes 50-99/100"] {
        let (status, problem) = problem(piece(&hub, digest, wrong, content[..40].to_vec()).await).await;
        assert_eq!(
            (status, problem.code.as_ref()),
            (
                StatusCode::RANGE_NOT_SATISFIABLE,
                hub_codes::RANGE_NOT_SATISFIABLE
            )
        );
        assert!(problem.message.contains("40 bytes are here"), "{problem:?}");
    }
    // What is told of a piece is what must come.
    for (range, length, words) in [
        ("bytes 40-59/100", 19, "1 bytes are missing"),
        ("bytes 59-60/100", 3, "more came than the 2 bytes"),
        ("60-99", 1, "Content-Range is"),
    ] {
        let (status, problem) = problem(piece(&hub, digest, range, vec![7; length]).await).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{range}");
        assert!(problem.message.contains(words), "{range}: {problem:?}");
    }
    // A hub that was killed goes on where it was. What came was wrong, and is found to be so once it is whole.
    hub.kill().await;
    let hub = site.start().await;
    assert_eq!(
        received(begin(&hub, digest, 100).await).await,
        (StatusCode::OK, 59, false)
    );
    let (status, refused) =
        problem(piece(&hub, digest, "bytes 59-99/100", content[59..].to_vec()).await).await;
    assert_eq!(
        (status, refused.code.as_ref()),
        (StatusCode::UNPROCESSABLE_ENTITY, codes::BLOB_DIGEST_MISMATCH)
    );
    let list: Vec<BlobInfo> = hub.get("/api/v1/blobs").await;
    assert!(list.is_empty(), "{list:?}");
    let answer = piece(&hub, digest, "bytes 0-99/100", content.clone()).await;
    assert_eq!(received(answer).await, (StatusCode::CREATED, 100, true));
    assert_eq!(
        received(begin(&hub, digest, 100).await).await,
        (StatusCode::OK, 100, true)
    );
    let list: Vec<BlobInfo> = hub.get("/api/v1/blobs").await;
    assert_eq!((list[0].digest, list[0].size), (digest, 100));
    let files = std::fs::read_dir(site.data_dir().join("blobs/sha256"))
        .unwrap()
        .count();
    assert_eq!(files, 1, "nothing is left of the pieces");
    hub.stop().await;
}

#[tokio::test]
async fn a_blob_whose_file_is_missing_or_cut_off_is_taken_again() {
    let site = Site::new();
    let hub = site.start().await;
    let (gone, cut, young) = (vec![1; 100], vec![2; 100], vec![3; 100]);
    let directory = site.data_dir().join("blobs/sha256");
    let file = |content: &[u8]| directory.join(Digest::of(content).hex());
    for content in [&gone, &cut, &young] {
        assert_eq!(hub.put_blob(content.clone()).await.1, StatusCode::CREATED);
    }
    hub.stop().await;
    // A database of a backup, and of the blobs nothing or not all.
    std::fs::rename(directory.parent().unwrap(), site.directory.path().join("aside")).unwrap();
    let hub = site.start().await;
    let upload = async |content: &[u8]| {
        let digest = Digest::of(content);
        assert_eq!(
            received(begin(&hub, digest, 100).await).await,
            (StatusCode::OK, 0, false)
        );
        let answer = piece(&hub, digest, "bytes 0-99/100", content.to_vec()).await;
        assert_eq!(received(answer).await, (StatusCode::CREATED, 100, true));
        assert_eq!(std::fs::read(file(content)).unwrap(), content);
        assert_eq!(
            received(begin(&hub, digest, 100).await).await,
            (StatusCode::OK, 100, true)
        );
    };
    let digest = Digest::of(&young);
    let release = json!({"name": "one", "content": {
        "apps": [{"name": "a", "manifests": [{"blob": {"digest": digest, "size": 100}}]}]
    }});
    let (status, problem) = hub.refused(Method::POST, "/api/v1/releases", release).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(problem.message.contains("upload it first"), "{problem:?}");
    site.age_blobs().await;
    upload(&gone).await;
    assert_eq!(hub.put_blob(cut.clone()).await.1, StatusCode::CREATED);
    let whole = std::fs::File::options().write(true).open(file(&cut)).unwrap();
    whole.set_len(99).unwrap();
    upload(&cut).await;
    assert_eq!(hub.put_blob(young.clone()).await.1, StatusCode::CREATED);
    assert_eq!(hub.put_blob(young).await.1, StatusCode::OK);
    // What was put back is as young as what is new.
    let collect = json!({"olderThanSeconds": 3_600, "dryRun": true});
    let collected: CollectedBlobs = hub.ask(Method::POST, "/api/v1/blobs/collect", collect).await;
    assert_eq!(collected, CollectedBlobs::default());
    let list: Vec<BlobInfo> = hub.get("/api/v1/blobs").await;
    assert_eq!(list.len(), 3);
    hub.stop().await;
}

#[tokio::test]
async fn what_is_too_large_empty_or_under_way_is_refused_before_it_is_read() {
    let site = Site::new();
    let hub = site.start_with(&[("api", "max_blob_bytes = 1000")]).await;
    let content = vec![5; 1_000];
    let digest = Digest::of(&content);
    let (status, _) = problem(begin(&hub, digest, 1_001).await).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = problem(piece(&hub, digest, "bytes 0-9/1001", content[..10].to_vec()).await).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = problem(begin(&hub, digest, 0).await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);

    // One that is in the middle of its piece.
    let (sender, receiver) = mpsc::channel::<Vec<u8>>(1);
    let chunks = futures::stream::unfold(receiver, async |mut receiver| {
        let chunk = receiver.recv().await?;
        Some((Ok::<_, Infallible>(chunk), receiver))
    });
    sender.send(content[..500].to_vec()).await.unwrap();
    let slow = piece(
        &hub,
        digest,
        "bytes 0-999/1000",
        Body::wrap_stream(Box::pin(chunks)),
    );
    let other = async {
        // As long as the first has not begun, the other one would be the first, and the first be refused.
        let directory = site.data_dir().join("blobs/sha256");
        eventually("the first has begun its file", async || {
            std::fs::read_dir(&directory).unwrap().next()
        })
        .await
        .unwrap();
        let refused = begin(&hub, digest, 1_000).await;
        assert_eq!(refused.status(), StatusCode::CONFLICT);
        let (_, problem) = problem(refused).await;
        assert_eq!(problem.code, codes::CONFLICT);
        sender.send(content[500..].to_vec()).await.unwrap();
        drop(sender);
    };
    let both = async { tokio::join!(slow, other) };
    let (answer, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    assert_eq!(received(answer).await, (StatusCode::CREATED, 1_000, true));
    hub.stop().await;
}
