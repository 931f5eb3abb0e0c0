//! Which blobs are on the disk; their content is in files named by digest.

use super::{DatabaseError, Result, Write, from_json, micros, parse, releases, timestamp};
use holdfast_protocol::{
    Digest,
    document::BlobRef,
    operator::{BlobInfo, ReleaseContent},
};
use jiff::Timestamp;
use sqlx::{Row as _, SqliteConnection, SqlitePool};
use std::collections::{BTreeMap, BTreeSet};

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
    let parts = parts(tx).await?;
    let mut used = BTreeSet::new();
    for content in contents {
        used.extend(with_parts(releases::digests(&from_json(&content)?), &parts));
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

/// Notes that a blob is named inside another one.
pub async fn set_part(tx: &mut Write, blob: &Digest, part: &Digest) -> Result<()> {
    sqlx::query("INSERT INTO blob_parts (blob, part) VALUES ($1, $2) ON CONFLICT (blob, part) DO NOTHING")
        .bind(blob.to_string())
        .bind(part.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Which blobs are named inside which.
async fn parts(connection: &mut SqliteConnection) -> Result<BTreeMap<Digest, Vec<Digest>>> {
    let rows: Vec<(String, String)> = sqlx::query_as("SELECT blob, part FROM blob_parts ORDER BY blob, part")
        .fetch_all(&mut *connection)
        .await?;
    let mut parts: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
    for (blob, part) in rows {
        parts.entry(parse(&blob)?).or_default().push(parse(&part)?);
    }
    Ok(parts)
}

/// What is named, and what is named inside of that.
fn with_parts(named: BTreeSet<Digest>, parts: &BTreeMap<Digest, Vec<Digest>>) -> BTreeSet<Digest> {
    let inside: Vec<Digest> = named
        .iter()
        .filter_map(|digest| parts.get(digest))
        .flatten()
        .copied()
        .collect();
    named.into_iter().chain(inside).collect()
}

/// All that a release names, with what is named inside of that.
pub async fn of_release(tx: &mut Write, content: &ReleaseContent) -> Result<BTreeSet<Digest>> {
    let parts = parts(tx).await?;
    Ok(with_parts(releases::digests(content), &parts))
}

/// Notes that a known blob was uploaded once more.
pub async fn touch(tx: &mut Write, digest: &Digest, now: Timestamp) -> Result<()> {
    sqlx::query("UPDATE blobs SET created_at = $2 WHERE digest = $1")
        .bind(digest.to_string())
        .bind(micros(now))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Forgets a blob.
pub async fn delete(tx: &mut Write, digest: &Digest) -> Result<()> {
    sqlx::query("DELETE FROM blobs WHERE digest = $1")
        .bind(digest.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// All blobs, the newest first, and what names them.
pub async fn list(connection: &mut SqliteConnection) -> Result<Vec<BlobInfo>> {
    let parts = parts(connection).await?;
    let mut named: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for row in sqlx::query("SELECT name, content FROM releases ORDER BY name")
        .fetch_all(&mut *connection)
        .await?
    {
        let content: ReleaseContent = from_json(&row.try_get::<String, _>("content")?)?;
        for digest in with_parts(releases::digests(&content), &parts) {
            named.entry(digest).or_default().push(row.try_get("name")?);
        }
    }
    let rows = sqlx::query(
        "SELECT b.*, (SELECT COUNT(*) FROM document_blobs d WHERE d.digest = b.digest) AS nodes \
         FROM blobs b ORDER BY b.created_at DESC, b.digest",
    )
    .fetch_all(&mut *connection)
    .await?;
    rows.iter()
        .map(|row| {
            let digest: Digest = parse(&row.try_get::<String, _>("digest")?)?;
            Ok(BlobInfo {
                digest,
                size: u64::try_from(row.try_get::<i64, _>("size")?)
                    .map_err(|error| DatabaseError::value("size", &error))?,
                created_at: timestamp(row.try_get("created_at")?)?,
                created_by: row.try_get("created_by")?,
                releases: named.remove(&digest).unwrap_or_default(),
                nodes: u32::try_from(row.try_get::<i64, _>("nodes")?)
                    .map_err(|error| DatabaseError::value("count", &error))?,
            })
        })
        .collect()
}
