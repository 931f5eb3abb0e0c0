//! The audit log: who did or tried what, written in the transaction that does it.

use super::{Result, Write, micros, next, timestamp};
use holdfast_protocol::operator::AuditEvent;
use sqlx::SqlitePool;

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// An operator by name.
    Operator(String),
    /// A node by name.
    Node(String),
    /// The hub by itself.
    Hub,
    /// Someone unknown, by address.
    Address(String),
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Operator(name) => write!(f, "operator/{name}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Hub => f.write_str("hub"),
            Self::Address(address) => write!(f, "address/{address}"),
        }
    }
}

/// Writes one line of the log.
pub async fn record(
    tx: &mut Write,
    actor: &Actor,
    action: &'static str,
    subject: &str,
    detail: &str,
) -> Result<()> {
    let sequence = next(tx, "audit").await?;
    tracing::info!(%actor, action, subject, detail, "audit");
    sqlx::query(
        "INSERT INTO audit (sequence, at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(sequence)
    .bind(micros(crate::database::now()))
    .bind(actor.to_string())
    .bind(action)
    .bind(subject)
    .bind(detail)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Number of lines about a subject with an action.
pub async fn count(tx: &mut Write, subject: &str, action: &str) -> Result<i64> {
    Ok(
        sqlx::query_scalar("SELECT COUNT(*) FROM audit WHERE subject = $1 AND action = $2")
            .bind(subject)
            .bind(action)
            .fetch_one(&mut **tx)
            .await?,
    )
}

/// The newest `limit` lines with a sequence below `before`, newest first.
pub async fn list(pool: &SqlitePool, before: i64, limit: u32) -> Result<Vec<AuditEvent>> {
    let rows: Vec<(i64, i64, String, String, String, String)> = sqlx::query_as(
        "SELECT sequence, at, actor, action, subject, detail FROM audit WHERE sequence < $1 ORDER BY sequence DESC LIMIT $2",
    )
    .bind(before)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|(sequence, at, actor, action, subject, detail)| {
            Ok(AuditEvent {
                sequence: sequence.unsigned_abs(),
                at: timestamp(at)?,
                actor,
                action,
                subject,
                detail,
            })
        })
        .collect()
}
