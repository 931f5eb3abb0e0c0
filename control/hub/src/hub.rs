//! The hub's shared state: what every handler, the broker and the background tasks use.

use crate::{
    authority::Authority,
    blobs::BlobFiles,
    broker::Broker,
    config::Config,
    database::{Database, DatabaseError, blobs, nodes},
    limiter::Limiter,
    metrics::Metrics,
    uploads::Uploads,
};
use holdfast_protocol::{Digest, NodeId};
use jiff::Timestamp;
use std::sync::{Arc, OnceLock};
use tokio::sync::{Mutex, Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

/// Changes kept for a slow reader of the live stream; one that is further behind is disconnected and reads everything anew.
const CHANGES: usize = 1024;

/// What happened to a node, for the live stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new or different.
    Changed(NodeId),
    /// It is gone.
    Deleted(NodeId),
}

/// The broker that runs.
pub struct Attached {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// Where nodes find it, in the order to try.
    pub addresses: Vec<String>,
    /// Whether the hub is connected to it, where it is another process.
    pub connected: Option<watch::Receiver<bool>>,
}

/// Everything that the parts of the hub share.
pub struct Hub {
    /// The configuration.
    pub config: Config,
    /// The database.
    pub database: Database,
    /// The keys.
    pub authority: Authority,
    /// Limit of refused attempts.
    pub limiter: Limiter,
    /// What is counted.
    pub metrics: Metrics,
    /// URL that nodes enrol at.
    pub public_url: String,
    /// Uploads that are under way.
    pub uploads: Uploads,
    /// Changes of nodes.
    pub changes: broadcast::Sender<Change>,
    /// Rings when the outbox has something new.
    pub outbox: Notify,
    /// Ends everything.
    pub shutdown: CancellationToken,
    broker: OnceLock<Attached>,
    revocation: Mutex<()>,
}

impl Hub {
    /// Puts the parts together; the broker follows by [`Self::set_broker`].
    pub fn new(
        config: Config,
        database: Database,
        authority: Authority,
        public_url: String,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            limiter: Limiter::new(config.enrolment.attempts),
            metrics: Metrics::default(),
            uploads: Uploads::default(),
            changes: broadcast::Sender::new(CHANGES),
            outbox: Notify::new(),
            broker: OnceLock::new(),
            revocation: Mutex::default(),
            config,
            database,
            authority,
            public_url,
            shutdown,
        }
    }

    /// Says which broker runs.
    pub fn set_broker(&self, attached: Attached) {
        // Set once, by the composition root.
        let _ = self.broker.set(attached);
    }

    /// Whether the broker can be spoken to now.
    pub fn broker_connected(&self) -> bool {
        let connected = |attached: &Attached| attached.connected.as_ref().is_none_or(|watch| *watch.borrow());
        self.broker.get().is_some_and(connected)
    }

    /// The broker, once it runs.
    pub fn broker(&self) -> Option<&Arc<dyn Broker>> {
        self.broker.get().map(|attached| &attached.broker)
    }

    /// Addresses of the broker, in the order that nodes try them.
    pub fn broker_addresses(&self) -> Vec<String> {
        self.broker
            .get()
            .map(|attached| attached.addresses.clone())
            .unwrap_or_default()
    }

    /// Size in bytes of a blob that is here: known, and with its file. A database that was restored without its blobs knows more than is here, and what is
    /// missing must be taken again.
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, DatabaseError> {
        let Some(size) = blobs::size(self.database.read(), digest).await? else {
            return Ok(None);
        };
        if BlobFiles::new(&self.config.data_dir).holds(digest, size).await {
            return Ok(Some(size));
        }
        tracing::warn!(%digest, size, "the file of a known blob is missing or has another size; uploaded again, it is back");
        Ok(None)
    }

    /// Tells the live stream that a node is new or different.
    pub fn changed(&self, node: &NodeId) {
        // An error says that nobody reads.
        let _ = self.changes.send(Change::Changed(node.clone()));
    }

    /// Tells the live stream that a node is gone.
    pub fn deleted(&self, node: &NodeId) {
        let _ = self.changes.send(Change::Deleted(node.clone()));
    }

    /// Writes the list of revoked certificates for brokers that read it.
    pub async fn write_revoked(&self) -> anyhow::Result<()> {
        // One at a time: a later list must not be overwritten by an earlier one.
        let _turn = self.revocation.lock().await;
        let mut tx = self.database.write().await?;
        let number = nodes::next_revocation_list(&mut tx).await?;
        tx.commit().await?;
        let revoked = nodes::revoked(self.database.read(), Timestamp::now()).await?;
        self.authority.write_revoked(number, &revoked)?;
        Ok(())
    }
}
