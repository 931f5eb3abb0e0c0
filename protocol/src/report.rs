//! What a node says of itself: the status report, of which the latest wins, and its presence.

use crate::{Digest, Generation, NodeId, Problem, SchemaVersion};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Health of an app, of Kubernetes, of the whole node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Everything is as it should be.
    Healthy,
    /// On its way, within its deadline.
    Progressing,
    /// Wrong, with a cause.
    Degraded,
    /// Nothing is known.
    #[default]
    Unknown,
}

/// How far the newest accepted document is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No document yet.
    #[default]
    Idle,
    /// Fetching blobs.
    Fetching,
    /// Checking that it can work, before anything is touched.
    Preflight,
    /// Waiting for its maintenance window, or for the end of a pause.
    WaitingForWindow,
    /// Writing the wanted operating system to the slot that does not run. Nothing that runs is touched.
    StagingOs,
    /// Restarting the box into the wanted operating system, and waiting until that counts as good.
    SwitchingOs,
    /// Bringing k3s to the wanted version and configuration.
    SwitchingKubernetes,
    /// Waiting for Kubernetes.
    WaitingForKubernetes,
    /// Writing objects.
    Applying,
    /// Applied; waiting for readiness.
    Verifying,
    /// Applied and ready.
    Committed,
    /// Could not be applied, or was not ready in time; see the cause.
    Failed,
    /// It failed, or a person asked for it: going back to an earlier generation.
    RollingBack,
    /// An earlier generation runs in its place; see the cause.
    RolledBack,
}

/// State of a node, topic `up/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    /// Version of this report's schema.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1.0"))]
    pub schema: SchemaVersion,
    /// Who reports.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "shop-17"))]
    pub node: NodeId,
    /// Rises with every report of this node, over restarts too; a lower one than seen is old news.
    pub sequence: u64,
    /// The node's clock when it reported; see `clock_trusted`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub reported_at: Timestamp,
    /// Whether the node's clock is at or above its persisted floor of signed time.
    pub clock_trusted: bool,
    /// The software of the node.
    pub agent: AgentInfo,
    /// Which documents it has.
    pub generation: GenerationStatus,
    /// Health of the whole: the worst of Kubernetes and apps.
    pub health: Health,
    /// Its operating system, where that comes from an image of Holdfast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<OsStatus>,
    /// Its Kubernetes.
    pub kubernetes: KubernetesStatus,
    /// Its apps, in the document's order.
    pub apps: Vec<AppStatus>,
    /// What is wrong beside that: a rejected document, a full disk.
    pub conditions: Vec<Condition>,
    /// The machine.
    pub machine: MachineFacts,
    /// Fields of a newer minor version.
    #[serde(flatten)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub extra: Map<String, Value>,
}

/// The software of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentInfo {
    /// Version of holdfast.
    pub version: String,
    /// Random id of this start of the machine.
    pub boot_id: String,
    /// `x86_64`, `aarch64`.
    pub architecture: String,
    /// Name and version of the operating system.
    pub operating_system: String,
}

/// Which documents a node has, and how far they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct GenerationStatus {
    /// Newest document that is stored.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "1.42"))]
    pub accepted: Option<Generation>,
    /// Its digest (SHA-256 of the payload).
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub accepted_digest: Option<Digest>,
    /// Newest document whose objects were all written.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub applied: Option<Generation>,
    /// Newest document that was seen applied and ready.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub proven: Option<Generation>,
    /// The document that is kept right on the box now: another one than the accepted one after a rollback, or until that one is begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub running: Option<Generation>,
    /// How far the accepted one is.
    pub phase: Phase,
    /// How much of the present phase is done, where that can be counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<PhaseProgress>,
    /// When the present phase ends by itself: the deadline, the opening of the window, the end of the pause. By the node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub until: Option<Timestamp>,
    /// Until when a person paused changes at the box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub paused_until: Option<Timestamp>,
    /// Why it is not further, where it failed or waits.
    pub cause: Option<Problem>,
}

/// How much of a phase is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PhaseProgress {
    /// Done, in `unit`.
    pub done: u64,
    /// In all, in `unit`.
    pub total: u64,
    /// `bytes`, `objects`, `apps`.
    pub unit: String,
}

/// The operating system of a box that runs an image of Holdfast.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct OsStatus {
    /// Version that runs.
    pub version: String,
    /// The slot that it runs from: `a` or `b`.
    pub slot: String,
    /// Whether this boot was found good; false in the first minutes of each boot.
    pub good: bool,
    /// Version that is whole in the other slot, to go back to or to go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
    /// Versions that were tried and did not come up; they are not tried again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad: Vec<String>,
}

/// Kubernetes on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct KubernetesStatus {
    /// Its health: ready is healthy, starting is progressing.
    pub health: Health,
    /// Its version, where it answers.
    pub version: Option<String>,
    /// Times that Holdfast started it since Holdfast itself started.
    pub restarts: u32,
    /// Why it is not ready.
    pub cause: Option<Problem>,
}

/// State of one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// Name of the app.
    pub name: String,
    /// Its health: the worst of its objects.
    pub health: Health,
    /// Objects that are ready.
    pub ready: u32,
    /// Objects in all.
    pub objects: u32,
    /// First cause of not being healthy: "image can't be pulled: …".
    pub cause: Option<Problem>,
}

/// Something that is wrong for some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is wrong.
    #[serde(flatten)]
    pub problem: Problem,
    /// Since when, by the node's clock.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
}

/// The machine, as far as people ask for it. Bytes are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MachineFacts {
    /// Host name.
    pub hostname: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory in all.
    pub memory_bytes: u64,
    /// Size of the file system that holds the state directory.
    pub disk_bytes: u64,
    /// Free part of it.
    pub disk_free_bytes: u64,
    /// What is written to its flash, and how long that lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flash: Option<FlashFacts>,
}

/// What is written to the flash below the state directory. Totals are of this boot of the machine, those of Holdfast of this start of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FlashFacts {
    /// Name of the device, `mmcblk0`; none where the file system has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// By everybody, to the whole device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<FlashRate>,
    /// By k3s and what it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_kubernetes: Option<FlashRate>,
    /// By Holdfast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_holdfast: Option<FlashRate>,
    /// Part of its life that the device says is used, in percent and in steps of ten; none where it says nothing, as all but eMMC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_used_percent: Option<u8>,
    /// Whether the device says that it is near its end.
    #[serde(default)]
    pub life_warning: bool,
    /// Days until its life is used up, if it is written to as it was since it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days_left: Option<u32>,
}

/// Bytes that were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FlashRate {
    /// In all.
    pub bytes: u64,
    /// In a day at the rate of the last hours, of at most one day; none before ten minutes have passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_day: Option<u64>,
}

/// Whether a node has a session; topic `up/presence`, retained. The last will says `online: false`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    /// Version of this message's schema.
    pub schema: SchemaVersion,
    /// True from the start of a session to its end.
    pub online: bool,
}
