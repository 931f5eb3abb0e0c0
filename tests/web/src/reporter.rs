//! A node that is enrolled like any other and reports whatever a test wants the hub to show.
//!
//! It stands for what no real node can be made to say at will: any health, any cause, any text. Its way into the hub is the real one:
//! a token, a key of its own, a certificate, MQTT over mutual TLS.

use anyhow::{Context as _, Result, bail};
use holdfast_harness::Hub;
use holdfast_protocol::{
    Generation, NodeId, Problem, SchemaVersion,
    enrol::{EnrolAnswer, EnrolRequest, HardwareFacts},
    event::{Event, EventKind, Severity},
    operator::CreateToken,
    report::{
        AgentInfo, AppStatus, GenerationStatus, Health, KubernetesStatus, MachineFacts, Phase, Presence,
        StatusReport,
    },
    token::EnrolmentToken,
    topic::{Topic, Up},
};
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rumqttc::{
    Transport,
    v5::{
        AsyncClient, EventLoop, Incoming, MqttOptions,
        mqttbytes::{QoS, v5::LastWill},
    },
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{sync::Arc, time::Duration};

/// How long the hub may take for one answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// An enrolled node with an open session.
pub struct Reporter {
    /// Its name.
    pub node: NodeId,
    sequence: u64,
    client: AsyncClient,
    events: EventLoop,
}

impl Reporter {
    /// Makes a token for `name`, enrols with it and opens the session.
    pub async fn enrol(hub: &Hub, name: &str, labels: &[(&str, &str)]) -> Result<Self> {
        let node: NodeId = name.parse()?;
        let request = CreateToken {
            node_name: Some(node.clone()),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..CreateToken::default()
        };
        let token: EnrolmentToken = hub.create_token(&request).await?.token.parse()?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut parameters = CertificateParams::new(Vec::<String>::new())?;
        parameters.distinguished_name = DistinguishedName::new();
        let request = EnrolRequest {
            schema: SchemaVersion::CURRENT,
            token_id: token.id.clone(),
            token_secret: token.secret.to_vec(),
            csr: parameters.serialize_request(&key)?.pem()?,
            requested_name: None,
            hardware: HardwareFacts {
                serial: Some("10000000a1b2c3d4".to_owned()),
                model: Some("Raspberry Pi 4 Model B Rev 1.5".to_owned()),
                architecture: "aarch64".to_owned(),
                operating_system: "Debian GNU/Linux 12 (bookworm)".to_owned(),
                cpus: 4,
                memory_bytes: 8 << 30,
            },
            sealing_key: None,
            extra: Map::new(),
        };
        let answer: EnrolAnswer = hub
            .request(reqwest::Method::POST, "/v1/enrol", Some(&request))
            .await?
            .json()
            .await?;
        let (client, events) = connect(&node, &answer, &key)?;
        let mut reporter = Self {
            node,
            sequence: 0,
            client,
            events,
        };
        let presence = Presence {
            schema: SchemaVersion::CURRENT,
            online: true,
        };
        reporter
            .publish(Up::Presence, true, &presence)
            .await
            .with_context(|| {
                format!(
                    "open a session as {}; the hub's log ends:\n{}",
                    name,
                    hub.log_tail(20)
                )
            })?;
        Ok(reporter)
    }

    /// Publishes, and waits until the hub's broker has taken it.
    async fn publish(&mut self, channel: Up, retain: bool, message: &impl Serialize) -> Result<()> {
        let topic = Topic::up(&self.node, channel).to_string();
        self.client
            .publish(topic, QoS::AtLeastOnce, retain, serde_json::to_vec(message)?)
            .await?;
        let acknowledged = async {
            loop {
                if let rumqttc::v5::Event::Incoming(Incoming::PubAck(_)) = self.events.poll().await? {
                    return anyhow::Ok(());
                }
            }
        };
        match tokio::time::timeout(PATIENCE, acknowledged).await {
            Ok(done) => done,
            Err(_) => bail!("the broker did not acknowledge within {PATIENCE:?}"),
        }
    }

    /// A report of a healthy node that has proven `generation`; tests change what they are about.
    pub fn healthy(&mut self, generation: Option<Generation>) -> StatusReport {
        self.sequence += 1;
        StatusReport {
            schema: SchemaVersion::CURRENT,
            node: self.node.clone(),
            sequence: self.sequence,
            reported_at: Timestamp::now(),
            clock_trusted: true,
            agent: AgentInfo {
                version: "0.1.0".to_owned(),
                boot_id: "boot".to_owned(),
                architecture: "aarch64".to_owned(),
                operating_system: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            },
            generation: GenerationStatus {
                accepted: generation,
                accepted_digest: None,
                applied: generation,
                proven: generation,
                phase: if generation.is_some() {
                    Phase::Committed
                } else {
                    Phase::Idle
                },
                cause: None,
                ..GenerationStatus::default()
            },
            health: Health::Healthy,
            os: None,
            kubernetes: KubernetesStatus {
                health: Health::Healthy,
                version: Some("v1.36.3+k3s1".to_owned()),
                restarts: 1,
                cause: None,
            },
            apps: Vec::new(),
            conditions: Vec::new(),
            machine: MachineFacts {
                hostname: self.node.to_string(),
                cpus: 4,
                memory_bytes: 8 << 30,
                disk_bytes: 64 << 30,
                disk_free_bytes: 41 << 30,
                flash: None,
            },
            extra: Map::new(),
        }
    }

    /// Publishes a report.
    pub async fn report(&mut self, report: &StatusReport) -> Result<()> {
        self.publish(Up::Status, false, report).await
    }

    /// Publishes an event.
    pub async fn tell(
        &mut self,
        kind: EventKind,
        severity: Severity,
        message: &str,
        problem: Option<Problem>,
    ) -> Result<()> {
        self.tell_with(kind, severity, message, problem, Map::new()).await
    }

    /// Publishes an event with all that it says beside its message.
    pub async fn tell_with(
        &mut self,
        kind: EventKind,
        severity: Severity,
        message: &str,
        problem: Option<Problem>,
        details: Map<String, Value>,
    ) -> Result<()> {
        self.sequence += 1;
        let event = Event {
            schema: SchemaVersion::CURRENT,
            node: self.node.clone(),
            sequence: self.sequence,
            at: Timestamp::now(),
            kind,
            severity,
            message: message.to_owned(),
            generation: None,
            problem,
            details,
        };
        self.publish(Up::Event, false, &event).await
    }

    /// Cuts the session without a word, as a dead link does: the broker then publishes the last will.
    pub fn vanish(self) {
        drop(self);
    }
}

/// An app with all its objects ready.
pub fn ready_app(name: &str, objects: u32) -> AppStatus {
    AppStatus {
        name: name.to_owned(),
        health: Health::Healthy,
        ready: objects,
        objects,
        cause: None,
    }
}

/// An app with a cause.
pub fn broken_app(name: &str, objects: u32, cause: Problem) -> AppStatus {
    AppStatus {
        health: Health::Degraded,
        ready: objects - 1,
        cause: Some(cause),
        ..ready_app(name, objects)
    }
}

fn connect(node: &NodeId, answer: &EnrolAnswer, key: &KeyPair) -> Result<(AsyncClient, EventLoop)> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(answer.ca_certificates.as_bytes()) {
        roots.add(certificate?)?;
    }
    let chain =
        CertificateDer::pem_slice_iter(answer.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    let broker = answer.brokers.first().context("the answer names no broker")?;
    let (host, port) = broker
        .strip_prefix("mqtts://")
        .and_then(|rest| rest.rsplit_once(':'))
        .with_context(|| format!("broker {broker:?}"))?;
    let mut options = MqttOptions::new(node.as_str(), host, port.parse()?);
    let will = serde_json::to_vec(&Presence {
        schema: SchemaVersion::CURRENT,
        online: false,
    })?;
    options
        .set_transport(Transport::tls_with_config(tls.into()))
        .set_credentials(node.as_str(), "")
        .set_clean_start(true)
        .set_keep_alive(Duration::from_secs(600))
        .set_last_will(LastWill::new(
            Topic::up(node, Up::Presence).to_string(),
            will,
            QoS::AtLeastOnce,
            true,
            None,
        ));
    Ok(AsyncClient::new(options, 16))
}
