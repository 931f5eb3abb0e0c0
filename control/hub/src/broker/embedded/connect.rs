//! The first packet of a connection: bytes in, the CONNECT or the reason to refuse it out.
//!
//! Guarantees: nothing reaches rmqtt before the client's name, user name and last will were found to be those of its
//! certificate; a refused client is told why with an MQTT reason code.

use super::super::{Ingest, codes};
use bytes::{Bytes, BytesMut};
use holdfast_protocol::{
    NodeId, codes as protocol_codes,
    topic::{Topic, Up, may_publish},
};
use rmqtt::codec::{
    MqttCodec, MqttPacket, v3, v5,
    v5::{Connect, ConnectAck, ConnectAckReason},
    version::{ProtocolVersion, VersionCodec},
};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::codec::{Decoder, Encoder};

/// Most bytes of a CONNECT packet. Names are short and the last will is a few dozen bytes of JSON.
const MAX_CONNECT_BYTES: usize = 16 * 1024;

/// A CONNECT as it came, with whatever was sent right behind it.
pub(super) struct FirstPacket {
    pub(super) connect: Box<Connect>,
    pub(super) bytes: Bytes,
}

/// Why a client is not let in.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
    answer: Option<Box<MqttPacket>>,
}

impl Refusal {
    fn new(code: &'static str, reason: ConnectAckReason, message: impl Into<String>) -> Self {
        let message = message.into();
        let answer = ConnectAck {
            reason_code: reason,
            reason_string: Some(message.as_str().into()),
            ..ConnectAck::default()
        };
        Self {
            code,
            message,
            answer: Some(Box::new(MqttPacket::V5(v5::Packet::ConnectAck(Box::new(answer))))),
        }
    }

    /// What is not MQTT gets no answer.
    fn silent(message: impl Into<String>) -> Self {
        Self {
            code: codes::BROKER_NOT_MQTT,
            message: message.into(),
            answer: None,
        }
    }

    fn old_version() -> Self {
        Self {
            code: codes::BROKER_MQTT_VERSION,
            message: "the client speaks MQTT 3; Holdfast needs MQTT 5".to_owned(),
            answer: Some(Box::new(MqttPacket::V3(v3::Packet::ConnectAck(v3::ConnectAck {
                session_present: false,
                return_code: v3::ConnectAckReason::UnacceptableProtocolVersion,
            })))),
        }
    }

    /// The answer on the wire; empty where none is given.
    pub(super) fn into_bytes(self) -> Bytes {
        let mut bytes = BytesMut::new();
        if let Some(packet) = self.answer {
            let mut codec = match *packet {
                MqttPacket::V3(_) => MqttCodec::V3(v3::Codec::new(0)),
                _ => MqttCodec::V5(v5::Codec::new(0, 0)),
            };
            if codec.encode(*packet, &mut bytes).is_err() {
                bytes.clear();
            }
        }
        bytes.freeze()
    }
}

/// Reads until the CONNECT is whole.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<FirstPacket, Refusal> {
    let mut bytes = BytesMut::new();
    loop {
        if let Some(connect) = decode(&bytes)? {
            return Ok(FirstPacket {
                connect,
                bytes: bytes.freeze(),
            });
        }
        if bytes.len() > MAX_CONNECT_BYTES {
            return Err(Refusal::silent("the first packet is too long"));
        }
        let read = stream.read_buf(&mut bytes).await;
        match read {
            Ok(0) => {
                return Err(Refusal::silent(
                    "the client left before its first packet was whole",
                ));
            }
            Ok(_) => {}
            Err(error) => return Err(Refusal::silent(error.to_string())),
        }
    }
}

fn decode(bytes: &BytesMut) -> Result<Option<Box<Connect>>, Refusal> {
    let malformed = |error: &dyn std::error::Error| Refusal::silent(format!("not MQTT: {error}"));
    let mut copy = bytes.clone();
    match VersionCodec
        .decode(&mut copy)
        .map_err(|error| malformed(&error))?
    {
        None => return Ok(None),
        Some(ProtocolVersion::MQTT3) => return Err(Refusal::old_version()),
        Some(ProtocolVersion::MQTT5) => {}
    }
    let mut codec = v5::Codec::new(MAX_CONNECT_BYTES as u32, MAX_CONNECT_BYTES as u32);
    match codec.decode(&mut copy) {
        Ok(None) => Ok(None),
        Ok(Some((v5::Packet::Connect(connect), _))) => Ok(Some(connect)),
        Ok(Some(_)) => Err(Refusal::silent("the first packet is not a CONNECT")),
        Err(error) => {
            let message = format!("the CONNECT cannot be read: {error}");
            Err(Refusal::new(
                codes::BROKER_NOT_MQTT,
                ConnectAckReason::MalformedPacket,
                message,
            ))
        }
    }
}

/// Holds a CONNECT against the certificate it came with.
pub(super) fn check(node: &NodeId, connect: &Connect) -> Result<(), Refusal> {
    if &*connect.client_id != node.as_str() {
        return Err(Refusal::new(
            codes::BROKER_FOREIGN_CLIENT_ID,
            ConnectAckReason::ClientIdentifierNotValid,
            format!("the certificate is of {node}: the client id must be the same"),
        ));
    }
    if connect
        .username
        .as_ref()
        .is_some_and(|name| &**name != node.as_str())
    {
        return Err(Refusal::new(
            codes::BROKER_FOREIGN_USER_NAME,
            ConnectAckReason::BadUserNameOrPassword,
            format!("the certificate is of {node}: the user name must be the same, or absent"),
        ));
    }
    if connect.auth_method.is_some() {
        return Err(Refusal::new(
            codes::BROKER_AUTHENTICATION_METHOD,
            ConnectAckReason::BadAuthenticationMethod,
            "nodes are known by their certificates alone",
        ));
    }
    // rmqtt publishes a last will without asking its access rules, so it is held against them here.
    if let Some(will) = &connect.last_will {
        let presence = Topic::up(node, Up::Presence).to_string();
        if !may_publish(node, &will.topic) || *will.topic != *presence {
            return Err(Refusal::new(
                codes::BROKER_FOREIGN_LAST_WILL,
                ConnectAckReason::NotAuthorized,
                format!("the last will of {node} may only be on {presence}"),
            ));
        }
    }
    if connect.keep_alive == 0 {
        return Err(Refusal::new(
            codes::BROKER_KEEP_ALIVE,
            ConnectAckReason::ImplementationSpecificError,
            "keep-alive 0 is not allowed: a lost link would never be noticed",
        ));
    }
    Ok(())
}

/// Asks the hub whether it knows the certificate.
pub(super) async fn authorise(node: &NodeId, certificate: &[u8], ingest: &dyn Ingest) -> Result<(), Refusal> {
    ingest.authorise(node, certificate).await.map_err(|problem| {
        let (code, reason) = if problem.code == protocol_codes::CERTIFICATE_REVOKED {
            (protocol_codes::CERTIFICATE_REVOKED, ConnectAckReason::Banned)
        } else {
            (codes::BROKER_NOT_AUTHORISED, ConnectAckReason::NotAuthorized)
        };
        Refusal::new(code, reason, problem.message)
    })
}

/// A certificate that names no node.
pub(super) fn nameless() -> Refusal {
    Refusal::new(
        codes::BROKER_NOT_AUTHORISED,
        ConnectAckReason::NotAuthorized,
        "the certificate's common name is not a node's name",
    )
}

/// The hub has no room or no way to its broker now.
pub(super) fn unavailable(error: &io::Error) -> Refusal {
    Refusal::new(
        codes::BROKER_BUSY,
        ConnectAckReason::ServerBusy,
        format!("no session can be opened now: {error}"),
    )
}
