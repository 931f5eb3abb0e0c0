//! The Node object of this box: whether its kubelet says that pods can run here.
//!
//! In: the node's name and a Kubernetes that answers. Out: what is known of the node, whenever that changes. It guarantees: one list, then a
//! watch of that one object; nothing is asked while nothing happens; a refusal of the API server is told like any other state.

use super::{Cluster, KubernetesError};
use crate::pace::Pace;
use futures::StreamExt as _;
use kube::core::WatchEvent;
use serde::Deserialize;
use std::{convert::Infallible, pin::pin, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// First wait before the node is asked for again after an error; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest wait for the first look, which everybody who waits for Kubernetes waits for.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// Longest such wait.
const RETRY_MAX: Duration = Duration::from_mins(1);

/// Which node is ours.
#[derive(Clone, Debug)]
pub struct OwnNode {
    /// As k3s is told.
    pub name: String,
    /// Whether it must be there: not where somebody else runs Kubernetes and nobody said what the node is called.
    pub required: bool,
}

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Nothing yet.
    #[default]
    Nothing,
    /// Pods can run.
    Ready,
    /// It is not there, or not ready, or may not be looked at.
    Not(KubernetesError),
}

impl OwnNode {
    /// What is known of the node now; nothing where that takes long.
    pub async fn look(&self, cluster: &Cluster) -> Seen {
        match timeout(FIRST_LOOK, cluster.named::<Node>(NODES, &self.name)).await {
            Ok(Ok((_, found))) => self.judge(found.as_ref()),
            _ => Seen::Nothing,
        }
    }

    /// Follows the node for as long as this is awaited.
    pub async fn follow(&self, cluster: &Cluster, seen: &watch::Sender<Seen>) -> Infallible {
        let mut pace = Pace::new(RETRY_MIN, RETRY_MAX);
        loop {
            match self.follow_once(cluster, seen).await {
                Ok(()) => pace.reset(),
                Err(error) => {
                    tracing::debug!(%error, node = %self.name, "the node cannot be watched now");
                    // Whether Kubernetes answers at all is asked elsewhere.
                    if !error.is_unreachable() {
                        tell(seen, Seen::Not(error));
                    }
                }
            }
            sleep(pace.next_wait()).await;
        }
    }

    /// Lists and watches until the version that the watch goes on from is too old.
    async fn follow_once(
        &self,
        cluster: &Cluster,
        seen: &watch::Sender<Seen>,
    ) -> Result<(), KubernetesError> {
        let (mut version, found) = cluster.named::<Node>(NODES, &self.name).await?;
        tell(seen, self.judge(found.as_ref()));
        loop {
            let events = cluster.watch_named::<Node>(NODES, &self.name, &version).await?;
            let mut events = pin!(events);
            while let Some(event) = events.next().await {
                match event? {
                    WatchEvent::Added(node) | WatchEvent::Modified(node) => {
                        tell(seen, self.judge(Some(&node)));
                        version = node.metadata.resource_version;
                    }
                    WatchEvent::Deleted(node) => {
                        tell(seen, self.judge(None));
                        version = node.metadata.resource_version;
                    }
                    WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                    WatchEvent::Error(status) => {
                        tracing::debug!(reason = status.reason, "the watch of the node begins anew");
                        return Ok(());
                    }
                }
            }
        }
    }

    fn judge(&self, node: Option<&Node>) -> Seen {
        let node_name = self.name.clone();
        let Some(node) = node else {
            return Seen::Not(KubernetesError::NodeMissing { node: node_name });
        };
        let ready = node.status.conditions.iter().find(|one| one.kind == "Ready");
        let not = |reason: &str, message: &str| {
            Seen::Not(KubernetesError::NodeNotReady {
                node: node_name,
                reason: [reason, message]
                    .into_iter()
                    .filter(|text| !text.is_empty())
                    .collect::<Vec<_>>()
                    .join(": "),
            })
        };
        match ready {
            Some(condition) if condition.status == "True" => Seen::Ready,
            Some(condition) => not(&condition.reason, &condition.message),
            None => not("", "its kubelet has not said anything yet"),
        }
    }
}

/// Path of the collection.
const NODES: &str = "/api/v1/nodes";

fn tell(to: &watch::Sender<Seen>, news: Seen) {
    to.send_if_modified(|seen| {
        let changed = *seen != news;
        *seen = news;
        changed
    });
}

/// The part of a Node that is looked at.
#[derive(Clone, Debug, Deserialize)]
struct Node {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn judged(status: &Value) -> Seen {
        let own = OwnNode {
            name: "shop-17".into(),
            required: true,
        };
        let node = json!({"metadata": {"resourceVersion": "7"}, "status": status});
        own.judge(Some(&serde_json::from_value(node).unwrap()))
    }

    #[test]
    fn a_node_that_is_not_ready_is_named_with_the_words_of_its_kubelet() {
        let seen = judged(&json!({"conditions": [
            {"type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory"},
            {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "container runtime network not ready"},
        ]}));
        let Seen::Not(error) = seen else {
            panic!("{seen:?}")
        };
        assert_eq!(
            error.to_string(),
            "node shop-17 is not ready: KubeletNotReady: container runtime network not ready"
        );
    }

    #[test]
    fn only_ready_true_is_ready() {
        let ready = |status: &str| judged(&json!({"conditions": [{"type": "Ready", "status": status}]}));
        assert_eq!(ready("True"), Seen::Ready);
        assert!(matches!(ready("Unknown"), Seen::Not(_)));
        assert!(matches!(judged(&json!({})), Seen::Not(_)));
    }
}
