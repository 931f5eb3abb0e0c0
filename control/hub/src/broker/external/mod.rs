//! A broker that runs elsewhere, such as mosquitto with the configuration in `control/mosquitto/`.
//!
//! The hub is one client of it, known by its own certificate. In come settings and the hub's [`Ingest`]; out goes a
//! [`Broker`]. Guarantees: those of [the seam](super), seen from the hub: the broker gets an acknowledgement for a node's
//! message only after it was stored, and whatever the broker lost is published again from the database on every connect. What
//! a node may read and write, and whether its certificate is good, is for the broker to hold:
//! [`Ingest::authorise`] is not asked.

mod inbox;
mod link;
mod waiting;

use super::{Broker, BrokerError, BrokerTls, HUB_IDENTITY, Ingest, tls};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{TryStreamExt, stream};
use holdfast_protocol::{
    MAX_ENVELOPE_BYTES, NodeId,
    topic::{Down, Topic},
};
use rumqttc::v5::{AsyncClient, MqttOptions};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{
    process::Command,
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use waiting::Waiting;

/// Messages that the broker may have sent without an acknowledgement.
const RECEIVE_MAXIMUM: u16 = 128;

/// The same the other way. Also keeps the client's tables small, which it makes as large as this.
const INFLIGHT: u16 = 64;

/// How long the broker keeps messages for a hub that is away: a week.
const SESSION_EXPIRY_SECONDS: u32 = 7 * 24 * 60 * 60;

/// How long the broker has to acknowledge a message.
const ANSWER: Duration = Duration::from_secs(30);

/// How long the revocation command may take.
const COMMAND: Duration = Duration::from_secs(30);

/// Room in a packet for its topic and properties, besides the largest envelope.
const PACKET_ROOM_BYTES: u32 = 64 * 1024;

/// Locks for what must happen one after the other for one node; nodes share a lock by their name's hash.
const TURNS: usize = 64;

/// Settings of an external broker.
#[derive(Clone, Debug)]
pub struct ExternalSettings {
    /// Host name or address; the broker's certificate must be for it.
    pub host: String,
    /// Port of the listener with mutual TLS.
    pub port: u16,
    /// Certificates and key of the hub.
    pub tls: BrokerTls,
    /// Keep-alive of the hub's session.
    pub keep_alive: Duration,
    /// Program and arguments to run after a certificate was revoked and the revocation list was written, so that the broker
    /// reads it and ends the session; empty where somebody else sees to that.
    pub revocation_command: Vec<String>,
}

/// The hub's side of an external broker.
pub struct External {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// What the tasks of one broker share.
struct Shared {
    settings: ExternalSettings,
    ingest: Arc<dyn Ingest>,
    client: AsyncClient,
    waiting: Waiting,
    permits: Arc<Semaphore>,
    turns: Vec<tokio::sync::Mutex<()>>,
    /// A message could not be stored: connect again, to get it again.
    again: Notify,
    connected: watch::Sender<bool>,
    stopping: CancellationToken,
}

impl External {
    /// Starts to connect, and returns at once: a hub works without its broker, and nodes without both.
    pub fn start(settings: ExternalSettings, ingest: Arc<dyn Ingest>) -> Result<Self, BrokerError> {
        tls::client_config(&settings.tls)?;
        let mut options = MqttOptions::new(HUB_IDENTITY, settings.host.clone(), settings.port);
        options
            .set_keep_alive(settings.keep_alive.max(Duration::from_secs(5)))
            .set_clean_start(false)
            .set_session_expiry_interval(Some(SESSION_EXPIRY_SECONDS))
            .set_receive_maximum(Some(RECEIVE_MAXIMUM))
            .set_max_packet_size(Some(MAX_ENVELOPE_BYTES as u32 + PACKET_ROOM_BYTES))
            .set_manual_acks(true)
            .set_outgoing_inflight_upper_limit(INFLIGHT);
        // Room for every acknowledgement and every publish that can be under way, and for the subscription.
        let queue = usize::from(RECEIVE_MAXIMUM) + usize::from(INFLIGHT) + 8;
        let (client, events) = AsyncClient::new(options, queue);
        let shared = Arc::new(Shared {
            settings,
            ingest,
            waiting: Waiting::new(client.clone()),
            client,
            permits: Arc::new(Semaphore::new(INFLIGHT.into())),
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::new(())).collect(),
            again: Notify::new(),
            connected: watch::Sender::new(false),
            stopping: CancellationToken::new(),
        });
        // Twice the receive maximum: messages of a lost connection may still be in it.
        let (inbox, messages) = mpsc::channel(2 * usize::from(RECEIVE_MAXIMUM));
        let tasks = TaskTracker::new();
        tasks.spawn(link::run(shared.clone(), events, inbox));
        tasks.spawn(inbox::work(shared.clone(), messages));
        Ok(Self { shared, tasks })
    }

    /// Whether the hub is connected and subscribed now; changes are seen as they happen.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.shared.connected.subscribe()
    }

    /// Ends the connection. The broker keeps what nodes send until the hub is back.
    pub async fn stop(&self) {
        self.shared.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for External {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
    }
}

#[async_trait]
impl Broker for External {
    async fn publish_retained(&self, topic: &Topic, payload: Bytes) -> Result<(), BrokerError> {
        self.shared.publish(topic, payload).await
    }

    async fn clear_retained(&self, topic: &Topic) -> Result<(), BrokerError> {
        self.shared.publish(topic, Bytes::new()).await
    }

    async fn disconnect(&self, node: &NodeId) -> Result<(), BrokerError> {
        self.clear_retained(&Topic::down(node, Down::Desired)).await?;
        let Some((program, arguments)) = self.shared.settings.revocation_command.split_first() else {
            return Ok(());
        };
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let failed = |why: String| {
            BrokerError::Refused(format!(
                "the revocation command {program:?} failed, so {node} may still be connected: {why}"
            ))
        };
        match timeout(COMMAND, output).await {
            Err(_) => Err(failed("it did not end in time".to_owned())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Ok(Ok(output)) if !output.status.success() => Err(failed(format!(
                "{}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            ))),
            Ok(Ok(_)) => Ok(()),
        }
    }

    fn listen_address(&self) -> String {
        let settings = &self.shared.settings;
        if settings.host.contains(':') {
            format!("mqtts://[{}]:{}", settings.host, settings.port)
        } else {
            format!("mqtts://{}:{}", settings.host, settings.port)
        }
    }
}

impl Shared {
    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<(), BrokerError> {
        let permit = self.permit().await?;
        let answer = {
            // Behind whatever is just being published again from the database, so that nothing older comes after this.
            let _turn = self.turn(&topic.node).await;
            self.waiting.publish(topic.to_string(), payload, permit)?
        };
        answered(answer).await
    }

    /// Publishes one topic as the database has it.
    async fn publish_again(&self, topic: Topic) -> Result<(), BrokerError> {
        let permit = self.permit().await?;
        let answer = {
            let _turn = self.turn(&topic.node).await;
            let payload = self
                .ingest
                .retained(&topic)
                .await
                .map_err(|error| BrokerError::Unavailable(format!("the hub's database fails: {error}")))?
                .unwrap_or_default();
            self.waiting.publish(topic.to_string(), payload, permit)?
        };
        answered(answer).await
    }

    async fn permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, BrokerError> {
        self.permits
            .clone()
            .acquire_owned()
            .await
            .map_err(|error| BrokerError::Unavailable(error.to_string()))
    }

    async fn turn(&self, node: &NodeId) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        node.hash(&mut hasher);
        self.turns[(hasher.finish() % TURNS as u64) as usize].lock().await
    }
}

/// Publishes all that is retained in the database.
async fn publish_all(shared: Arc<Shared>) -> Result<(), BrokerError> {
    let topics = shared
        .ingest
        .retained_topics()
        .await
        .map_err(|error| BrokerError::Unavailable(format!("the hub's database fails: {error}")))?;
    stream::iter(topics.into_iter().map(Ok))
        .try_for_each_concurrent(usize::from(INFLIGHT), |topic| shared.publish_again(topic))
        .await
}

async fn answered(answer: oneshot::Receiver<Result<(), BrokerError>>) -> Result<(), BrokerError> {
    match timeout(ANSWER, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(BrokerError::Unavailable(
            "the connection to it was lost".to_owned(),
        )),
        Err(_) => Err(BrokerError::Unavailable(
            "it did not acknowledge in time".to_owned(),
        )),
    }
}
