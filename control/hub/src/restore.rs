//! What must be done once after the data directory was restored from a backup.
//!
//! A backup does not know the documents that were sent after it was made, and nodes refuse what is not newer than what they have. So
//! the epoch is raised, and every node's document is signed anew in it: what the restored hub says is newer than all that the lost
//! one said, whatever that was.

use crate::{
    config::Config,
    database::{
        self,
        audit::{self, Actor},
        documents::{self, Current},
    },
    render, run,
};
use anyhow::Context as _;
use holdfast_protocol::{document::DesiredState, envelope::Envelope};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The epoch from now on.
    pub epoch: i64,
    /// Documents that were signed anew.
    pub documents: usize,
}

/// Raises the epoch and signs every document anew, in one transaction. The hub must not run.
pub async fn restored(config: &Config) -> anyhow::Result<Restored> {
    let opened = run::open(config).await?;
    let mut tx = opened.database.write().await?;
    let epoch = documents::raise_epoch(&mut tx).await?;
    let owners = documents::owners(&mut tx).await?;
    for node in &owners {
        let stored = documents::envelope_for_update(&mut tx, node).await?;
        let current = documents::current(&mut tx, node).await?;
        let (Some(stored), Some(current)) = (stored, current) else {
            continue;
        };
        let of_node = || format!("the stored document of node {node}");
        let envelope = Envelope::from_json(stored.as_bytes()).with_context(of_node)?;
        let mut document: DesiredState = serde_json::from_slice(&envelope.payload).with_context(of_node)?;
        document.generation = documents::next_generation(&mut tx, node).await?;
        document.issued_at = database::now();
        let envelope = render::sign(&opened.authority, &document)?;
        let current = Current {
            generation: document.generation,
            content_digest: current.content_digest,
        };
        let blobs = render::blobs(&document);
        documents::store(&mut tx, node, &current, &envelope, &blobs, document.issued_at).await?;
    }
    let detail = format!("epoch {epoch}, {} documents signed anew", owners.len());
    audit::record(&mut tx, &Actor::Hub, "hub.restored", "hub", &detail).await?;
    tx.commit().await?;
    opened.database.close().await;
    Ok(Restored {
        epoch,
        documents: owners.len(),
    })
}
