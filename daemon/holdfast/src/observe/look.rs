//! One look at one object: is it ready, and if not, why.

use crate::kubernetes::{Cluster, KubernetesError};
use holdfast_core::{
    object::ObjectKey,
    readiness::{Readiness, pod_cause, readiness},
};
use holdfast_protocol::report::Health;
use serde_json::Value;
use std::collections::BTreeMap;

/// Whether an object of this kind is ready as soon as it is there. Its content (a secret's, for one) is then never asked for.
pub(super) fn is_ready_by_being_there(key: &ObjectKey) -> bool {
    match key.group() {
        "" => matches!(
            key.kind.as_str(),
            "ConfigMap" | "Secret" | "ServiceAccount" | "LimitRange" | "ResourceQuota" | "Endpoints"
        ),
        "rbac.authorization.k8s.io"
        | "scheduling.k8s.io"
        | "node.k8s.io"
        | "admissionregistration.k8s.io"
        | "storage.k8s.io"
        | "discovery.k8s.io"
        | "coordination.k8s.io" => true,
        _ => false,
    }
}

/// Asks for the object and judges it. An error means that nothing new is known.
pub(super) async fn look(cluster: &Cluster, key: &ObjectKey) -> Result<Readiness, KubernetesError> {
    let Some(object) = cluster.get(key).await? else {
        return Ok(Readiness::missing(key));
    };
    let verdict = readiness(&object);
    if verdict.health == Health::Healthy {
        return Ok(verdict);
    }
    let (Some(namespace), Some(labels)) = (key.namespace.as_deref(), pod_labels(&object)) else {
        return Ok(verdict);
    };
    // What the workload says of itself is "not ready"; its pods know why. Without their word, its own has to do.
    let pods = cluster.pods(namespace, &labels).await.unwrap_or_default();
    Ok(verdict.because_of(pod_cause(&pods, &[])))
}

/// The labels by which a workload finds its pods; none for other objects.
fn pod_labels(object: &Value) -> Option<BTreeMap<String, String>> {
    let kind = object.get("kind").and_then(Value::as_str)?;
    if !["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"].contains(&kind) {
        return None;
    }
    let labels = object.pointer("/spec/selector/matchLabels")?.as_object()?;
    let labels: BTreeMap<_, _> = labels
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    (!labels.is_empty()).then_some(labels)
}
