//! An MQTT 5 client that does exactly what it is told, packet by packet, the forbidden included.

use super::{
    certificates::{Authority, Identity},
    within,
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use holdfast_protocol::{
    NodeId,
    report::Presence,
    topic::{Topic, Up},
};
use rmqtt::codec::{
    types::{Publish, QoS},
    v5::{
        Codec, Connect, ConnectAck, ConnectAckReason, Disconnect, DisconnectReasonCode, LastWill, Packet,
        PublishAck, PublishAckReason, Subscribe, SubscribeAckReason, SubscriptionOptions,
    },
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use std::{io, num::NonZeroU16, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::codec::Framed;

/// One connection.
pub struct Client {
    io: Framed<TlsStream<TcpStream>, Codec>,
    next_packet: u16,
    /// Messages that came while something else was waited for.
    arrived: Vec<Publish>,
}

/// What a client tells about itself.
#[derive(Clone)]
pub struct Options {
    pub client_id: String,
    pub user_name: Option<String>,
    pub will: Option<(String, Bytes)>,
    pub keep_alive: u16,
    pub clean_start: bool,
}

impl Options {
    /// As a node connects: everything is its own.
    pub fn node(name: &str) -> Self {
        let node: NodeId = name.parse().unwrap();
        Self {
            client_id: name.to_owned(),
            user_name: Some(name.to_owned()),
            will: Some((Topic::up(&node, Up::Presence).to_string(), presence(false))),
            keep_alive: 60,
            clean_start: false,
        }
    }
}

/// A presence message.
pub fn presence(online: bool) -> Bytes {
    let presence = Presence {
        schema: holdfast_protocol::SchemaVersion::CURRENT,
        online,
    };
    serde_json::to_vec(&presence).unwrap().into()
}

/// How an attempt to connect failed.
#[derive(Debug)]
pub enum Refused {
    /// The broker said no, and why.
    Answer(ConnectAckReason),
    /// TLS, or the connection was closed without an answer.
    Closed(String),
}

pub async fn tls(
    port: u16,
    authority: &Authority,
    identity: Option<&Identity>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    tcp.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config))
        .connect("127.0.0.1".try_into().unwrap(), tcp)
        .await
}

impl Client {
    /// Connects and waits for the answer.
    pub async fn connect(
        port: u16,
        authority: &Authority,
        identity: Option<&Identity>,
        options: Options,
    ) -> Result<(Self, Box<ConnectAck>), Refused> {
        within("the answer to a CONNECT", async {
            let stream = tls(port, authority, identity)
                .await
                .map_err(|error| Refused::Closed(error.to_string()))?;
            let mut client = Self {
                io: Framed::new(stream, Codec::new(0, 0)),
                next_packet: 0,
                arrived: Vec::new(),
            };
            let connect = Connect {
                clean_start: options.clean_start,
                keep_alive: options.keep_alive,
                session_expiry_interval_secs: 7 * 24 * 60 * 60,
                client_id: options.client_id.into(),
                username: options.user_name.map(Into::into),
                last_will: options.will.map(|(topic, message)| LastWill {
                    qos: QoS::AtLeastOnce,
                    retain: true,
                    topic: topic.into(),
                    message,
                    will_delay_interval_sec: None,
                    correlation_data: None,
                    message_expiry_interval: None,
                    content_type: None,
                    user_properties: Vec::new(),
                    is_utf8_payload: None,
                    response_topic: None,
                }),
                ..Connect::default()
            };
            client
                .io
                .send(Packet::Connect(Box::new(connect)))
                .await
                .map_err(|error| Refused::Closed(error.to_string()))?;
            match client.io.next().await {
                Some(Ok((Packet::ConnectAck(ack), _))) if ack.reason_code == ConnectAckReason::Success => {
                    Ok((client, ack))
                }
                Some(Ok((Packet::ConnectAck(ack), _))) => Err(Refused::Answer(ack.reason_code)),
                Some(Ok((packet, _))) => panic!("instead of a CONNACK came {packet:?}"),
                Some(Err(error)) => Err(Refused::Closed(error.to_string())),
                None => Err(Refused::Closed("end of stream".to_owned())),
            }
        })
        .await
    }

    pub async fn send(&mut self, packet: Packet) -> bool {
        self.io.send(packet).await.is_ok()
    }

    /// The next packet, or none when the broker has closed.
    pub async fn next(&mut self) -> Option<Packet> {
        within("a packet", async {
            match self.io.next().await {
                Some(Ok((packet, _))) => Some(packet),
                Some(Err(_)) | None => None,
            }
        })
        .await
    }

    /// Publishes with QoS 1 and waits for the answer; none when the broker closes instead.
    pub async fn publish(&mut self, topic: &str, payload: impl Into<Bytes>) -> Option<PublishAckReason> {
        let packet_id = self.packet();
        let publish = Publish {
            dup: false,
            retain: topic.ends_with("presence") || topic.ends_with("desired"),
            qos: QoS::AtLeastOnce,
            topic: topic.into(),
            packet_id: Some(packet_id),
            payload: payload.into(),
            properties: None,
        };
        if !self.send(Packet::Publish(Box::new(publish))).await {
            return None;
        }
        loop {
            match self.next().await? {
                Packet::PublishAck(ack) if ack.packet_id == packet_id => return Some(ack.reason_code),
                Packet::Publish(publish) => self.take(*publish).await,
                Packet::Disconnect(_) => return None,
                packet => panic!("instead of a PUBACK came {packet:?}"),
            }
        }
    }

    /// Subscribes with QoS 1 and waits for the answer; none when the broker closes instead.
    pub async fn subscribe(&mut self, filters: &[&str]) -> Option<Vec<SubscribeAckReason>> {
        let packet_id = self.packet();
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            ..SubscriptionOptions::default()
        };
        let subscribe = Subscribe {
            packet_id,
            id: None,
            user_properties: Vec::new(),
            topic_filters: filters.iter().map(|filter| ((*filter).into(), options)).collect(),
        };
        if !self.send(Packet::Subscribe(subscribe)).await {
            return None;
        }
        loop {
            match self.next().await? {
                Packet::SubscribeAck(ack) => return Some(ack.status),
                Packet::Publish(publish) => self.take(*publish).await,
                Packet::Disconnect(_) => return None,
                packet => panic!("instead of a SUBACK came {packet:?}"),
            }
        }
    }

    /// The next message; acknowledged.
    pub async fn message(&mut self) -> (String, Bytes) {
        if self.arrived.is_empty() {
            match self.next().await {
                Some(Packet::Publish(publish)) => self.take(*publish).await,
                packet => panic!("instead of a message came {packet:?}"),
            }
        }
        let publish = self.arrived.remove(0);
        (publish.topic.to_string(), publish.payload)
    }

    /// Waits for a message with this payload, past duplicates and older ones.
    pub async fn message_with(&mut self, payload: &str) {
        within(&format!("the message {payload:?}"), async {
            while self.message().await.1 != payload.as_bytes() {}
        })
        .await;
    }

    /// Asks for a sign of life; whatever the broker had to send before, it has sent. Returns what came, none when the broker
    /// has closed.
    pub async fn ping(&mut self) -> Option<Vec<(String, Bytes)>> {
        if !self.send(Packet::PingRequest).await {
            return None;
        }
        loop {
            match self.next().await? {
                Packet::PingResponse => {
                    let arrived = std::mem::take(&mut self.arrived);
                    return Some(
                        arrived
                            .into_iter()
                            .map(|publish| (publish.topic.to_string(), publish.payload))
                            .collect(),
                    );
                }
                Packet::Publish(publish) => self.take(*publish).await,
                Packet::Disconnect(_) => return None,
                packet => panic!("instead of a PINGRESP came {packet:?}"),
            }
        }
    }

    /// Waits for the end; the reason, where the broker gave one.
    pub async fn ended(&mut self) -> Option<DisconnectReasonCode> {
        within("the end of a session", async {
            let mut reason = None;
            while let Some(packet) = self.next().await {
                if let Packet::Disconnect(disconnect) = packet {
                    reason = Some(disconnect.reason_code);
                }
            }
            reason
        })
        .await
    }

    /// Leaves properly: no last will.
    pub async fn leave(mut self) {
        let disconnect = Disconnect {
            reason_code: DisconnectReasonCode::NormalDisconnection,
            session_expiry_interval_secs: None,
            server_reference: None,
            reason_string: None,
            user_properties: Vec::new(),
        };
        self.send(Packet::Disconnect(disconnect)).await;
        let _ = self.io.close().await;
    }

    /// Bytes on the wire behind the CONNECT, whatever they are.
    pub async fn raw(&mut self, bytes: &[u8]) {
        use tokio::io::AsyncWriteExt;
        let _ = self.io.get_mut().write_all(bytes).await;
        let _ = self.io.get_mut().flush().await;
    }

    async fn take(&mut self, publish: Publish) {
        if let Some(packet_id) = publish.packet_id {
            self.send(Packet::PublishAck(PublishAck {
                packet_id,
                reason_code: PublishAckReason::Success,
                properties: Vec::new(),
                reason_string: None,
            }))
            .await;
        }
        self.arrived.push(publish);
    }

    fn packet(&mut self) -> NonZeroU16 {
        self.next_packet = self.next_packet.checked_add(1).unwrap_or(1);
        NonZeroU16::new(self.next_packet).unwrap()
    }
}
