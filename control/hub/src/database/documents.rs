//! Signed documents, their generations, and the outbox of what the broker has not taken yet.

use super::{DatabaseError, Result, Write, micros, next, parse};
use holdfast_protocol::{Digest, Generation, NodeId};
use jiff::Timestamp;
use sqlx::SqlitePool;

/// What the broker shall do about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take its newest document.
    Publish,
    /// End its session and drop its document.
    Forget,
    /// End the session of a node that is gone, and take the newest document of the one that has its name now.
    Replace,
}

/// A row of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Whom it is about.
    pub node: NodeId,
    /// What shall be done.
    pub action: Action,
    /// Which version of the row this is.
    pub revision: i64,
}

/// The document that a node was last given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// Its generation.
    pub generation: Generation,
    /// Digest of what it says beside its generation and time.
    pub content_digest: Digest,
}

/// The document that `node` was last given.
pub async fn current(tx: &mut Write, node: &NodeId) -> Result<Option<Current>> {
    let row: Option<(i64, i64, String)> =
        sqlx::query_as("SELECT epoch, counter, content_digest FROM documents WHERE node = $1")
            .bind(node.as_str())
            .fetch_optional(&mut **tx)
            .await?;
    row.map(|(epoch, counter, digest)| {
        Ok(Current {
            generation: super::nodes::generation(epoch, counter)?,
            content_digest: parse(&digest)?,
        })
    })
    .transpose()
}

/// The generation for the next document of `node`.
pub async fn next_generation(tx: &mut Write, node: &NodeId) -> Result<Generation> {
    let epoch: i64 = sqlx::query_scalar("SELECT value FROM counters WHERE name = 'epoch'")
        .fetch_one(&mut **tx)
        .await?;
    let counter: i64 = sqlx::query_scalar(
        "INSERT INTO generations (node, counter) VALUES ($1, 1) \
         ON CONFLICT (node) DO UPDATE SET counter = generations.counter + 1 RETURNING counter",
    )
    .bind(node.as_str())
    .fetch_one(&mut **tx)
    .await?;
    super::nodes::generation(epoch, counter)
}

/// Raises the epoch, and gives the new one.
pub async fn raise_epoch(tx: &mut Write) -> Result<i64> {
    next(tx, "epoch").await
}

/// Nodes that have a document.
pub async fn owners(tx: &mut Write) -> Result<Vec<NodeId>> {
    let rows: Vec<String> = sqlx::query_scalar("SELECT node FROM documents ORDER BY node")
        .fetch_all(&mut **tx)
        .await?;
    rows.iter().map(|node| parse(node)).collect()
}

/// The newest document of a node within a transaction: its envelope in JSON.
pub async fn envelope_for_update(tx: &mut Write, node: &NodeId) -> Result<Option<String>> {
    Ok(
        sqlx::query_scalar("SELECT envelope FROM documents WHERE node = $1")
            .bind(node.as_str())
            .fetch_optional(&mut **tx)
            .await?,
    )
}

/// Stores the newest document of a node, with the blobs that it names and what is named inside of those, and puts it into the outbox.
pub async fn store(
    tx: &mut Write,
    node: &NodeId,
    current: &Current,
    envelope: &str,
    blobs: &[Digest],
    now: Timestamp,
) -> Result<()> {
    let counter = i64::try_from(current.generation.counter)
        .map_err(|error| DatabaseError::value("generation", &error))?;
    sqlx::query(
        "INSERT INTO documents (node, epoch, counter, content_digest, envelope, created_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (node) DO UPDATE SET epoch = excluded.epoch, counter = excluded.counter, \
         content_digest = excluded.content_digest, envelope = excluded.envelope, created_at = excluded.created_at",
    )
    .bind(node.as_str())
    .bind(i64::from(current.generation.epoch))
    .bind(counter)
    .bind(current.content_digest.to_string())
    .bind(envelope)
    .bind(micros(now))
    .execute(&mut **tx)
    .await?;
    sqlx::query("DELETE FROM document_blobs WHERE node = $1")
        .bind(node.as_str())
        .execute(&mut **tx)
        .await?;
    for digest in blobs {
        sqlx::query(
            "INSERT INTO document_blobs (node, digest) VALUES ($1, $2) ON CONFLICT (node, digest) DO NOTHING",
        )
        .bind(node.as_str())
        .bind(digest.to_string())
        .execute(&mut **tx)
        .await?;
    }
    sqlx::query(
        "INSERT INTO document_blobs (node, digest) SELECT d.node, p.part FROM document_blobs d \
         JOIN blob_parts p ON p.blob = d.digest WHERE d.node = $1 ON CONFLICT (node, digest) DO NOTHING",
    )
    .bind(node.as_str())
    .execute(&mut **tx)
    .await?;
    enqueue(tx, node, Action::Publish).await
}

/// Asks the broker, in time, to do something about a node; replaces what was asked before, except that a session that was to be
/// ended is ended.
pub async fn enqueue(tx: &mut Write, node: &NodeId, action: Action) -> Result<()> {
    let revision = next(tx, "outbox").await?;
    let action = match action {
        Action::Publish => "publish",
        Action::Forget => "forget",
        Action::Replace => "replace",
    };
    sqlx::query(
        "INSERT INTO outbox (node, action, revision) VALUES ($1, $2, $3) \
         ON CONFLICT (node) DO UPDATE SET revision = excluded.revision, action = CASE \
         WHEN outbox.action <> 'publish' AND excluded.action = 'publish' THEN 'replace' ELSE excluded.action END",
    )
    .bind(node.as_str())
    .bind(action)
    .bind(revision)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// What is to be done, oldest first.
pub async fn pending(pool: &SqlitePool, limit: u32) -> Result<Vec<Pending>> {
    let rows: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT node, action, revision FROM outbox ORDER BY revision LIMIT $1")
            .bind(i64::from(limit))
            .fetch_all(pool)
            .await?;
    rows.into_iter()
        .map(|(node, action, revision)| {
            Ok(Pending {
                node: parse(&node)?,
                action: match action.as_str() {
                    "publish" => Action::Publish,
                    "forget" => Action::Forget,
                    "replace" => Action::Replace,
                    other => return Err(DatabaseError::value("outbox action", &other)),
                },
                revision,
            })
        })
        .collect()
}

/// Number of rows in the outbox.
pub async fn count_pending(pool: &SqlitePool) -> Result<i64> {
    Ok(sqlx::query_scalar("SELECT COUNT(*) FROM outbox")
        .fetch_one(pool)
        .await?)
}

/// Removes what is done, except where something newer was asked since.
pub async fn done(tx: &mut Write, pending: &Pending) -> Result<()> {
    sqlx::query("DELETE FROM outbox WHERE node = $1 AND revision = $2")
        .bind(pending.node.as_str())
        .bind(pending.revision)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// All nodes that have a document.
pub async fn nodes(pool: &SqlitePool) -> Result<Vec<NodeId>> {
    let names: Vec<String> = sqlx::query_scalar("SELECT node FROM documents ORDER BY node")
        .fetch_all(pool)
        .await?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// The newest document of a node: its envelope in JSON.
pub async fn envelope(pool: &SqlitePool, node: &NodeId) -> Result<Option<String>> {
    Ok(
        sqlx::query_scalar("SELECT envelope FROM documents WHERE node = $1")
            .bind(node.as_str())
            .fetch_optional(pool)
            .await?,
    )
}

/// Whether the newest document of `node` names the blob.
pub async fn names_blob(pool: &SqlitePool, node: &NodeId, digest: &Digest) -> Result<bool> {
    let found: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM document_blobs WHERE node = $1 AND digest = $2")
            .bind(node.as_str())
            .bind(digest.to_string())
            .fetch_one(pool)
            .await?;
    Ok(found > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;

    #[tokio::test]
    async fn a_session_that_was_to_be_ended_is_ended_whatever_comes_after() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("hub.db")).await.unwrap();
        let node: NodeId = "shop-17".parse().unwrap();
        let mut actions = Vec::new();
        for action in [
            Action::Publish,
            Action::Forget,
            Action::Publish,
            Action::Publish,
            Action::Forget,
        ] {
            let mut tx = database.write().await.unwrap();
            enqueue(&mut tx, &node, action).await.unwrap();
            tx.commit().await.unwrap();
            let pending = pending(database.read(), 10).await.unwrap();
            assert_eq!(pending.len(), 1);
            actions.push(pending[0].clone());
        }
        let found: Vec<_> = actions.iter().map(|row| row.action).collect();
        let expected = [
            Action::Publish,
            Action::Forget,
            Action::Replace,
            Action::Replace,
            Action::Forget,
        ];
        assert_eq!(found, expected);
        // What was done of an older version leaves the newer one to be done.
        let mut tx = database.write().await.unwrap();
        done(&mut tx, &actions[3]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(count_pending(database.read()).await.unwrap(), 1);
        let mut tx = database.write().await.unwrap();
        done(&mut tx, &actions[4]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(count_pending(database.read()).await.unwrap(), 0);
    }
}
