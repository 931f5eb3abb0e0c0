//! A second, bare client of the hub: it enrols as a box does and times round trips of its broker.

use anyhow::{Context as _, Result, bail};
use holdfast_harness::Hub;
use holdfast_protocol::{
    NodeId, SchemaVersion,
    enrol::{EnrolAnswer, EnrolRequest, HardwareFacts},
    event::{Event, EventKind, Severity},
    operator::CreateToken,
    token::EnrolmentToken,
    topic::{Topic, Up},
};
use jiff::Timestamp;
use rumqttc::{
    Outgoing, Transport,
    v5::{AsyncClient, Event as Happening, EventLoop, Incoming, MqttOptions, mqttbytes::QoS},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::Map;
use std::time::{Duration, Instant};

/// A connected client.
pub struct Probe {
    node: NodeId,
    client: AsyncClient,
    events: EventLoop,
    sequence: u64,
}

impl Probe {
    /// Enrols and connects.
    pub async fn connect(hub: &Hub) -> Result<Self> {
        let token = hub.create_token(&CreateToken::default()).await?.token;
        let token: EnrolmentToken = token.parse()?;
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let request = EnrolRequest {
            schema: SchemaVersion::CURRENT,
            token_id: token.id,
            token_secret: token.secret.to_vec(),
            csr: rcgen::CertificateParams::default()
                .serialize_request(&key)?
                .pem()?,
            requested_name: Some("probe".parse()?),
            hardware: HardwareFacts::default(),
            sealing_key: None,
            extra: Map::new(),
        };
        let answer: EnrolAnswer = hub
            .request(reqwest::Method::POST, "/v1/enrol", Some(&request))
            .await?
            .json()
            .await
            .context("enrolment")?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(answer.ca_certificates.as_bytes()) {
            roots.add(certificate?)?;
        }
        let chain =
            CertificateDer::pem_slice_iter(answer.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                chain,
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?,
            )?;
        let address = answer
            .brokers
            .first()
            .context("a broker")?
            .trim_start_matches("mqtts://");
        let (host, port) = address.rsplit_once(':').context("host and port of the broker")?;
        let mut options = MqttOptions::new(answer.node.as_str(), host, port.parse()?);
        options.set_transport(Transport::tls_with_config(config.into()));
        options.set_outgoing_inflight_upper_limit(64);
        options.set_keep_alive(Duration::from_secs(60));
        let (client, mut events) = AsyncClient::new(options, 16);
        loop {
            if let Happening::Incoming(Incoming::ConnAck(_)) = events.poll().await? {
                break;
            }
        }
        Ok(Self {
            node: answer.node,
            client,
            events,
            sequence: 0,
        })
    }

    /// Time from the sending of an event to its acknowledgement, which the hub gives after it has stored it.
    pub async fn round_trip(&mut self) -> Result<Duration> {
        self.sequence += 1;
        let event = Event {
            schema: SchemaVersion::CURRENT,
            node: self.node.clone(),
            sequence: self.sequence,
            at: Timestamp::now(),
            kind: EventKind::Started,
            severity: Severity::Info,
            message: "round trip".into(),
            generation: None,
            problem: None,
            details: Map::new(),
        };
        let topic = Topic::up(&self.node, Up::Event).to_string();
        self.client
            .publish(topic, QoS::AtLeastOnce, false, serde_json::to_vec(&event)?)
            .await?;
        let mut sent = None;
        loop {
            match self.events.poll().await? {
                Happening::Outgoing(Outgoing::Publish(_)) => sent = Some(Instant::now()),
                Happening::Incoming(Incoming::PubAck(_)) => match sent {
                    Some(sent) => return Ok(sent.elapsed()),
                    None => bail!("an acknowledgement came before the message was sent"),
                },
                _ => {}
            }
        }
    }
}
