//! Uploads of blobs in pieces: begun or gone on with by `POST`, sent by `PATCH` with `Content-Range`, as a registry takes them.

use super::{
    auth::Admin,
    blobs::{keep, known},
    body::{Body, Part, too_large},
    error::{ApiError, Result},
};
use crate::{
    blobs::{BlobFiles, UploadError},
    hub::Hub,
    uploads::{Place, Progress, Turn},
};
use axum::{Json, body::Body as HttpBody, extract::State};
use futures::TryStreamExt as _;
use holdfast_protocol::{
    Digest, Problem,
    operator::{BeginUpload, BlobUpload},
};
use http::{HeaderMap, StatusCode, header};
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// Begins the upload of a blob, or says where one goes on that was cut. A blob that is here already is kept for the release that is being made.
#[utoipa::path(post, path = "/api/v1/blobs/{digest}/upload", tag = "blobs", request_body = BeginUpload,
    params(("digest" = String, Path, description = "sha256:…")),
    responses((status = 200, description = "How far it is", body = BlobUpload),
        (status = "4XX", description = "body-too-large, conflict, blob-digest-mismatch", body = Problem)))]
pub async fn begin(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Part(digest): Part<Digest>,
    Body(request): Body<BeginUpload>,
) -> Result<Json<BlobUpload>> {
    if let Some(size) = known(&hub, digest).await? {
        return Ok(Json(complete(digest, size)));
    }
    let (files, turn) = open(&hub, digest, request.size)?;
    let all = files.clone();
    let removed = spawn_blocking(move || all.remove_forgotten())
        .await
        .map_err(|error| ApiError::internal(&error))?;
    if let Err(error) = removed {
        tracing::warn!(%error, "uploads that nobody went on with cannot be removed");
    }
    let progress = files.progress(&turn, request.size).await?;
    let (_, answer) = answer(&hub, who.name, digest, request.size, progress).await?;
    Ok(answer)
}

/// Sends the piece of a blob that begins where the last one ended. What came of a piece before a cut is kept.
#[utoipa::path(patch, path = "/api/v1/blobs/{digest}/upload", tag = "blobs",
    params(("digest" = String, Path, description = "sha256:…"),
        ("Content-Range" = String, Header, description = "bytes FIRST-LAST/SIZE")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 202, description = "More is missing", body = BlobUpload),
        (status = 201, description = "It is whole", body = BlobUpload),
        (status = 416, description = "range-not-satisfiable: the piece does not begin where the last one ended", body = Problem),
        (status = "4XX", description = "bad-request, body-too-large, conflict, blob-digest-mismatch", body = Problem)))]
pub async fn piece(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Part(digest): Part<Digest>,
    headers: HeaderMap,
    body: HttpBody,
) -> Result<(StatusCode, Json<BlobUpload>)> {
    if let Some(size) = known(&hub, digest).await? {
        return Ok((StatusCode::CREATED, Json(complete(digest, size))));
    }
    let range = headers.get(header::CONTENT_RANGE);
    let place = range
        .and_then(|range| Place::parse(range.to_str().ok()?))
        .ok_or_else(|| {
            ApiError::bad_request(
                format!("Content-Range is {range:?}"),
                "say where the piece belongs: Content-Range: bytes FIRST-LAST/SIZE",
            )
        })?;
    let (files, turn) = open(&hub, digest, place.size)?;
    let content = body.into_data_stream().map_err(|error| error.to_string());
    let progress = files.append(&turn, place, content).await?;
    answer(&hub, who.name, digest, place.size, progress).await
}

/// The turn to write to the upload of a blob.
fn open(hub: &Hub, digest: Digest, size: u64) -> Result<(BlobFiles, Turn)> {
    let limit = hub.config.api.max_blob_bytes;
    if size > limit {
        return Err(too_large(limit));
    }
    if size == 0 {
        return Err(UploadError::Empty.into());
    }
    let turn = hub.uploads.take(digest).ok_or_else(|| {
        ApiError::conflict(
            format!("the blob {digest} is being uploaded by another request"),
            "wait until that ends, or broke off for 30 seconds, and try again",
        )
    })?;
    Ok((BlobFiles::new(&hub.config.data_dir), turn))
}

async fn answer(
    hub: &Hub,
    by: String,
    digest: Digest,
    size: u64,
    progress: Progress,
) -> Result<(StatusCode, Json<BlobUpload>)> {
    match progress {
        Progress::Part(received) => {
            let upload = BlobUpload {
                digest,
                size,
                received,
                complete: false,
            };
            Ok((StatusCode::ACCEPTED, Json(upload)))
        }
        Progress::Whole(received) => {
            let blob = keep(hub, by, digest, received).await?;
            Ok((StatusCode::CREATED, Json(complete(digest, blob.size))))
        }
    }
}

fn complete(digest: Digest, size: u64) -> BlobUpload {
    BlobUpload {
        digest,
        size,
        received: size,
        complete: true,
    }
}
