//! Nodes and their certificates.

use super::{DatabaseError, Result, Write, from_json, micros, parse, timestamp, to_json};
use holdfast_protocol::{
    Digest, Generation, NodeId, Problem, codes,
    enrol::HardwareFacts,
    envelope::Envelope,
    operator::{Labels, NodeInfo},
    report::{Health, StatusReport},
    sealing::SealingPublicKey,
};
use jiff::Timestamp;
use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};

/// A node that enrols.
#[derive(Clone, Debug)]
pub struct Enrolled<'a> {
    /// Its name.
    pub id: &'a NodeId,
    /// Its labels, from the token.
    pub labels: &'a Labels,
    /// What it says of itself.
    pub hardware: &'a HardwareFacts,
    /// Digest of its key.
    pub key_digest: &'a Digest,
    /// What values for it are sealed to.
    pub sealing_key: Option<&'a SealingPublicKey>,
}

/// A certificate that was issued to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// Digest of its DER form.
    pub fingerprint: Digest,
    /// Serial number in hex.
    pub serial: String,
    /// Digest of its key.
    pub key_digest: Digest,
    /// Its end.
    pub not_after: Timestamp,
}

/// What the hub knows of a certificate that someone shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCertificate {
    /// Whose it is.
    pub node: NodeId,
    /// Digest of its key.
    pub key_digest: Digest,
    /// Its end.
    pub not_after: Timestamp,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// Digest of the key of a node, where there is such a node.
pub async fn key_digest(tx: &mut Write, id: &NodeId) -> Result<Option<Digest>> {
    let text: Option<String> = sqlx::query_scalar("SELECT key_digest FROM nodes WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    text.map(|text| parse(&text)).transpose()
}

/// Adds a node with its first certificate, or, where the same key enrols again, brings it up to date. The reports of
/// before are forgotten, for the box may count from the start again.
pub async fn enrol(
    tx: &mut Write,
    node: &Enrolled<'_>,
    issued: &IssuedCertificate,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO nodes (id, labels, hardware, enrolled_at, key_digest, certificate_expires_at, sealing_key) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (id) DO UPDATE SET labels = excluded.labels, hardware = excluded.hardware, enrolled_at = excluded.enrolled_at, \
         key_digest = excluded.key_digest, certificate_expires_at = excluded.certificate_expires_at, sealing_key = excluded.sealing_key, status = NULL, status_sequence = NULL",
    )
    .bind(node.id.as_str())
    .bind(to_json(node.labels)?)
    .bind(to_json(node.hardware)?)
    .bind(micros(now))
    .bind(node.key_digest.to_string())
    .bind(micros(issued.not_after))
    .bind(node.sealing_key.map(ToString::to_string))
    .execute(&mut **tx)
    .await?;
    add_certificate(tx, node.id, issued).await
}

/// Notes what values for a node are sealed to; false where it is known already.
pub async fn set_sealing_key(tx: &mut Write, id: &NodeId, key: &SealingPublicKey) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE nodes SET sealing_key = $1 WHERE id = $2 AND (sealing_key IS NULL OR sealing_key <> $1)",
    )
    .bind(key.to_string())
    .bind(id.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// What values for a node are sealed to, within a transaction.
pub async fn sealing_key(tx: &mut Write, id: &NodeId) -> Result<Option<SealingPublicKey>> {
    let text: Option<Option<String>> = sqlx::query_scalar("SELECT sealing_key FROM nodes WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    text.flatten().map(|text| parse(&text)).transpose()
}

/// Notes a certificate of a renewal.
pub async fn renew(tx: &mut Write, id: &NodeId, issued: &IssuedCertificate) -> Result<()> {
    sqlx::query("UPDATE nodes SET certificate_expires_at = $1 WHERE id = $2")
        .bind(micros(issued.not_after))
        .bind(id.as_str())
        .execute(&mut **tx)
        .await?;
    add_certificate(tx, id, issued).await
}

async fn add_certificate(tx: &mut Write, id: &NodeId, issued: &IssuedCertificate) -> Result<()> {
    sqlx::query(
        "INSERT INTO certificates (fingerprint, serial, node, key_digest, not_after) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(issued.fingerprint.to_string())
    .bind(&issued.serial)
    .bind(id.as_str())
    .bind(issued.key_digest.to_string())
    .bind(micros(issued.not_after))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// What is known of a certificate by its fingerprint.
pub async fn certificate(pool: &SqlitePool, fingerprint: &Digest) -> Result<Option<KnownCertificate>> {
    let row: Option<(String, String, i64, Option<i64>)> = sqlx::query_as(
        "SELECT node, key_digest, not_after, revoked_at FROM certificates WHERE fingerprint = $1",
    )
    .bind(fingerprint.to_string())
    .fetch_optional(pool)
    .await?;
    row.map(|(node, key, not_after, revoked_at)| {
        Ok(KnownCertificate {
            node: parse(&node)?,
            key_digest: parse(&key)?,
            not_after: timestamp(not_after)?,
            revoked: revoked_at.is_some(),
        })
    })
    .transpose()
}

/// Serial numbers (hex) and times of all revoked certificates that are not over yet.
pub async fn revoked(pool: &SqlitePool, now: Timestamp) -> Result<Vec<(String, Timestamp)>> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT serial, revoked_at FROM certificates WHERE revoked_at IS NOT NULL AND not_after > $1 ORDER BY serial",
    )
    .bind(micros(now))
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|(serial, at)| Ok((serial, timestamp(at)?)))
        .collect()
}

/// Number for the next revocation list.
pub async fn next_revocation_list(tx: &mut Write) -> Result<i64> {
    super::next(tx, "crl").await
}

/// Removes a node with all that belongs to it, and revokes its certificates; false where there is none.
pub async fn delete(tx: &mut Write, id: &NodeId, now: Timestamp) -> Result<bool> {
    let done = sqlx::query("DELETE FROM nodes WHERE id = $1")
        .bind(id.as_str())
        .execute(&mut **tx)
        .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query("UPDATE certificates SET revoked_at = $1 WHERE node = $2 AND revoked_at IS NULL")
        .bind(micros(now))
        .bind(id.as_str())
        .execute(&mut **tx)
        .await?;
    super::documents::enqueue(tx, id, super::documents::Action::Forget).await?;
    Ok(true)
}

/// Labels of one node, within a transaction.
pub async fn labels(tx: &mut Write, id: &NodeId) -> Result<Option<Labels>> {
    let text: Option<String> = sqlx::query_scalar("SELECT labels FROM nodes WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    text.map(|text| from_json(&text)).transpose()
}

/// Labels of all nodes, within a transaction.
pub async fn all_labels(tx: &mut Write) -> Result<Vec<(NodeId, Labels)>> {
    let rows: Vec<(String, String)> = sqlx::query_as("SELECT id, labels FROM nodes ORDER BY id")
        .fetch_all(&mut **tx)
        .await?;
    rows.iter()
        .map(|(id, labels)| Ok((parse(id)?, from_json(labels)?)))
        .collect()
}

/// Labels of all nodes within a transaction, those that enrolled first before the others.
pub async fn oldest_first(tx: &mut Write) -> Result<Vec<(NodeId, Labels)>> {
    let rows: Vec<(String, String)> = sqlx::query_as("SELECT id, labels FROM nodes ORDER BY enrolled_at, id")
        .fetch_all(&mut **tx)
        .await?;
    rows.iter()
        .map(|(id, labels)| Ok((parse(id)?, from_json(labels)?)))
        .collect()
}

/// Releases that nodes should run, each with one of those nodes.
pub async fn releases_in_use(tx: &mut Write) -> Result<Vec<(String, String)>> {
    Ok(sqlx::query_as(
        "SELECT release_name, MIN(id) FROM nodes WHERE release_name IS NOT NULL GROUP BY release_name ORDER BY release_name",
    )
    .fetch_all(&mut **tx)
    .await?)
}

/// Replaces the labels of a node.
pub async fn set_labels(tx: &mut Write, id: &NodeId, labels: &Labels) -> Result<()> {
    sqlx::query("UPDATE nodes SET labels = $1 WHERE id = $2")
        .bind(to_json(labels)?)
        .bind(id.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The release that a node should run.
pub async fn release(tx: &mut Write, id: &NodeId) -> Result<Option<String>> {
    let row: Option<Option<String>> = sqlx::query_scalar("SELECT release_name FROM nodes WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(row.flatten())
}

/// Says which release a node should run.
pub async fn set_release(tx: &mut Write, id: &NodeId, release: &str) -> Result<()> {
    sqlx::query("UPDATE nodes SET release_name = $1 WHERE id = $2")
        .bind(release)
        .bind(id.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

const SELECT: &str = "SELECT n.*, d.epoch AS wanted_epoch, d.counter AS wanted_counter, d.envelope AS wanted_envelope \
     FROM nodes n LEFT JOIN documents d ON d.node = n.id ORDER BY n.id";
const SELECT_PAGE: &str = "SELECT n.*, d.epoch AS wanted_epoch, d.counter AS wanted_counter, d.envelope AS wanted_envelope \
     FROM nodes n LEFT JOIN documents d ON d.node = n.id WHERE n.id > $1 ORDER BY n.id LIMIT $2";
const SELECT_ONE: &str = "SELECT n.*, d.epoch AS wanted_epoch, d.counter AS wanted_counter, d.envelope AS wanted_envelope \
     FROM nodes n LEFT JOIN documents d ON d.node = n.id WHERE n.id = $1";

/// At most `count` nodes by name, those after `after`.
pub async fn page(pool: &SqlitePool, after: Option<&NodeId>, count: u32) -> Result<Vec<NodeInfo>> {
    sqlx::query(SELECT_PAGE)
        .bind(after.map_or("", NodeId::as_str))
        .bind(count)
        .fetch_all(pool)
        .await?
        .iter()
        .map(read)
        .collect()
}

/// All nodes by name.
pub async fn list(pool: &SqlitePool) -> Result<Vec<NodeInfo>> {
    sqlx::query(SELECT)
        .fetch_all(pool)
        .await?
        .iter()
        .map(read)
        .collect()
}

/// One node.
pub async fn get(pool: &SqlitePool, id: &NodeId) -> Result<Option<NodeInfo>> {
    sqlx::query(SELECT_ONE)
        .bind(id.as_str())
        .fetch_optional(pool)
        .await?
        .as_ref()
        .map(read)
        .transpose()
}

fn read(row: &SqliteRow) -> Result<NodeInfo> {
    let status: Option<StatusReport> = row
        .try_get::<Option<String>, _>("status")?
        .map(|text| from_json(&text))
        .transpose()?;
    let wanted = match (
        row.try_get::<Option<i64>, _>("wanted_epoch")?,
        row.try_get::<Option<i64>, _>("wanted_counter")?,
    ) {
        (Some(epoch), Some(counter)) => Some(generation(epoch, counter)?),
        _ => None,
    };
    let reported = status.as_ref().map(|status| &status.generation);
    let mut proven = reported.and_then(|reported| reported.proven);
    let mut accepted = reported.and_then(|reported| reported.accepted);
    let mut cause = status.as_ref().and_then(first_cause);
    // Only the same generation can be another document, so only then the envelope is read.
    if let (Some(wanted), Some(digest)) = (wanted, reported.and_then(|reported| reported.accepted_digest))
        && accepted == Some(wanted)
    {
        let envelope: String = row.try_get("wanted_envelope")?;
        let envelope = Envelope::from_json(envelope.as_bytes())
            .map_err(|error| DatabaseError::value("envelope", &error))?;
        let own = Digest::of(&envelope.payload);
        if digest != own {
            accepted = None;
            proven = proven.filter(|proven| *proven < wanted);
            cause = Some(conflict(wanted, &digest, &own));
        }
    }
    Ok(NodeInfo {
        id: parse(&row.try_get::<String, _>("id")?)?,
        labels: from_json(&row.try_get::<String, _>("labels")?)?,
        hardware: from_json(&row.try_get::<String, _>("hardware")?)?,
        sealing_key: row
            .try_get::<Option<String>, _>("sealing_key")?
            .map(|text| parse(&text))
            .transpose()?,
        enrolled_at: timestamp(row.try_get("enrolled_at")?)?,
        certificate_expires_at: timestamp(row.try_get("certificate_expires_at")?)?,
        online: row.try_get::<i64, _>("online")? != 0,
        last_heard_at: row
            .try_get::<Option<i64>, _>("last_heard_at")?
            .map(timestamp)
            .transpose()?,
        release: row.try_get("release_name")?,
        wanted,
        proven,
        accepted,
        health: status.as_ref().map_or(Health::Unknown, |status| status.health),
        cause,
        status,
    })
}

/// Two documents have one generation: what the node says of it is said of the other one.
fn conflict(generation: Generation, reported: &Digest, own: &Digest) -> Problem {
    Problem::new(
        codes::GENERATION_CONFLICT,
        format!(
            "the node has another document as generation {generation} ({reported}) than this hub sent ({own})"
        ),
        "where the hub was restored from a backup, run `holdfast-hub restored` on it; otherwise find out who else signs documents",
    )
}

/// The first cause of not being healthy, in the order in which one thing needs the other.
fn first_cause(status: &StatusReport) -> Option<Problem> {
    let failed = status.generation.cause.as_ref();
    let kubernetes = status.kubernetes.cause.as_ref();
    let apps = status.apps.iter().find_map(|app| app.cause.as_ref());
    let conditions = status.conditions.first().map(|condition| &condition.problem);
    kubernetes.or(apps).or(failed).or(conditions).cloned()
}

pub(super) fn generation(epoch: i64, counter: i64) -> Result<Generation> {
    let out_of_range = |error: std::num::TryFromIntError| DatabaseError::value("generation", &error);
    Ok(Generation {
        epoch: u32::try_from(epoch).map_err(out_of_range)?,
        counter: u64::try_from(counter).map_err(out_of_range)?,
    })
}
