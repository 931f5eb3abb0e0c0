//! What the broker tests share: a rig that runs one broker with a hub's side behind it, certificates, and a client.
//!
//! Every test of `both!` runs against the embedded broker and against mosquitto with the shipped configuration.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod certificates;
pub mod client;
pub mod hub;
pub mod mosquitto;

use bytes::Bytes;
use certificates::{Authority, Identity};
use client::{Client, Options, Refused};
use holdfast_hub::broker::{
    Broker, BrokerTls,
    embedded::{Embedded, EmbeddedSettings, Limits},
    external::{External, ExternalSettings},
};
use holdfast_protocol::{
    NodeId,
    topic::{Down, Topic, Up},
};
use hub::Recorder;
use mosquitto::Mosquitto;
use rmqtt::codec::v5::PublishAckReason;
use std::{future::Future, sync::Arc, time::Duration};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a test against both brokers.
#[macro_export]
macro_rules! both {
    ($(async fn $name:ident($rig:ident: Rig) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "the body picks")]
            use super::*;

            async fn with($rig: Rig) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                with(Rig::start(Kind::Embedded).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mosquitto() {
                with(Rig::start(Kind::Mosquitto).await).await;
            }
        }
    )*};
}

/// Waits for an event, with a deadline.
pub async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    let Ok(result) = tokio::time::timeout(DEADLINE, event).await else {
        panic!("waited {DEADLINE:?} in vain for {what}");
    };
    result
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Embedded,
    Mosquitto,
}

/// A running broker with a hub behind it.
pub struct Rig {
    pub kind: Kind,
    pub authority: Authority,
    pub hub: Arc<Recorder>,
    pub port: u16,
    pub broker: Arc<dyn Broker>,
    running: Option<Running>,
    hub_tls: BrokerTls,
    limits: Limits,
    directory: tempfile::TempDir,
}

enum Running {
    Embedded(Arc<Embedded>),
    Mosquitto(Arc<External>, Box<Mosquitto>),
}

impl Rig {
    pub async fn start(kind: Kind) -> Self {
        Self::with_limits(kind, Limits::default()).await
    }

    pub async fn with_limits(kind: Kind, limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let hub_tls = authority.hub(directory.path());
        let hub = Arc::new(Recorder::new(kind == Kind::Mosquitto));
        let (running, broker, port) = match kind {
            Kind::Embedded => embedded(&hub_tls, &limits, 0, &hub).await,
            Kind::Mosquitto => {
                let tls = authority.files(directory.path(), "broker");
                let mosquitto = Mosquitto::start(directory.path(), &tls).await;
                let port = mosquitto.port;
                let external = external(&hub_tls, port, &hub).await;
                (
                    Running::Mosquitto(external.clone(), Box::new(mosquitto)),
                    external as Arc<dyn Broker>,
                    port,
                )
            }
        };
        Self {
            kind,
            authority,
            hub,
            port,
            broker,
            running: Some(running),
            hub_tls,
            limits,
            directory,
        }
    }

    /// Stops the broker and starts it again on the same port, as after an update or a crash of its machine.
    pub async fn restart(&mut self) {
        match self.running.take().unwrap() {
            Running::Embedded(broker) => {
                broker.stop().await;
                let (running, broker, port) =
                    embedded(&self.hub_tls, &self.limits, self.port, &self.hub).await;
                assert_eq!(port, self.port);
                self.broker = broker;
                self.running = Some(running);
            }
            Running::Mosquitto(external, mosquitto) => {
                let mut connected = external.connected();
                let mosquitto = mosquitto.restart().await;
                // First the loss, then the new connection.
                within("the hub to connect again", async {
                    connected.wait_for(|connected| !connected).await.unwrap();
                    connected.wait_for(|connected| *connected).await.unwrap();
                })
                .await;
                self.running = Some(Running::Mosquitto(external, Box::new(mosquitto)));
            }
        }
    }

    /// Stops the hub's side of an external broker, lets something happen, and starts it again.
    pub async fn without_hub(&mut self, happening: impl Future<Output = ()>) {
        let Some(Running::Mosquitto(hub, mosquitto)) = self.running.take() else {
            panic!("only an external broker lives without the hub");
        };
        hub.stop().await;
        happening.await;
        let hub = external(&self.hub_tls, self.port, &self.hub).await;
        self.broker = hub.clone();
        self.running = Some(Running::Mosquitto(hub, mosquitto));
    }

    /// Files of the hub.
    pub fn hub_files(&self) -> BrokerTls {
        self.hub_tls.clone()
    }

    /// Revokes a certificate the way the broker learns of it.
    pub async fn revoke(&mut self, identity: &Identity) {
        self.hub
            .with(|state| state.revoked.insert(identity.certificate.to_vec()));
        if let Some(Running::Mosquitto(_, mosquitto)) = &mut self.running {
            self.authority.revoke(&self.hub_tls.revoked_file, &[identity]);
            mosquitto.reload().await;
        }
    }

    /// Connects a node as nodes do: subscribed, and its presence told.
    pub async fn node(&self, name: &str) -> Node {
        self.node_with(name, self.authority.node(name)).await
    }

    pub async fn node_with(&self, name: &str, identity: Identity) -> Node {
        let mut client = self
            .connect(&identity, Options::node(name))
            .await
            .unwrap_or_else(|refused| panic!("{name} cannot connect: {refused:?}"));
        let id: NodeId = name.parse().unwrap();
        let answer = client
            .subscribe(&[&Topic::down(&id, Down::Desired).to_string()])
            .await;
        assert_eq!(
            answer.map(|codes| codes.len()),
            Some(1),
            "{name} cannot subscribe"
        );
        let mut node = Node { id, identity, client };
        assert_eq!(
            node.say(Up::Presence, client::presence(true)).await,
            Some(PublishAckReason::Success)
        );
        self.hub.until_online(name, true).await;
        node
    }

    pub async fn connect(&self, identity: &Identity, options: Options) -> Result<Client, Refused> {
        Client::connect(self.port, &self.authority, Some(identity), options)
            .await
            .map(|(client, _)| client)
    }

    /// Makes `payload` the desired state of a node: first the database, then the broker.
    pub async fn desire(&self, node: &NodeId, payload: &'static str) {
        let topic = Topic::down(node, Down::Desired);
        let payload = Bytes::from_static(payload.as_bytes());
        self.hub
            .with(|state| state.retained.insert(topic.clone(), payload.clone()));
        self.broker.publish_retained(&topic, payload).await.unwrap();
    }

    /// Asserts that a node is as it was before an attack: its session lives, both ways work, it got nothing it should not.
    pub async fn assert_untouched(&self, victim: &mut Node, mark: &'static str) {
        self.desire(&victim.id, mark).await;
        victim.client.message_with(mark).await;
        assert_eq!(
            victim.say(Up::Status, mark).await,
            Some(PublishAckReason::Success)
        );
        self.hub.until_stored(victim.id.as_str(), mark).await;
        let (online, retained) = self.hub.with(|state| {
            (
                state.online.get(&victim.id).copied(),
                state
                    .retained
                    .get(&Topic::down(&victim.id, Down::Desired))
                    .cloned(),
            )
        });
        assert_eq!(online, Some(true), "{} looks offline", victim.id);
        assert_eq!(retained, Some(Bytes::from_static(mark.as_bytes())));
    }
}

async fn embedded(
    tls: &BrokerTls,
    limits: &Limits,
    port: u16,
    hub: &Arc<Recorder>,
) -> (Running, Arc<dyn Broker>, u16) {
    let settings = EmbeddedSettings {
        listen: ([127, 0, 0, 1], port).into(),
        tls: tls.clone(),
        limits: limits.clone(),
    };
    let broker = Arc::new(Embedded::start(settings, hub.clone()).await.unwrap());
    let address = broker.listen_address();
    let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
    (Running::Embedded(broker.clone()), broker, port)
}

async fn external(tls: &BrokerTls, port: u16, hub: &Arc<Recorder>) -> Arc<External> {
    let settings = ExternalSettings {
        host: "127.0.0.1".to_owned(),
        port,
        tls: tls.clone(),
        keep_alive: Duration::from_secs(60),
        revocation_command: Vec::new(),
    };
    let external = Arc::new(External::start(settings, hub.clone()).unwrap());
    within("the hub to connect", async {
        external
            .connected()
            .wait_for(|connected| *connected)
            .await
            .unwrap();
    })
    .await;
    external
}

/// A connected node.
pub struct Node {
    pub id: NodeId,
    pub identity: Identity,
    pub client: Client,
}

impl Node {
    /// Says something on a channel of its own.
    pub async fn say(&mut self, channel: Up, payload: impl Into<Bytes>) -> Option<PublishAckReason> {
        let topic = Topic::up(&self.id, channel).to_string();
        self.client.publish(&topic, payload).await
    }
}
