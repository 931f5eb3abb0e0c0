//! The operator API: what `holdfastctl`, the web page and other tools say to the hub under `/api/v1`.

mod blobs;

pub use blobs::{BeginUpload, BlobInfo, BlobUpload, CollectBlobs, CollectedBlobs};

use crate::{
    Digest, Generation, NodeId, Problem,
    document::{App, K3sSection, OsSection, Policy, Sealed},
    enrol::HardwareFacts,
    report::{Health, StatusReport},
    sealing::SealingPublicKey,
    variable::{ValueRule, Variable},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Labels of a node; keys and values as Kubernetes has them.
pub type Labels = BTreeMap<String, String>;

/// What an operator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OperatorRole {
    /// Everything.
    Admin,
    /// See everything but secrets, change nothing.
    Viewer,
}

/// An operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Operator {
    /// Name, a DNS-1123 label.
    pub name: String,
    /// What they may do.
    pub role: OperatorRole,
    /// When they were added.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
}

/// Asks for a new operator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateOperator {
    /// Name, a DNS-1123 label.
    pub name: String,
    /// What they may do.
    pub role: OperatorRole,
}

/// A new operator with the bearer token, which is shown this once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CreatedOperator {
    /// The operator.
    pub operator: Operator,
    /// Bearer token, `hfop_…`.
    pub bearer_token: String,
}

/// Log-in of a browser: the bearer token becomes a session cookie.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateSession {
    /// Bearer token, `hfop_…`.
    pub bearer_token: String,
}

/// State of an enrolment token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TokenState {
    /// Can be used.
    Open,
    /// A box used it.
    Spent,
    /// Its time is over.
    Expired,
    /// An operator revoked it.
    Revoked,
}

/// An enrolment token as the hub lists it, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct TokenInfo {
    /// Public name.
    pub id: String,
    /// State now.
    pub state: TokenState,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When its time is over.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub expires_at: Timestamp,
    /// Name that its node gets.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub node_name: Option<NodeId>,
    /// Labels that its node gets.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
    /// Serial number that the machine must have.
    pub serial: Option<String>,
    /// The node that spent it.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub spent_by: Option<NodeId>,
}

/// Asks for an enrolment token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CreateToken {
    /// Seconds until its time is over; 24 hours where absent, at most 366 days.
    pub ttl_seconds: Option<u64>,
    /// Name that its node gets; the box's own wish where absent.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub node_name: Option<NodeId>,
    /// Labels that its node gets.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
    /// Serial number that the machine must have.
    pub serial: Option<String>,
}

/// A new enrolment token, shown this once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CreatedToken {
    /// What the hub keeps of it.
    pub info: TokenInfo,
    /// The token, `hf1.…`.
    pub token: String,
}

/// A node as the hub knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// Its name.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "shop-17"))]
    pub id: NodeId,
    /// Its labels.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
    /// What machine it said to be.
    pub hardware: HardwareFacts,
    /// The key that values for it are sealed to, X25519 in base64url; boxes of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub sealing_key: Option<SealingPublicKey>,
    /// When it enrolled.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub enrolled_at: Timestamp,
    /// When its certificate ends.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub certificate_expires_at: Timestamp,
    /// Whether it has a session now.
    pub online: bool,
    /// When the hub last heard of it (hub's clock); the truth about everything below is as old as this.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_heard_at: Option<Timestamp>,
    /// The release that it should run.
    pub release: Option<String>,
    /// The generation that it should run: what was last sent.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "1.42"))]
    pub wanted: Option<Generation>,
    /// The generation that it proved to run, from its last report.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "1.41"))]
    pub proven: Option<Generation>,
    /// The generation that it must be running as far as can be known: the last it was seen to have accepted.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "1.41"))]
    pub accepted: Option<Generation>,
    /// Its health in the last report; unknown before the first.
    pub health: Health,
    /// First cause of not being healthy.
    pub cause: Option<Problem>,
    /// The last report, whole.
    pub status: Option<StatusReport>,
}

/// Changes labels: a value sets, null removes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchLabels {
    /// Keys to set or (null) remove.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Option<String>>))]
    pub labels: BTreeMap<String, Option<String>>,
}

/// Content of a release: what is rendered into each node's document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseContent {
    /// The Kubernetes of the box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub k3s: Option<K3sSection>,
    /// The operating system of the box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub os: Option<OsSection>,
    /// The apps.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub apps: Vec<App>,
    /// How to treat them.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub policy: Policy,
    /// Values that differ between nodes. `${variables.NAME}`, `${node.name}` and `${node.labels.KEY}` in any text of the content and of
    /// its blobs stand for such values; `$${` stands for `${`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub variables: BTreeMap<String, Variable>,
    /// Which nodes get which values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub values: Vec<ValueRule>,
    /// Fields of `k3s`, `os` and `policy` that are no text and take a value of the node: by JSON pointer (`/k3s/nodeAddress`), the placeholder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// Blobs that hold placeholders; the hub sees to it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub templates: BTreeSet<Digest>,
}

/// What a node would be sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RenderedRelease {
    /// The node.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub node: NodeId,
    /// Value of each variable.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub variables: BTreeMap<String, Value>,
    /// The content with all values filled in, and without what only renders it.
    pub content: ReleaseContent,
    /// Objects of blobs, by the blob's digest.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub blobs: BTreeMap<Digest, Vec<Value>>,
}

/// Asks for a release. Blobs that it names must have been uploaded before.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateRelease {
    /// Name, a DNS-1123 label; a release never changes under its name.
    pub name: String,
    /// Its content.
    pub content: ReleaseContent,
}

/// A release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReleaseInfo {
    /// Its name.
    pub name: String,
    /// Digest of its content.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// Names of its apps.
    pub apps: Vec<String>,
    /// Number of nodes that should run it.
    pub nodes: u32,
    /// Its content; only when one release is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ReleaseContent>,
}

/// Gives a release to nodes, at once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AssignRelease {
    /// Nodes by name.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub nodes: Vec<NodeId>,
    /// Nodes by label selector, as kubectl writes them (`site=berlin,tier!=test`); in addition to `nodes`.
    pub selector: Option<String>,
}

/// What an assignment did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Assigned {
    /// The release.
    pub release: String,
    /// Generation that each node was sent.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub generations: BTreeMap<NodeId, Generation>,
}

/// Stores a secret: for each node the value, sealed to its key under the name `secret/NAME`. The hub never sees the value.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PutSecret {
    /// By node: the sealed value. Values of nodes that are not named stay.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Object>))]
    pub values: BTreeMap<NodeId, Sealed>,
}

/// What storing a secret did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StoredSecret {
    /// Name of the secret.
    pub name: String,
    /// Nodes that have a value now, of those that were named.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub nodes: Vec<NodeId>,
    /// Generation that each node was sent whose release uses the secret.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub generations: BTreeMap<NodeId, Generation>,
}

/// A secret as the hub knows it: who has a value, and nothing of the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SecretInfo {
    /// Its name.
    pub name: String,
    /// When it was stored first.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// Nodes that it is sealed to.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, SealedTo>))]
    pub nodes: BTreeMap<NodeId, SealedTo>,
}

/// That a value is sealed to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SealedTo {
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub updated_at: Timestamp,
    /// By whom.
    pub updated_by: String,
    /// Digest of the key that it is sealed to.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub key: Digest,
    /// Whether that is the node's key now; where not, it must be sealed again.
    pub current: bool,
}

/// Something that was done or tried at the hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// Rises with each.
    pub sequence: u64,
    /// When, by the hub's clock.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Who: `operator/NAME`, `node/NAME`, `hub`, or the address of someone unknown.
    pub actor: String,
    /// What: `token.create`, `node.enrol`, `node.enrol.refused`.
    pub action: String,
    /// To what: `token/ID`, `node/NAME`.
    pub subject: String,
    /// In what way, in one line; never a secret.
    pub detail: String,
}

/// Who the caller is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct WhoAmI {
    /// Name of the operator.
    pub name: String,
    /// What they may do.
    pub role: OperatorRole,
}

/// One message of `GET /api/v1/stream`, as server-sent events: the SSE field `event` is [`StreamEvent::name`], the field `data` is
/// the JSON of the variant's content.
///
/// A stream starts with one `tick`. Whoever connects (again) then reads `/api/v1/nodes` once: what changed in between is not sent again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case", tag = "event", content = "data")]
pub enum StreamEvent {
    /// A node is new or changed in any way: the whole of it.
    Node(Box<NodeInfo>),
    /// A node is no longer in the fleet.
    NodeDeleted(NodeDeleted),
    /// Nothing happened, and the link is alive; sent first and then every 10 seconds at least.
    Tick(Tick),
}

/// The node that left the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodeDeleted {
    /// Its name.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: NodeId,
}

/// A sign of life with the hub's clock, so that a reader can tell ages whatever its own clock says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Tick {
    /// The hub's clock.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub now: Timestamp,
}

impl StreamEvent {
    /// Name of the event, for the SSE field `event`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Node(_) => "node",
            Self::NodeDeleted(_) => "node-deleted",
            Self::Tick(_) => "tick",
        }
    }
}
