//! What the local API shows: the forms of its answers, and the seam to the running node.

use crate::foresee::Foresight;
use crate::health::Check;
use crate::reconcile::orders::{Paused, Resumed, RollingBack};
use crate::sync::LinkState;
use futures::future::BoxFuture;
use holdfast_core::plan::Plan;
use holdfast_protocol::{Generation, NodeId, Problem, document::DesiredState, report::StatusReport};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What a node that is enrolled and runs can be asked.
pub trait RunningNode: Send + Sync {
    /// Its state, as it would be reported now.
    fn status(&self) -> StatusReport;

    /// Its link to the broker.
    fn link(&self) -> LinkView;

    /// Whether Kubernetes and the apps are as they were before this start of the machine.
    fn health(&self) -> Vec<Check>;

    /// Ends when something that [`Self::health`] looks at changed.
    fn changed(&self) -> BoxFuture<'_, ()>;

    /// What is told only on the box itself.
    fn details(&self) -> NodeDetails;

    /// What would change in Kubernetes, by the newest accepted document.
    fn plan(&self) -> BoxFuture<'_, Result<Plan, Problem>>;

    /// What a document that nobody sent would change.
    fn foresee(&self, document: DesiredState) -> BoxFuture<'_, Result<Foresight, Problem>>;

    /// Makes no changes for some time.
    fn pause(&self, order: PauseOrder) -> BoxFuture<'_, Result<Paused, Problem>>;

    /// Ends a pause.
    fn resume(&self) -> BoxFuture<'_, Result<Resumed, Problem>>;

    /// Goes back to an earlier document. Answers when the way back has begun.
    fn roll_back(&self, order: RollbackOrder) -> BoxFuture<'_, Result<RollingBack, Problem>>;
}

/// What is told only on the box itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeDetails {
    /// The document that the node goes back to where the newest fails, or is going back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Generation>,
    /// Why a person paused changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_reason: Option<String>,
}

/// Body of `POST /v1/pause`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PauseOrder {
    /// How long; 1 to 2,592,000 (30 days).
    pub seconds: u64,
    /// Why, for whoever reads it in the hub.
    #[serde(default)]
    pub reason: String,
}

/// Body of `POST /v1/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RollbackOrder {
    /// The document to go back to; the last good one before the present one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
}

/// The link to the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkView {
    /// Whether the settings want one at all.
    pub enabled: bool,
    /// Whether there is a session.
    pub connected: bool,
    /// The broker, of this session or of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
    /// Why there is no session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Problem>,
    /// Events that wait for the link.
    pub waiting_events: u64,
}

impl LinkView {
    /// What is shown of a link that the settings want or not.
    #[must_use]
    pub fn of(state: &LinkState, enabled: bool, waiting_events: u64) -> Self {
        Self {
            enabled,
            connected: state.connected,
            broker: state.broker.clone(),
            cause: state.cause.clone(),
            waiting_events,
        }
    }
}

/// Answer of `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalStatus {
    /// Version of the daemon.
    pub version: Cow<'static, str>,
    /// Whether the box is enrolled.
    pub enrolled: bool,
    /// Its name, once it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Its hub, once it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_url: Option<String>,
    /// When its certificate ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_until: Option<Timestamp>,
    /// Why it is not enrolled, where it tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment_problem: Option<Problem>,
    /// The factory reset that was ordered and waits for the next start of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factory_reset: Option<Problem>,
    /// Its link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkView>,
    /// What it reports to the hub; absent until the node runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<StatusReport>,
    /// What it reports to nobody.
    #[serde(flatten)]
    pub details: NodeDetails,
}

/// Body of `POST /v1/enrol`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnrolOrder {
    /// The token's text.
    pub token: String,
}

/// Answer of `POST /v1/enrol`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolResult {
    /// The name of the node from now on.
    pub node: NodeId,
    /// Its hub.
    pub hub_url: String,
    /// What a person should still do, such as removing a spent token from a boot configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}
