//! Enrolment tokens. Their secrets are stored as hashes only; a spent token is bound to the key that spent it.

use super::{DatabaseError, Result, Write, from_json, micros, parse, timestamp, to_json};
use holdfast_protocol::{
    Digest, NodeId,
    operator::{TokenInfo, TokenState},
};
use jiff::Timestamp;
use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};

/// A token as stored.
#[derive(Clone, Debug)]
pub struct StoredToken {
    /// What operators see of it.
    pub info: TokenInfo,
    /// Hash of its secret.
    pub secret_hash: Digest,
    /// What it was spent for.
    pub spent: Option<Spent>,
}

/// The key that spent a token, and what it was answered.
#[derive(Clone, Debug)]
pub struct Spent {
    /// Digest of the key's SubjectPublicKeyInfo.
    pub key_digest: Digest,
    /// The node that the box became.
    pub node: NodeId,
    /// The certificate that it was given, PEM.
    pub certificate: String,
}

fn read(row: &SqliteRow, now: Timestamp) -> Result<StoredToken> {
    let expires_at = timestamp(row.try_get("expires_at")?)?;
    let state = match row.try_get::<String, _>("state")?.as_str() {
        "open" if expires_at <= now => TokenState::Expired,
        "open" => TokenState::Open,
        "spent" => TokenState::Spent,
        "revoked" => TokenState::Revoked,
        other => return Err(DatabaseError::value("token state", &other)),
    };
    let text = |column: &str| row.try_get::<Option<String>, _>(column);
    let node = text("node")?.map(|name| parse::<NodeId>(&name)).transpose()?;
    let spent = match (text("key_digest")?, &node, text("certificate")?) {
        (Some(key), Some(node), Some(certificate)) => Some(Spent {
            key_digest: parse(&key)?,
            node: node.clone(),
            certificate,
        }),
        _ => None,
    };
    Ok(StoredToken {
        info: TokenInfo {
            id: row.try_get("id")?,
            state,
            created_at: timestamp(row.try_get("created_at")?)?,
            created_by: row.try_get("created_by")?,
            expires_at,
            node_name: text("node_name")?.map(|name| parse(&name)).transpose()?,
            labels: from_json(&row.try_get::<String, _>("labels")?)?,
            serial: text("serial")?,
            spent_by: node,
        },
        secret_hash: parse(&row.try_get::<String, _>("secret_hash")?)?,
        spent,
    })
}

/// Adds an open token.
pub async fn insert(tx: &mut Write, info: &TokenInfo, secret_hash: &Digest) -> Result<()> {
    sqlx::query(
        "INSERT INTO tokens (id, secret_hash, state, created_at, created_by, expires_at, node_name, labels, serial) \
         VALUES ($1, $2, 'open', $3, $4, $5, $6, $7, $8)",
    )
    .bind(&info.id)
    .bind(secret_hash.to_string())
    .bind(micros(info.created_at))
    .bind(&info.created_by)
    .bind(micros(info.expires_at))
    .bind(info.node_name.as_ref().map(NodeId::as_str))
    .bind(to_json(&info.labels)?)
    .bind(&info.serial)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// All tokens, newest first.
pub async fn list(pool: &SqlitePool, now: Timestamp) -> Result<Vec<TokenInfo>> {
    sqlx::query("SELECT * FROM tokens ORDER BY created_at DESC, id")
        .fetch_all(pool)
        .await?
        .iter()
        .map(|row| Ok(read(row, now)?.info))
        .collect()
}

/// One token, outside a transaction: what it says may be old when it is used.
pub async fn get(pool: &SqlitePool, id: &str, now: Timestamp) -> Result<Option<StoredToken>> {
    sqlx::query("SELECT * FROM tokens WHERE id = $1")
        .bind(id)
        .fetch_optional(pool)
        .await?
        .map(|row| read(&row, now))
        .transpose()
}

/// One token within a writing transaction.
pub async fn get_for_update(tx: &mut Write, id: &str, now: Timestamp) -> Result<Option<StoredToken>> {
    sqlx::query("SELECT * FROM tokens WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut **tx)
        .await?
        .map(|row| read(&row, now))
        .transpose()
}

/// Binds an open token to the key that spends it; false where it is open no more.
///
/// The condition stands in the statement itself, so that two transactions can never both win, on any database.
pub async fn spend(tx: &mut Write, id: &str, spent: &Spent, now: Timestamp) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE tokens SET state = 'spent', key_digest = $1, node = $2, certificate = $3 \
         WHERE id = $4 AND state = 'open' AND expires_at > $5",
    )
    .bind(spent.key_digest.to_string())
    .bind(spent.node.as_str())
    .bind(&spent.certificate)
    .bind(id)
    .bind(micros(now))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Revokes an open token; false where there is none.
pub async fn revoke(tx: &mut Write, id: &str) -> Result<bool> {
    let done = sqlx::query("UPDATE tokens SET state = 'revoked' WHERE id = $1 AND state = 'open'")
        .bind(id)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}
