//! Releases: named once, never changed.

use super::{DatabaseError, Result, Write, from_json, micros, parse, timestamp, to_json};
use holdfast_protocol::{
    Digest,
    document::{App, ManifestSource},
    operator::{ReleaseContent, ReleaseInfo},
};
use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};
use std::collections::BTreeSet;

/// Adds a release; false where the name is taken.
pub async fn insert(tx: &mut Write, info: &ReleaseInfo, content: &ReleaseContent) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO releases (name, digest, content, created_at, created_by) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(&info.name)
    .bind(info.digest.to_string())
    .bind(to_json(content)?)
    .bind(micros(info.created_at))
    .bind(&info.created_by)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

const SELECT: &str = "SELECT r.*, (SELECT COUNT(*) FROM nodes n WHERE n.release_name = r.name) AS nodes \
     FROM releases r ORDER BY r.created_at DESC, r.name";
const SELECT_ONE: &str = "SELECT r.*, (SELECT COUNT(*) FROM nodes n WHERE n.release_name = r.name) AS nodes \
     FROM releases r WHERE r.name = $1";

/// All releases, newest first, without their content.
pub async fn list(pool: &SqlitePool) -> Result<Vec<ReleaseInfo>> {
    sqlx::query(SELECT)
        .fetch_all(pool)
        .await?
        .iter()
        .map(|row| {
            read(row).map(|info| ReleaseInfo {
                content: None,
                ..info
            })
        })
        .collect()
}

/// One release with its content.
pub async fn get(pool: &SqlitePool, name: &str) -> Result<Option<ReleaseInfo>> {
    sqlx::query(SELECT_ONE)
        .bind(name)
        .fetch_optional(pool)
        .await?
        .as_ref()
        .map(read)
        .transpose()
}

/// Removes a release; false where there is none.
pub async fn delete(tx: &mut Write, name: &str) -> Result<bool> {
    let done = sqlx::query("DELETE FROM releases WHERE name = $1")
        .bind(name)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Some nodes that should run a release, by name.
pub async fn users(tx: &mut Write, name: &str, limit: u32) -> Result<Vec<String>> {
    Ok(
        sqlx::query_scalar("SELECT id FROM nodes WHERE release_name = $1 ORDER BY id LIMIT $2")
            .bind(name)
            .bind(i64::from(limit))
            .fetch_all(&mut **tx)
            .await?,
    )
}

/// Everything that a release names itself by digest: blobs of manifests, and artifacts. For what is named inside of those, see
/// [`blobs::of_release`](super::blobs::of_release).
pub fn digests(content: &ReleaseContent) -> BTreeSet<Digest> {
    let manifests = content.apps.iter().flat_map(|app| &app.manifests);
    let blobs = manifests.filter_map(|source| match source {
        ManifestSource::Blob(blob) => Some(blob.digest),
        ManifestSource::Inline(_) => None,
    });
    let k3s = content
        .k3s
        .iter()
        .flat_map(|k3s| k3s.binaries.values().chain(k3s.images.values().flatten()));
    let os = content.os.iter().flat_map(|os| os.images.values());
    let artifacts = k3s.chain(os).chain(content.apps.iter().flat_map(App::artifacts));
    blobs.chain(artifacts.map(|artifact| artifact.digest)).collect()
}

/// Digest of the content of a release.
pub fn content_digest(content: &ReleaseContent) -> Result<Digest> {
    // Field order is that of the types, and maps are sorted: equal content gives equal text.
    Ok(Digest::of(to_json(content)?.as_bytes()))
}

fn read(row: &SqliteRow) -> Result<ReleaseInfo> {
    let content: ReleaseContent = from_json(&row.try_get::<String, _>("content")?)?;
    let nodes: i64 = row.try_get("nodes")?;
    Ok(ReleaseInfo {
        name: row.try_get("name")?,
        digest: parse(&row.try_get::<String, _>("digest")?)?,
        created_at: timestamp(row.try_get("created_at")?)?,
        created_by: row.try_get("created_by")?,
        apps: content.apps.iter().map(|app| app.name.clone()).collect(),
        nodes: u32::try_from(nodes).map_err(|error| DatabaseError::value("count", &error))?,
        content: Some(content),
    })
}
