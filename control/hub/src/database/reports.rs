//! What nodes say: status (the newest wins), events (each once, in order), presence.

use super::{DatabaseError, Result, Write, from_json, micros, next, to_json};
use holdfast_protocol::{Digest, NodeId, event::Event, report::StatusReport};
use jiff::Timestamp;
use sqlx::SqlitePool;

/// Stores a status report where it is news; false where it is not, or the node is unknown.
///
/// A report is news by its sequence. A node whose store was lost counts from the start again; its reports are known as news by
/// their later time, where both clocks are trusted.
pub async fn status(tx: &mut Write, report: &StatusReport, now: Timestamp) -> Result<bool> {
    let stored: Option<Option<String>> = sqlx::query_scalar("SELECT status FROM nodes WHERE id = $1")
        .bind(report.node.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(stored) = stored else { return Ok(false) };
    let stored: Option<StatusReport> = stored.map(|text| from_json(&text)).transpose()?;
    heard(tx, &report.node, now).await?;
    if stored.is_some_and(|stored| !is_news(report, &stored)) {
        return Ok(false);
    }
    let sequence =
        i64::try_from(report.sequence).map_err(|error| DatabaseError::value("sequence", &error))?;
    sqlx::query("UPDATE nodes SET status = $1, status_sequence = $2 WHERE id = $3")
        .bind(to_json(report)?)
        .bind(sequence)
        .bind(report.node.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(true)
}

fn is_news(report: &StatusReport, stored: &StatusReport) -> bool {
    report.sequence > stored.sequence
        || (report.clock_trusted && stored.clock_trusted && report.reported_at > stored.reported_at)
}

/// Stores an event; false where it was known, or the node is unknown. Only the newest `keep` of a node are kept.
///
/// The same sequence with the same content is a double. With other content it is kept: the node lost its store and counts again.
pub async fn event(tx: &mut Write, event: &Event, keep: u32, now: Timestamp) -> Result<bool> {
    if !heard(tx, &event.node, now).await? {
        return Ok(false);
    }
    let body = to_json(event)?;
    let sequence = i64::try_from(event.sequence).map_err(|error| DatabaseError::value("sequence", &error))?;
    let position = next(tx, "event").await?;
    let done = sqlx::query(
        "INSERT INTO events (position, node, sequence, digest, body, received_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (node, sequence, digest) DO NOTHING",
    )
    .bind(position)
    .bind(event.node.as_str())
    .bind(sequence)
    .bind(Digest::of(body.as_bytes()).to_string())
    .bind(body)
    .bind(micros(now))
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "DELETE FROM events WHERE node = $1 AND position <= \
         (SELECT position FROM events WHERE node = $1 ORDER BY position DESC LIMIT 1 OFFSET $2)",
    )
    .bind(event.node.as_str())
    .bind(i64::from(keep))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The newest `limit` events of a node, newest first.
pub async fn events(pool: &SqlitePool, node: &NodeId, limit: u32) -> Result<Vec<Event>> {
    let rows: Vec<String> =
        sqlx::query_scalar("SELECT body FROM events WHERE node = $1 ORDER BY position DESC LIMIT $2")
            .bind(node.as_str())
            .bind(i64::from(limit))
            .fetch_all(pool)
            .await?;
    rows.iter().map(|body| from_json(body)).collect()
}

/// Notes whether a node has a session; false where it is unknown. The end of a session is not the node's own word, so only its
/// beginning counts as hearing of it.
pub async fn presence(tx: &mut Write, node: &NodeId, online: bool, now: Timestamp) -> Result<bool> {
    let done = if online {
        sqlx::query("UPDATE nodes SET online = 1, last_heard_at = $1 WHERE id = $2")
            .bind(micros(now))
            .bind(node.as_str())
            .execute(&mut **tx)
            .await?
    } else {
        sqlx::query("UPDATE nodes SET online = 0 WHERE id = $1")
            .bind(node.as_str())
            .execute(&mut **tx)
            .await?
    };
    Ok(done.rows_affected() == 1)
}

/// Notes that no node has a session, as after a start of the hub, and gives those that had one.
pub async fn all_offline(tx: &mut Write) -> Result<Vec<NodeId>> {
    let rows: Vec<String> = sqlx::query_scalar("SELECT id FROM nodes WHERE online <> 0")
        .fetch_all(&mut **tx)
        .await?;
    sqlx::query("UPDATE nodes SET online = 0 WHERE online <> 0")
        .execute(&mut **tx)
        .await?;
    // Every name in the database was checked when it came in.
    Ok(rows.iter().filter_map(|name| name.parse().ok()).collect())
}

async fn heard(tx: &mut Write, node: &NodeId, now: Timestamp) -> Result<bool> {
    let done = sqlx::query("UPDATE nodes SET last_heard_at = $1 WHERE id = $2")
        .bind(micros(now))
        .bind(node.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}
