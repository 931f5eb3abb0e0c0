//! A real mosquitto with mutual TLS, and the hub's side of it: a certificate authority, a signing key, a client that publishes and listens.

use super::PATIENCE;
use anyhow::{Context as _, Result, bail};
use holdfast_harness::{Process, wait};
use holdfast_protocol::{
    NodeId,
    envelope::{DESIRED_STATE_TYPE, Envelope},
    event::{Event, EventKind},
    report::{Presence, StatusReport},
    topic::{Channel, Down, Topic, Up},
    trust::{Role, TrustPolicy, TrustedKey},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use rumqttc::{
    TlsConfiguration, Transport,
    v5::{AsyncClient, Event as Packet, Incoming, MqttOptions, mqttbytes::QoS},
};
use serde_json::Value;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{process::Command, sync::watch, task::JoinHandle};

/// What came from nodes.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    pub events: Vec<Event>,
    pub reports: Vec<StatusReport>,
    pub presence: Vec<bool>,
}

/// The hub's side.
pub struct Hub {
    directory: TempDir,
    authority: Issuer<'static, KeyPair>,
    pub ca_pem: String,
    signer: Ed25519KeyPair,
    pub trust: TrustPolicy,
    pub port: u16,
    broker: Option<Process>,
    client: Option<(AsyncClient, JoinHandle<()>)>,
    heard: Arc<watch::Sender<Heard>>,
}

impl Hub {
    /// Makes the authority and starts the broker.
    pub async fn start() -> Result<Self> {
        holdfast_harness::install_tls_provider();
        let directory = TempDir::new()?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "engine test authority");
        let ca_pem = params.self_signed(&key)?.pem();
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let signer = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let trust = TrustPolicy {
            keys: vec![TrustedKey::ed25519(
                signer.public_key().as_ref(),
                vec![Role::DesiredState, Role::Time],
            )],
            ..TrustPolicy::default()
        };
        let mut hub = Self {
            directory,
            authority: Issuer::new(params, key),
            ca_pem,
            signer,
            trust,
            port: holdfast_harness::port::reserve()?,
            broker: None,
            client: None,
            heard: Arc::new(watch::Sender::new(Heard::default())),
        };
        hub.configure()?;
        hub.start_broker().await?;
        hub.connect().await?;
        Ok(hub)
    }

    /// A certificate for `name` and its key, in PEM.
    pub fn certificate(&self, name: &str, key: &KeyPair) -> Result<String> {
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        Ok(params.signed_by(key, &self.authority)?.pem())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn configure(&self) -> Result<()> {
        let key = KeyPair::generate()?;
        std::fs::write(self.path("ca.pem"), &self.ca_pem)?;
        std::fs::write(self.path("server.pem"), self.certificate("localhost", &key)?)?;
        std::fs::write(self.path("server.key"), key.serialize_pem())?;
        let directory = self.directory.path().display();
        // As root, mosquitto would become a user who cannot read these files.
        let user = if nix::unistd::geteuid().is_root() {
            "user root\n"
        } else {
            ""
        };
        let text = format!(
            "{user}listener {} 127.0.0.1\ncafile {directory}/ca.pem\ncertfile {directory}/server.pem\n\
             keyfile {directory}/server.key\nrequire_certificate true\nuse_identity_as_username true\n\
             max_packet_size 2000000\nset_tcp_nodelay true\npersistence true\npersistence_location {directory}/\nautosave_interval 1\n",
            self.port
        );
        std::fs::write(self.path("mosquitto.conf"), text)?;
        Ok(())
    }

    /// Starts the broker (again).
    pub async fn start_broker(&mut self) -> Result<()> {
        let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"]
            .into_iter()
            .find(|path| std::path::Path::new(path).is_file())
            .context("mosquitto is not installed: apt-get install mosquitto")?;
        let mut command = Command::new(program);
        command.arg("-c").arg(self.path("mosquitto.conf"));
        self.broker = Some(Process::start("mosquitto", command, &self.path("mosquitto.log"))?);
        let port = self.port;
        wait::until("mosquitto listens", PATIENCE, async || {
            Ok(tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .ok()
                .map(drop))
        })
        .await
    }

    /// Ends the broker as a power cut would.
    pub async fn kill_broker(&mut self) -> Result<()> {
        if let Some(mut broker) = self.broker.take() {
            broker.kill().await?;
        }
        Ok(())
    }

    /// The hub's own session; it hears everything that nodes say.
    pub async fn connect(&mut self) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut options = MqttOptions::new("hub", "localhost", self.port);
        options
            .set_transport(Transport::Tls(TlsConfiguration::Simple {
                ca: self.ca_pem.clone().into_bytes(),
                alpn: None,
                client_auth: Some((
                    self.certificate("hub", &key)?.into_bytes(),
                    key.serialize_pem().into_bytes(),
                )),
            }))
            .set_clean_start(false)
            .set_session_expiry_interval(Some(3600))
            .set_max_packet_size(Some(4_000_000))
            .set_keep_alive(PATIENCE);
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, mut events) = AsyncClient::new(options, 64);
        let heard = self.heard.clone();
        let (subscribed, mut ready) = watch::channel(false);
        let again = client.clone();
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Packet::Incoming(Incoming::ConnAck(_))) => {
                        again.try_subscribe("hf/v1/+/up/#", QoS::AtLeastOnce).unwrap();
                    }
                    Ok(Packet::Incoming(Incoming::SubAck(_))) => {
                        subscribed.send_replace(true);
                    }
                    Ok(Packet::Incoming(Incoming::Publish(publish))) => {
                        let topic: Topic = String::from_utf8_lossy(&publish.topic).parse().unwrap();
                        heard.send_modify(|heard| match topic.channel {
                            Channel::Up(Up::Event) => heard
                                .events
                                .push(serde_json::from_slice(&publish.payload).unwrap()),
                            Channel::Up(Up::Status) => heard
                                .reports
                                .push(serde_json::from_slice(&publish.payload).unwrap()),
                            Channel::Up(Up::Presence) => {
                                let presence: Presence = serde_json::from_slice(&publish.payload).unwrap();
                                heard.presence.push(presence.online);
                            }
                            Channel::Down(_) => {}
                        });
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await??;
        self.client = Some((client, task));
        Ok(())
    }

    /// Ends the hub's session; the broker keeps what comes for it.
    pub fn disconnect(&mut self) {
        if let Some((_, task)) = self.client.take() {
            task.abort();
        }
    }

    /// A signed desired state.
    pub fn sign(&self, document: &Value) -> Envelope {
        Envelope::sign(
            DESIRED_STATE_TYPE,
            document.to_string().into_bytes(),
            &[&self.signer],
        )
    }

    /// Publishes any bytes as a node's desired state, retained.
    pub async fn publish(&self, node: &str, bytes: Vec<u8>) -> Result<()> {
        let Some((client, _)) = &self.client else {
            bail!("the hub has no session");
        };
        let node: NodeId = node.parse()?;
        let topic = Topic::down(&node, Down::Desired).to_string();
        client.publish(topic, QoS::AtLeastOnce, true, bytes).await?;
        Ok(())
    }

    /// One message of QoS 1 to the broker and back to this session.
    pub async fn ping(&self) -> Result<()> {
        let count = self.heard().presence.len();
        let presence = serde_json::to_vec(&Presence {
            schema: holdfast_protocol::SchemaVersion::CURRENT,
            online: true,
        })?;
        let Some((client, _)) = &self.client else {
            bail!("the hub has no session");
        };
        client
            .publish("hf/v1/ping/up/presence", QoS::AtLeastOnce, false, presence)
            .await?;
        self.hear("the ping", |heard| heard.presence.len() > count)
            .await
            .map(drop)
    }

    /// Deletes a file of the broker's own, while it does not run.
    pub fn forget(&self, name: &str) -> Result<()> {
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Everything heard so far.
    pub fn heard(&self) -> Heard {
        self.heard.borrow().clone()
    }

    /// Waits until what was heard satisfies `condition`.
    pub async fn hear(&self, what: &str, condition: impl Fn(&Heard) -> bool) -> Result<Heard> {
        let mut heard = self.heard.subscribe();
        match tokio::time::timeout(PATIENCE, heard.wait_for(|heard| condition(heard))).await {
            Ok(heard) => Ok(heard?.clone()),
            Err(_) => {
                let heard = self.heard();
                let events: Vec<_> = heard
                    .events
                    .iter()
                    .map(|event| (&event.kind, &event.message))
                    .collect();
                let last = heard
                    .reports
                    .last()
                    .map(|report| (&report.generation, &report.apps, &report.conditions));
                bail!("{what}: not heard; events: {events:#?}; last report: {last:#?}")
            }
        }
    }

    /// Waits for an event of this kind.
    pub async fn hear_event(&self, kind: EventKind) -> Result<Event> {
        let heard = self
            .hear(&format!("{kind:?}"), |heard| {
                heard.events.iter().any(|event| event.kind == kind)
            })
            .await?;
        heard
            .events
            .into_iter()
            .find(|event| event.kind == kind)
            .context("just heard")
    }
}
