//! Blobs: manifests, k3s binaries and archives of images, uploaded once and named by their digest.

use super::{
    auth::{Admin, Viewer},
    body::{Body, Part, too_large},
    error::{ApiError, Result},
};
use crate::{
    blobs::{BlobFiles, Received, UploadError},
    codes as hub_codes,
    database::{
        DatabaseError,
        audit::{self, Actor},
        blobs,
    },
    hub::Hub,
};
use axum::{Json, body::Body as HttpBody, extract::State};
use futures::TryStreamExt as _;
use holdfast_protocol::{
    Digest, Problem, codes,
    document::BlobRef,
    operator::{BlobInfo, CollectBlobs, CollectedBlobs},
};
use http::StatusCode;
use jiff::SignedDuration;
use std::{io, sync::Arc};

/// The youngest blobs are never removed, in seconds: the release that they are for is on its way.
const YOUNG: u64 = 600;

/// All blobs, the newest first, and what names them.
#[utoipa::path(get, path = "/api/v1/blobs", tag = "blobs", responses((status = 200, body = [BlobInfo])))]
pub async fn list(State(hub): State<Arc<Hub>>, _viewer: Viewer) -> Result<Json<Vec<BlobInfo>>> {
    let mut connection = hub.database.read().acquire().await.map_err(DatabaseError::from)?;
    Ok(Json(blobs::list(&mut connection).await?))
}

/// Removes blobs that no release and no document names, of which the last upload is some time ago.
#[utoipa::path(post, path = "/api/v1/blobs/collect", tag = "blobs", request_body = CollectBlobs,
    responses((status = 200, description = "What was removed, or would be", body = CollectedBlobs),
        (status = "4XX", description = "bad-request", body = Problem)))]
pub async fn collect(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Body(request): Body<CollectBlobs>,
) -> Result<Json<CollectedBlobs>> {
    let age = i64::try_from(request.older_than_seconds).ok();
    let before = age.and_then(|age| {
        crate::database::now()
            .checked_sub(SignedDuration::from_secs(age))
            .ok()
    });
    let Some(before) = before.filter(|_| request.older_than_seconds >= YOUNG) else {
        return Err(ApiError::bad_request(
            format!("olderThanSeconds is {}", request.older_than_seconds),
            "give at least 600, so that what was uploaded for a release to come stays",
        ));
    };
    let mut tx = hub.database.write().await?;
    let unused: Vec<_> = blobs::list(&mut tx)
        .await?
        .into_iter()
        .filter(|blob| blob.releases.is_empty() && blob.nodes == 0 && blob.created_at < before)
        .collect();
    let collected = CollectedBlobs {
        bytes: unused.iter().map(|blob| blob.size).sum(),
        blobs: unused,
    };
    if request.dry_run || collected.blobs.is_empty() {
        return Ok(Json(collected));
    }
    let actor = Actor::Operator(who.name);
    for blob in &collected.blobs {
        blobs::delete(&mut tx, &blob.digest).await?;
        let subject = format!("blob/{}", blob.digest);
        audit::record(
            &mut tx,
            &actor,
            "blob.collect",
            &subject,
            &format!("{} bytes", blob.size),
        )
        .await?;
    }
    tx.commit().await?;
    let digests: Vec<_> = collected.blobs.iter().map(|blob| blob.digest).collect();
    sweep(&hub, &digests).await?;
    Ok(Json(collected))
}

/// Removes the files of blobs that the database knows no more. One that was uploaded again meanwhile stays; one that cannot be removed costs
/// space and nothing else.
pub(super) async fn sweep(hub: &Hub, digests: &[Digest]) -> Result<()> {
    let files = BlobFiles::new(&hub.config.data_dir);
    // While this transaction is open, no upload gets its name.
    let mut tx = hub.database.write().await?;
    for digest in digests {
        if blobs::size_for_update(&mut tx, digest).await?.is_some() {
            continue;
        }
        if let Err(error) = files.remove(digest).await {
            tracing::warn!(%digest, %error, "a blob that nothing names cannot be removed");
        }
    }
    Ok(())
}

/// Size of a blob that is here already. It counts as uploaded now, so that it is not removed before the release that names it comes.
pub(super) async fn known(hub: &Hub, digest: Digest) -> Result<Option<u64>> {
    if hub.blob_size(&digest).await?.is_none() {
        return Ok(None);
    }
    let mut tx = hub.database.write().await?;
    blobs::touch(&mut tx, &digest, crate::database::now()).await?;
    tx.commit().await?;
    Ok(blobs::size(hub.database.read(), &digest).await?)
}

/// Uploads a blob; its content must have the digest that it is named by.
#[utoipa::path(put, path = "/api/v1/blobs/{digest}", tag = "blobs",
    params(("digest" = String, Path, description = "sha256:…")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "BlobRef: digest and size", body = Object),
        (status = 200, description = "It was there already", body = Object),
        (status = "4XX", description = "blob-digest-mismatch, body-too-large", body = Problem)))]
pub async fn put_blob(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Part(digest): Part<Digest>,
    body: HttpBody,
) -> Result<(StatusCode, Json<BlobRef>)> {
    if let Some(size) = known(&hub, digest).await? {
        return Ok((StatusCode::OK, Json(BlobRef { digest, size })));
    }
    let limit = hub.config.api.max_blob_bytes;
    let received = BlobFiles::new(&hub.config.data_dir)
        .receive(
            &digest,
            limit,
            body.into_data_stream().map_err(|error| error.to_string()),
        )
        .await?;
    let blob = keep(&hub, who.name, digest, received).await?;
    Ok((StatusCode::CREATED, Json(blob)))
}

/// Makes a blob known that came whole.
pub(super) async fn keep(hub: &Hub, by: String, digest: Digest, received: Received) -> Result<BlobRef> {
    let mut tx = hub.database.write().await?;
    let size = received.place().await?;
    let blob = BlobRef { digest, size };
    let now = crate::database::now();
    if !blobs::insert(&mut tx, &blob, &by, now).await? {
        // Its file was missing, and is back for the release that is being made.
        blobs::touch(&mut tx, &digest, now).await?;
    }
    let actor = Actor::Operator(by);
    let subject = format!("blob/{digest}");
    audit::record(&mut tx, &actor, "blob.upload", &subject, &format!("{size} bytes")).await?;
    tx.commit().await?;
    Ok(blob)
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        let message = error.to_string();
        let problem = |status, code: &'static str, action: &'static str| {
            Self::new(status, Problem::new(code, message.clone(), action))
        };
        match error {
            UploadError::TooLarge { limit } => too_large(limit),
            UploadError::Broken(_) => Self::bad_request(message, "send it again"),
            UploadError::Empty => Self::bad_request(message, "send the file once it is whole"),
            UploadError::Digest { .. } => problem(
                StatusCode::UNPROCESSABLE_ENTITY,
                codes::BLOB_DIGEST_MISMATCH,
                "send the content that the path names",
            ),
            UploadError::Place { .. } => problem(
                StatusCode::RANGE_NOT_SATISFIABLE,
                hub_codes::RANGE_NOT_SATISFIABLE,
                "ask where the upload goes on: POST /api/v1/blobs/{digest}/upload",
            ),
            UploadError::Disk(error) if error.kind() == io::ErrorKind::StorageFull => problem(
                StatusCode::INSUFFICIENT_STORAGE,
                codes::DISK_FULL,
                "free space on the disk of the hub's data directory",
            ),
            UploadError::Disk(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => problem(
                StatusCode::SERVICE_UNAVAILABLE,
                codes::DISK_READ_ONLY,
                "check the mount of the hub's data directory",
            ),
            UploadError::Disk(error) => Self::internal(&error),
        }
    }
}
