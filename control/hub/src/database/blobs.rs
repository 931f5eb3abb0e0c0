//! Which blobs are on the disk; their content is in files named by digest.

use super::{DatabaseError, Result, Write, from_json, micros, parse, releases};
use holdfast_protocol::{Digest, document::BlobRef};
use jiff::Timestamp;
use sqlx::SqlitePool;
use std::collections::BTreeSet;

/// A day in microseconds.
const DAY_MICROS: i64 = 86_400_000_000;

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

/// Size of a blob in bytes within a transaction, where it is known.
pub async fn size_for_update(tx: &mut Write, digest: &Digest) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar("SELECT size FROM blobs WHERE digest = $1")
        .bind(digest.to_string())
        .fetch_optional(&mut **tx)
        .await?)
}

/// Forgets the blobs that no release and no node's document names, and gives them; those of the last day stay, unless `also` holds them: they may be
/// part of a release that is being made.
pub async fn forget_unused(tx: &mut Write, also: &BTreeSet<Digest>, now: Timestamp) -> Result<Vec<Digest>> {
    let contents: Vec<String> = sqlx::query_scalar("SELECT content FROM releases")
        .fetch_all(&mut **tx)
        .await?;
    let mut used = BTreeSet::new();
    for content in contents {
        used.extend(releases::digests(&from_json(&content)?));
    }
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT b.digest, b.created_at FROM blobs b WHERE NOT EXISTS \
         (SELECT 1 FROM document_blobs d WHERE d.digest = b.digest) ORDER BY b.digest",
    )
    .fetch_all(&mut **tx)
    .await?;
    let limit = micros(now) - DAY_MICROS;
    let mut forgotten = Vec::new();
    for (text, created_at) in rows {
        let digest: Digest = parse(&text)?;
        if used.contains(&digest) || (created_at > limit && !also.contains(&digest)) {
            continue;
        }
        sqlx::query("DELETE FROM blobs WHERE digest = $1")
            .bind(&text)
            .execute(&mut **tx)
            .await?;
        forgotten.push(digest);
    }
    Ok(forgotten)
}
