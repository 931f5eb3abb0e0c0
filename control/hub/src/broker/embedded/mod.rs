//! The broker inside the hub: rmqtt as a library behind a front that ends TLS.
//!
//! ```text
//! node ─ TLS ─▶ relay ─ CONNECT ─▶ connect ─▶ registry ─ loopback ─▶ rmqtt ─▶ hooks ─▶ Ingest
//!               (front)            (who is it)  (one a node)                  (what may it)
//! ```
//!
//! In come the listen address, TLS files, limits and the hub's [`Ingest`]; out goes a [`Broker`]. Guarantees: those of
//! [the seam](super), and that no connection, however hostile, disturbs another one. rmqtt keeps no state of its own: a broker
//! that is started anew carries on from the hub's database.

mod connect;
mod descriptors;
mod handshakes;
mod hooks;
mod registry;
mod relay;

use super::{Broker, BrokerError, BrokerTls, Ingest, tls};
use async_trait::async_trait;
use bytes::Bytes;
use handshakes::Handshakes;
use holdfast_protocol::{MAX_ENVELOPE_BYTES, NodeId, topic::Topic};
use hooks::{RetainedInDatabase, SessionsEndWithConnection};
use registry::Registry;
use rmqtt::{
    codec::{types::Publish as Packet, v5::DisconnectReasonCode},
    context::ServerContext,
    net::Builder,
    server::MqttServer,
    session::SessionState,
    types::{From, Id, Publish, QoS},
    utils::timestamp_millis,
};
use rustls::ServerConfig;
use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    num::NonZeroU16,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, select, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Room in a packet for its topic and properties, besides the largest envelope.
const PACKET_ROOM_BYTES: u32 = 64 * 1024;

/// Messages that wait for a node that reads slowly. They are desired states: a newer one makes an older one worthless, so the
/// oldest gives way.
const QUEUED_MESSAGES: usize = 4;

/// Messages under way to or from one client without acknowledgement.
const INFLIGHT: NonZeroU16 = NonZeroU16::new(16).unwrap();

/// How long live sessions have to end when the broker stops.
const STOP: Duration = Duration::from_secs(5);

/// rmqtt's number for the hub's own messages and its one listener.
const LISTENER: u16 = 1;

/// Settings of the embedded broker.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// Where nodes connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificates and key.
    pub tls: BrokerTls,
    /// What clients may take.
    pub limits: Limits,
}

/// What clients may take of the broker.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Live sessions; fewer where the process may not open three files for each.
    pub connections: usize,
    /// Connections that have not yet proven a name.
    pub handshakes: usize,
    /// The same, of one address. Many nodes may share one, behind the router of their site.
    pub handshakes_per_address: usize,
    /// From accepting a connection to the end of its CONNECT packet, and again from there to the open session.
    pub handshake_timeout: Duration,
    /// Longest keep-alive in seconds; a client that asks for more is told this one.
    pub max_keep_alive: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            handshakes: 1024,
            handshakes_per_address: 256,
            handshake_timeout: Duration::from_secs(10),
            max_keep_alive: 1200,
        }
    }
}

/// A running embedded broker. Dropping it without [`Embedded::stop`] ends all connections without a word.
pub struct Embedded {
    front: Arc<Front>,
    address: SocketAddr,
    settings: EmbeddedSettings,
    tasks: TaskTracker,
    inner: JoinHandle<()>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// What all connections share.
struct Front {
    ingest: Arc<dyn Ingest>,
    registry: Registry,
    handshakes: Arc<Handshakes>,
    limits: Limits,
    tls: RwLock<Arc<ServerConfig>>,
    context: ServerContext,
    inner: SocketAddr,
    sources: AtomicU32,
    stopping: CancellationToken,
}

impl Embedded {
    /// Binds the address and starts to serve.
    pub async fn start(mut settings: EmbeddedSettings, ingest: Arc<dyn Ingest>) -> Result<Self, BrokerError> {
        settings.limits.connections =
            descriptors::sessions_that_fit(settings.limits.connections, settings.limits.handshakes);
        let tls = tls::server_config(&settings.tls)?;
        let listener = TcpListener::bind(settings.listen).await.map_err(|error| {
            BrokerError::Start(format!("{} cannot be listened on: {error}", settings.listen))
        })?;
        let start = |error: std::io::Error| BrokerError::Start(error.to_string());
        let address = listener.local_addr().map_err(start)?;

        let context = ServerContext::new().busy_check_enable(false).build().await;
        *context.extends.retain_mut().await = Box::new(RetainedInDatabase);
        *context.extends.fitter_mgr_mut().await = Box::new(SessionsEndWithConnection);
        let inner_listener = inner_builder(&settings.limits)
            .bind()
            .and_then(rmqtt::net::Listener::tcp)
            .map_err(|error| BrokerError::Start(error.to_string()))?;
        let inner = inner_listener
            .local_addr()
            .map_err(|error| BrokerError::Start(error.to_string()))?;

        let front = Arc::new(Front {
            ingest,
            registry: Registry::new(),
            handshakes: Handshakes::new(settings.limits.handshakes, settings.limits.handshakes_per_address),
            limits: settings.limits.clone(),
            tls: RwLock::new(Arc::new(tls)),
            context: context.clone(),
            inner,
            sources: AtomicU32::new(0),
            stopping: CancellationToken::new(),
        });
        hooks::register(context.extends.hook_mgr(), &front).await;
        let server = MqttServer::new(context)
            .listener_by_id(inner_listener, LISTENER)
            .build();
        let inner = tokio::spawn(async move {
            // Its own `start` would end the process on an error.
            if let Err(error) = server.run().await {
                tracing::error!(%error, "rmqtt has stopped");
            }
        });
        let tasks = TaskTracker::new();
        let accepting = tokio::spawn(accept(listener, front.clone(), tasks.clone()));
        Ok(Self {
            front,
            address,
            settings,
            tasks,
            inner,
            accepting: Mutex::new(Some(accepting)),
        })
    }

    /// Reads certificates and key again; connections from now on see the new ones.
    pub fn reload_tls(&self) -> Result<(), BrokerError> {
        let config = Arc::new(tls::server_config(&self.settings.tls)?);
        *self.front.tls.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Number of live sessions.
    pub fn sessions(&self) -> usize {
        self.front.registry.count()
    }

    /// Ends all sessions, telling them that the server shuts down, and gives the port free.
    pub async fn stop(&self) {
        self.front.stopping.cancel();
        let accepting = self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(accepting) = accepting {
            // It ends by itself, and the listener with it.
            let _ = accepting.await;
        }
        for connection in self.front.registry.all() {
            connection.end(DisconnectReasonCode::ServerShuttingDown);
        }
        self.tasks.close();
        if timeout(STOP, self.tasks.wait()).await.is_err() {
            tracing::warn!(sessions = self.sessions(), "sessions did not end in time");
        }
        self.inner.abort();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.front.stopping.cancel();
        for connection in self.front.registry.all() {
            connection.end(DisconnectReasonCode::ServerShuttingDown);
        }
        self.inner.abort();
    }
}

#[async_trait]
impl Broker for Embedded {
    async fn publish_retained(&self, topic: &Topic, payload: Bytes) -> Result<(), BrokerError> {
        // Behind a subscription that is just being answered from the database, so that no older state comes after this one.
        let _turn = self.front.registry.retained_turn(&topic.node).await;
        SessionState::forwards(
            &self.front.context,
            from_hub(),
            message(topic.to_string(), payload),
            false,
            None,
        )
        .await
        .map_err(|error| BrokerError::Refused(error.to_string()))
    }

    /// Nothing to do: what is retained is what the database has.
    async fn clear_retained(&self, _: &Topic) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn disconnect(&self, node: &NodeId) -> Result<(), BrokerError> {
        if let Some(connection) = self.front.registry.by_node(node) {
            connection.end(DisconnectReasonCode::AdministrativeAction);
            connection.gone.cancelled().await;
        }
        Ok(())
    }

    fn listen_address(&self) -> String {
        format!("mqtts://{}", self.address)
    }
}

impl Front {
    fn tls(&self) -> Arc<ServerConfig> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A source on the loopback network for the next connection to rmqtt, spread over 2^16 addresses.
    fn next_source(&self) -> SocketAddr {
        if cfg!(target_os = "linux") {
            let [_, _, high, low] = self.sources.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            SocketAddrV4::new(Ipv4Addr::new(127, 64, high, low), 0).into()
        } else {
            SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into()
        }
    }
}

async fn accept(listener: TcpListener, front: Arc<Front>, tasks: TaskTracker) {
    loop {
        let accepted = select! {
            () = front.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                let _ = tcp.set_nodelay(true);
                tasks.spawn(relay::serve(front.clone(), tcp, peer));
            }
            Err(error) => {
                // Mostly: no file descriptor left. Nothing tells when one is free again.
                tracing::error!(%error, "no connection can be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// rmqtt's listener on the loopback interface.
fn inner_builder(limits: &Limits) -> Builder {
    Builder::new()
        .name("holdfast")
        .laddr(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into())
        .nodelay(true)
        .tcp_keepalive(false)
        .max_connections(limits.connections.max(1))
        .max_handshaking_limit(limits.handshakes.max(1))
        .handshake_timeout(limits.handshake_timeout)
        .max_packet_size(MAX_ENVELOPE_BYTES as u32 + PACKET_ROOM_BYTES)
        // Without this, a client without a user name is let in without asking the hook.
        .allow_anonymous(false)
        .min_keepalive(1)
        .max_keepalive(limits.max_keep_alive)
        .allow_zero_keepalive(false)
        .keepalive_backoff(0.75)
        .max_inflight(INFLIGHT)
        .max_mqueue_len(QUEUED_MESSAGES)
        .max_clientid_len(63)
        .max_qos_allowed(QoS::AtLeastOnce)
        .max_topic_levels(8)
        .max_subscriptions(8)
        .max_topic_aliases(0)
        // MQTT 5 sends again only on a new connection.
        .message_retry_interval(Duration::ZERO)
        .message_expiry_interval(Duration::ZERO)
}

/// The hub as a sender.
fn from_hub() -> From {
    From::from_system(Id::from(0, super::HUB_IDENTITY.into()))
}

/// A message from the hub.
fn message(topic: String, payload: Bytes) -> Publish {
    let packet = Packet {
        dup: false,
        retain: true,
        qos: QoS::AtLeastOnce,
        topic: topic.into(),
        packet_id: None,
        payload,
        properties: None,
    };
    Publish::new(Box::new(packet), None, None, Some(timestamp_millis()))
}
