//! Which blobs are on the disk; their content is in files named by digest.

use super::{DatabaseError, Result, Write, micros};
use holdfast_protocol::{Digest, document::BlobRef};
use jiff::Timestamp;
use sqlx::SqlitePool;

/// Notes a blob; false where it was known.
pub async fn insert(tx: &mut Write, blob: &BlobRef, by: &str, now: Timestamp) -> Result<bool> {
    let size = i64::try_from(blob.size).map_err(|error| DatabaseError::value("size", &error))?;
    let done = sqlx::query(
        "INSERT INTO blobs (digest, size, created_at, created_by) VALUES ($1, $2, $3, $4) ON CONFLICT (digest) DO NOTHING",
    )
    .bind(blob.digest.to_string())
    .bind(size)
    .bind(micros(now))
    .bind(by)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Size of a blob in bytes, where it is known.
pub async fn size(pool: &SqlitePool, digest: &Digest) -> Result<Option<u64>> {
    let size: Option<i64> = sqlx::query_scalar("SELECT size FROM blobs WHERE digest = $1")
        .bind(digest.to_string())
        .fetch_optional(pool)
        .await?;
    size.map(|size| u64::try_from(size).map_err(|error| DatabaseError::value("size", &error)))
        .transpose()
}
