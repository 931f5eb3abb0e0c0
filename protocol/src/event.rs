//! Things that happened on a node, in order, never lost while its outbox has room: topic `up/event`.

use crate::{Generation, NodeId, Problem, SchemaVersion};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How much an event matters to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Normal course of things.
    Info,
    /// Worth a look.
    Warning,
    /// Someone should act.
    Alarm,
}

/// Kind of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The daemon started.
    Started,
    /// A document was stored.
    DocumentAccepted,
    /// A document was refused; the problem says why.
    DocumentRejected,
    /// All objects of a document were written.
    DocumentApplied,
    /// All apps of a document are ready.
    DocumentProven,
    /// A document failed; the problem says why.
    DocumentFailed,
    /// The node went back to an earlier generation; the problem says why.
    DocumentRolledBack,
    /// An app failed alone, by its own wish.
    AppFailed,
    /// A person paused changes at the box, or ended the pause.
    Paused,
    /// Another operating system was written to the slot that does not run.
    OsStaged,
    /// The box runs another operating system, and it was found good.
    OsSwitched,
    /// Another operating system did not come up; the box runs the earlier one. The problem says what was wrong with it.
    OsRolledBack,
    /// The machine was started; `details` say why the boot before ended, and which slot and version run.
    Booted,
    /// The box was set back to how it left the factory.
    FactoryReset,
    /// k3s was brought to another version.
    KubernetesSwitched,
    /// A damaged part of Kubernetes was set aside and rebuilt.
    KubernetesHealed,
    /// An object was changed or deleted by someone else and put back.
    DriftCorrected,
    /// An object was changed or deleted by someone else and left so by policy.
    DriftSeen,
    /// Kubernetes became ready.
    KubernetesReady,
    /// Kubernetes stopped answering or ended.
    KubernetesLost,
    /// The certificate was renewed.
    CertificateRenewed,
    /// Events were dropped because the outbox was full; `details.count` says how many.
    EventsDropped,
    /// A local store was damaged and set aside.
    StoreQuarantined,
    /// Something else is wrong; the problem says what.
    Problem,
    /// A kind of a newer minor version.
    #[serde(untagged)]
    Other(String),
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Version of this event's schema.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1.0"))]
    pub schema: SchemaVersion,
    /// Where it happened.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "shop-17"))]
    pub node: NodeId,
    /// Rises by one with each event of this node, over restarts too; the hub knows doubles by it.
    pub sequence: u64,
    /// When, by the node's clock.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// What kind.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// What happened, in one line.
    pub message: String,
    /// The document it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub generation: Option<Generation>,
    /// What is wrong, where something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// More of it, by kind.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub details: Map<String, Value>,
}
