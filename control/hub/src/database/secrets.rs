//! Values that operators sealed to nodes, and what the hub sealed to the nodes of a site. Never a value in the clear.

use super::{Result, Write, from_json, micros, parse, timestamp, to_json};
use holdfast_protocol::{
    Digest, NodeId,
    document::Sealed,
    operator::{SealedTo, SecretInfo},
};
use jiff::Timestamp;
use sqlx::SqlitePool;
use std::collections::BTreeMap;

/// Stores a value that is sealed to a node, in place of an earlier one.
pub async fn put(
    tx: &mut Write,
    secret: &str,
    node: &NodeId,
    sealed: &Sealed,
    who: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO secrets (name, created_at, created_by) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
    )
    .bind(secret)
    .bind(micros(now))
    .bind(who)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "INSERT INTO sealed_secrets (secret, node, sealed, updated_at, updated_by) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (secret, node) DO UPDATE SET sealed = excluded.sealed, updated_at = excluded.updated_at, updated_by = excluded.updated_by",
    )
    .bind(secret)
    .bind(node.as_str())
    .bind(to_json(sealed)?)
    .bind(micros(now))
    .bind(who)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// What is sealed to a node under the name of a secret.
pub async fn get(tx: &mut Write, secret: &str, node: &NodeId) -> Result<Option<Sealed>> {
    let text: Option<String> =
        sqlx::query_scalar("SELECT sealed FROM sealed_secrets WHERE secret = $1 AND node = $2")
            .bind(secret)
            .bind(node.as_str())
            .fetch_optional(&mut **tx)
            .await?;
    text.map(|text| from_json(&text)).transpose()
}

/// Forgets a secret with all its values; false where there is none.
pub async fn delete(tx: &mut Write, secret: &str) -> Result<bool> {
    let done = sqlx::query("DELETE FROM secrets WHERE name = $1")
        .bind(secret)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// All secrets by name, with the nodes that have a value.
pub async fn list(pool: &SqlitePool) -> Result<Vec<SecretInfo>> {
    let rows: Vec<(String, i64, String)> =
        sqlx::query_as("SELECT name, created_at, created_by FROM secrets ORDER BY name")
            .fetch_all(pool)
            .await?;
    let mut all: BTreeMap<String, SecretInfo> = BTreeMap::new();
    for (name, created_at, created_by) in rows {
        let info = SecretInfo {
            name: name.clone(),
            created_at: timestamp(created_at)?,
            created_by,
            nodes: BTreeMap::new(),
        };
        all.insert(name, info);
    }
    let rows: Vec<(String, String, String, i64, String, Option<String>)> = sqlx::query_as(
        "SELECT s.secret, s.node, s.sealed, s.updated_at, s.updated_by, n.sealing_key \
         FROM sealed_secrets s JOIN nodes n ON n.id = s.node",
    )
    .fetch_all(pool)
    .await?;
    for (secret, node, sealed, updated_at, updated_by, key) in rows {
        let sealed: Sealed = from_json(&sealed)?;
        let key: Option<Digest> = key
            .map(|key| parse::<holdfast_protocol::sealing::SealingPublicKey>(&key))
            .transpose()?
            .map(|key| key.digest());
        let to = SealedTo {
            updated_at: timestamp(updated_at)?,
            updated_by,
            current: key == Some(sealed.key),
            key: sealed.key,
        };
        if let Some(info) = all.get_mut(&secret) {
            info.nodes.insert(parse(&node)?, to);
        }
    }
    Ok(all.into_values().collect())
}

/// The join secret of a site, as it was sealed to a node; none where the node was of another site.
pub async fn site_token(tx: &mut Write, node: &NodeId, site: &str) -> Result<Option<Sealed>> {
    let text: Option<String> =
        sqlx::query_scalar("SELECT sealed FROM site_tokens WHERE node = $1 AND site = $2")
            .bind(node.as_str())
            .bind(site)
            .fetch_optional(&mut **tx)
            .await?;
    text.map(|text| from_json(&text)).transpose()
}

/// Notes the join secret of a site as it was sealed to a node.
pub async fn put_site_token(tx: &mut Write, node: &NodeId, site: &str, sealed: &Sealed) -> Result<()> {
    sqlx::query(
        "INSERT INTO site_tokens (node, site, sealed) VALUES ($1, $2, $3) \
         ON CONFLICT (node) DO UPDATE SET site = excluded.site, sealed = excluded.sealed",
    )
    .bind(node.as_str())
    .bind(site)
    .bind(to_json(sealed)?)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The server that began the cluster of a site.
pub async fn first_server(tx: &mut Write, site: &str) -> Result<Option<NodeId>> {
    let text: Option<String> = sqlx::query_scalar("SELECT first_server FROM sites WHERE name = $1")
        .bind(site)
        .fetch_optional(&mut **tx)
        .await?;
    text.map(|text| parse(&text)).transpose()
}

/// Notes which server begins the cluster of a site.
pub async fn set_first_server(tx: &mut Write, site: &str, node: &NodeId) -> Result<()> {
    sqlx::query(
        "INSERT INTO sites (name, first_server) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET first_server = excluded.first_server",
    )
    .bind(site)
    .bind(node.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}
