//! Operators and their browser sessions. Bearer tokens and session names are stored as hashes only.

use super::{DatabaseError, Result, Write, micros, timestamp};
use holdfast_protocol::{
    Digest,
    operator::{Operator, OperatorRole, WhoAmI},
};
use jiff::Timestamp;
use sqlx::SqlitePool;

fn role_text(role: OperatorRole) -> &'static str {
    match role {
        OperatorRole::Admin => "admin",
        OperatorRole::Viewer => "viewer",
    }
}

fn role(text: &str) -> Result<OperatorRole> {
    match text {
        "admin" => Ok(OperatorRole::Admin),
        "viewer" => Ok(OperatorRole::Viewer),
        other => Err(DatabaseError::value("operator role", &other)),
    }
}

/// Adds an operator; false where the name is taken.
pub async fn insert(tx: &mut Write, operator: &Operator, token_hash: &Digest) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO operators (name, role, token_hash, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING",
    )
    .bind(&operator.name)
    .bind(role_text(operator.role))
    .bind(token_hash.to_string())
    .bind(micros(operator.created_at))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes an operator and their sessions; false where there is none of that name.
pub async fn delete(tx: &mut Write, name: &str) -> Result<bool> {
    let done = sqlx::query("DELETE FROM operators WHERE name = $1")
        .bind(name)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Number of administrators other than `name`.
pub async fn other_admins(tx: &mut Write, name: &str) -> Result<i64> {
    Ok(
        sqlx::query_scalar("SELECT COUNT(*) FROM operators WHERE role = 'admin' AND name <> $1")
            .bind(name)
            .fetch_one(&mut **tx)
            .await?,
    )
}

/// All operators by name.
pub async fn list(pool: &SqlitePool) -> Result<Vec<Operator>> {
    let rows: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT name, role, created_at FROM operators ORDER BY name")
            .fetch_all(pool)
            .await?;
    rows.into_iter()
        .map(|(name, text, created_at)| {
            Ok(Operator {
                name,
                role: role(&text)?,
                created_at: timestamp(created_at)?,
            })
        })
        .collect()
}

fn who(row: Option<(String, String)>) -> Result<Option<WhoAmI>> {
    row.map(|(name, text)| {
        Ok(WhoAmI {
            name,
            role: role(&text)?,
        })
    })
    .transpose()
}

/// Whose bearer token has this hash.
///
/// The look-up is by hash: its time tells nothing about the token itself, which is 256 random bits.
pub async fn by_token_hash(pool: &SqlitePool, hash: &Digest) -> Result<Option<WhoAmI>> {
    let row: Option<(String, String)> =
        sqlx::query_as("SELECT name, role FROM operators WHERE token_hash = $1")
            .bind(hash.to_string())
            .fetch_optional(pool)
            .await?;
    who(row)
}

/// Adds a browser session, and removes those that are over.
pub async fn insert_session(
    tx: &mut Write,
    id_hash: &Digest,
    operator: &str,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    sqlx::query("DELETE FROM sessions WHERE expires_at <= $1")
        .bind(micros(now))
        .execute(&mut **tx)
        .await?;
    sqlx::query("INSERT INTO sessions (id_hash, operator, expires_at) VALUES ($1, $2, $3)")
        .bind(id_hash.to_string())
        .bind(operator)
        .bind(micros(expires_at))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Whose live browser session has this hash.
pub async fn by_session_hash(pool: &SqlitePool, hash: &Digest, now: Timestamp) -> Result<Option<WhoAmI>> {
    let row: Option<(String, String)> = sqlx::query_as(
        "SELECT o.name, o.role FROM sessions s JOIN operators o ON o.name = s.operator WHERE s.id_hash = $1 AND s.expires_at > $2",
    )
    .bind(hash.to_string())
    .bind(micros(now))
    .fetch_optional(pool)
    .await?;
    who(row)
}

/// Ends a browser session.
pub async fn delete_session(tx: &mut Write, hash: &Digest) -> Result<()> {
    sqlx::query("DELETE FROM sessions WHERE id_hash = $1")
        .bind(hash.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}
