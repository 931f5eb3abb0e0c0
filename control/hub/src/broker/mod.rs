//! The seam between the hub and MQTT brokers: what the hub asks of a broker, and what a broker asks of the hub.
//!
//! Guarantee of the seam: a node's message is acknowledged only after [`Ingest::message`] returned `Ok`, and the retained
//! desired state lives in the hub's database, so that a broker that lost everything is filled again from there.

pub mod codes;
pub mod embedded;
pub mod external;
mod tls;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_protocol::{
    NodeId, Problem,
    topic::{Topic, Up},
};
use std::path::PathBuf;

/// Common name of the hub's own certificate. It holds a dot, so no node can ever have it.
pub const HUB_IDENTITY: &str = "holdfast.hub";

/// What the hub asks of a broker. Implementations: embedded (rmqtt), and external (any MQTT v5 broker with the shipped
/// configuration).
#[async_trait]
pub trait Broker: Send + Sync {
    /// Publishes retained with QoS 1; returns once the broker has taken it. The hub's database stays the truth:
    /// [`Ingest::retained`] gives it again.
    async fn publish_retained(&self, topic: &Topic, payload: Bytes) -> Result<(), BrokerError>;

    /// Removes the retained message of a topic.
    async fn clear_retained(&self, topic: &Topic) -> Result<(), BrokerError>;

    /// Ends the live session of a node and forgets its stored session, as revocation needs it.
    async fn disconnect(&self, node: &NodeId) -> Result<(), BrokerError>;

    /// Address that nodes connect to, as `mqtts://host:port`, with the port that was really bound.
    fn listen_address(&self) -> String;
}

/// What a broker asks of the hub.
#[async_trait]
pub trait Ingest: Send + Sync {
    /// Persists one message of a node; only after `Ok` may the broker acknowledge it. A message that can never be used is
    /// logged and answered with `Ok`, so that no node sends it for ever.
    async fn message(&self, node: &NodeId, channel: Up, payload: Bytes) -> Result<(), IngestError>;

    /// A node's session began or ended. Told in the order of what happened. A hub that starts has no sessions: it must take
    /// all nodes for offline until it is told otherwise. Only a broker that knows its sessions says so; where an external one is
    /// used, presence comes as messages of [`Up::Presence`], which nodes and their last wills publish.
    async fn presence(&self, node: &NodeId, online: bool);

    /// The hub lost its connection to an external broker: no node's presence is known until the broker tells it again.
    async fn presence_lost(&self) {}

    /// Whether this certificate (the leaf in DER, its chain already checked) may open a session: the node is known and the
    /// certificate is not revoked.
    async fn authorise(&self, node: &NodeId, certificate_der: &[u8]) -> Result<(), Problem>;

    /// The retained message of a topic, from the database.
    ///
    /// Asked while the broker holds the node's place in its queue: it must not wait for a call to [`Broker`].
    async fn retained(&self, topic: &Topic) -> Result<Option<Bytes>, IngestError>;

    /// The topics of all retained messages in the database, from which a broker that may have lost them is filled again.
    async fn retained_topics(&self) -> Result<Vec<Topic>, IngestError>;
}

/// Why a broker did not do what the hub asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker could not be started or its settings cannot be used.
    #[error("the broker cannot start: {0}")]
    Start(String),
    /// The broker is not there now; the hub tries again.
    #[error("the broker does not answer: {0}")]
    Unavailable(String),
    /// The broker refused.
    #[error("the broker refused: {0}")]
    Refused(String),
}

/// Why a node's message was not stored; it is not acknowledged, so the node sends it again.
#[derive(Debug, thiserror::Error)]
#[error("the message could not be stored: {0}")]
pub struct IngestError(pub String);

/// Files that a broker's TLS needs, all PEM, all made by the hub's own CA. They change on renewal: read them again then.
#[derive(Clone, Debug)]
pub struct BrokerTls {
    /// CA certificates that nodes and brokers are checked against.
    pub ca_file: PathBuf,
    /// The hub's certificate chain (common name [`HUB_IDENTITY`]; for servers and clients).
    pub certificate_file: PathBuf,
    /// The hub's private key, PKCS #8.
    pub key_file: PathBuf,
    /// Certificates that were revoked, an X.509 CRL; written again on each revocation.
    pub revoked_file: PathBuf,
}
