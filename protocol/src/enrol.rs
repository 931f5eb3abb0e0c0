//! Enrolment and renewal: how a box becomes a node, and stays one.

use crate::{
    Digest, NodeId, SchemaVersion, envelope::Envelope, sealing::SealingKeyStatement, trust::TrustPolicy,
    trust::base64_bytes,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a box sends to `POST /v1/enrol`, over TLS pinned to the CA key that its token names.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolRequest {
    /// Version of this request's schema.
    pub schema: SchemaVersion,
    /// Public name of the token.
    pub token_id: String,
    /// Secret of the token (base64 of 32 bytes).
    #[serde(with = "base64_bytes")]
    pub token_secret: Vec<u8>,
    /// PKCS #10 certificate request in PEM, signed by the device key (ECDSA P-256). Its subject is not looked at: the hub names the node.
    pub csr: String,
    /// The name that the box would like, mostly its host name; the token may say another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_name: Option<NodeId>,
    /// What machine it is.
    #[serde(default)]
    pub hardware: HardwareFacts,
    /// The key that values for this box are sealed to; boxes of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing_key: Option<SealingKeyStatement>,
    /// Fields of a newer minor version.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What the machine says of itself; nothing here is proof of anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct HardwareFacts {
    /// Serial number as the firmware gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Model as the firmware gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `x86_64`, `aarch64`.
    pub architecture: String,
    /// Name and version of the operating system.
    pub operating_system: String,
    /// Number of logical processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// What the hub answers: everything that the box needs from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolAnswer {
    /// Version of this answer's schema.
    pub schema: SchemaVersion,
    /// The name of the node from now on.
    pub node: NodeId,
    /// The node's certificate chain in PEM, its own first.
    pub certificate: String,
    /// The hub's CA certificates in PEM, for all later connections.
    pub ca_certificates: String,
    /// Address of the hub's node API, an `https://` URL.
    pub hub_url: String,
    /// Brokers in the order to try, as `mqtts://host:port`.
    pub brokers: Vec<String>,
    /// Keys that sign documents.
    pub trust: TrustPolicy,
    /// Signed time of the hub: a [`crate::envelope::TimeStatement`].
    pub signed_time: Envelope,
    /// The first desired state, where there is one already: a [`crate::document::DesiredState`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<Envelope>,
    /// Fields of a newer minor version.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Payload type of the signed part of a renewal; see [`RenewRequest::signed_bytes`].
pub const RENEW_TYPE: &str = "application/vnd.holdfast.renew.v1+json";

/// What a node sends to `POST /v1/renew`. An expired certificate is accepted, a revoked one is not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewRequest {
    /// Version of this request's schema.
    pub schema: SchemaVersion,
    /// The node's present certificate in PEM, expired or not.
    pub certificate: String,
    /// New PKCS #10 request in PEM, signed by the same device key.
    pub csr: String,
    /// The node's own time; for the log, never for a decision.
    pub at: Timestamp,
    /// The key that values for this box are sealed to, with a signature of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing_key: Option<SealingKeyStatement>,
    /// ECDSA P-256 signature (ASN.1, SHA-256) of [`Self::signed_bytes`] by the device key (base64).
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
}

impl RenewRequest {
    /// What [`Self::signature`] covers: the DSSE pre-authentication encoding of `certificate NUL csr NUL at` under [`RENEW_TYPE`].
    pub fn signed_bytes(&self) -> Vec<u8> {
        let payload = [self.certificate.as_str(), self.csr.as_str(), &self.at.to_string()]
            .join("\0")
            .into_bytes();
        Envelope {
            payload_type: RENEW_TYPE.to_owned(),
            payload,
            signatures: Vec::new(),
        }
        .pre_authentication_encoding()
    }
}

/// The hub's answer to a renewal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewAnswer {
    /// Version of this answer's schema.
    pub schema: SchemaVersion,
    /// The new certificate chain in PEM.
    pub certificate: String,
    /// The hub's CA certificates in PEM.
    pub ca_certificates: String,
    /// Brokers in the order to try.
    pub brokers: Vec<String>,
    /// Keys that sign documents.
    pub trust: TrustPolicy,
    /// Signed time of the hub.
    pub signed_time: Envelope,
}

/// Hash under which the hub stores a token's secret, and the digest of a key's SubjectPublicKeyInfo (DER) for binding and pinning.
pub fn key_pin(subject_public_key_info: &[u8]) -> Digest {
    Digest::of(subject_public_key_info)
}
