//! Looks at objects: are they ready, and if not, why.
//!
//! In: keys. Out: readiness of each. It guarantees that a look at many objects of one kind costs a request for each page of them, not for
//! each of them, and that no more than a page of whole objects is in memory.

use super::watches::KindName;
use crate::kubernetes::{Cluster, KubernetesError, cluster::View};
use holdfast_core::{
    object::ObjectKey,
    readiness::{Readiness, chart_job, chart_readiness, pod_cause, readiness},
};
use holdfast_protocol::report::Health;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

/// Whole objects in one page: a few tens of KiB each in memory.
const PAGE: u32 = 25;
/// Of how many workloads that are not ready, out of those looked at together, the pods are asked for the cause. The others say in their own
/// words that they are not ready, and are looked at again.
const CAUSES: usize = 4;

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
    match cluster.get(key).await? {
        Some(object) => Ok(judge(cluster, key, &object, true).await),
        None => Ok(Readiness::missing(key)),
    }
}

/// As [`look`], for many objects of one kind. Those that an error leaves unknown are not in the answer.
pub(super) async fn look_at_many(
    cluster: &Cluster,
    kind: &KindName,
    keys: Vec<ObjectKey>,
) -> Vec<(ObjectKey, Result<Readiness, KubernetesError>)> {
    let mut wanted: HashSet<_> = keys.into_iter().collect();
    let mut answers = Vec::with_capacity(wanted.len());
    match look_through(cluster, kind, &mut wanted, &mut answers).await {
        // What the lists did not name is not there, or no longer ours.
        Ok(()) => answers.extend(wanted.into_iter().map(|key| {
            let missing = Readiness::missing(&key);
            (key, Ok(missing))
        })),
        Err(error) => answers.extend(wanted.into_iter().map(|key| (key, Err(error.clone())))),
    }
    answers
}

async fn look_through(
    cluster: &Cluster,
    kind: &KindName,
    wanted: &mut HashSet<ObjectKey>,
    answers: &mut Vec<(ObjectKey, Result<Readiness, KubernetesError>)>,
) -> Result<(), KubernetesError> {
    let served = cluster.kind(&kind.0, &kind.1).await?;
    let mut causes = CAUSES;
    let mut next = String::new();
    loop {
        let page = cluster.list::<Value>(&served, View::Whole, PAGE, &next).await?;
        for mut object in page.items {
            let text = |field: &str| {
                object
                    .pointer(field)
                    .and_then(Value::as_str)
                    .map(ToOwned::to_owned)
            };
            let key = ObjectKey {
                api_version: kind.0.clone(),
                kind: kind.1.clone(),
                namespace: text("/metadata/namespace"),
                name: text("/metadata/name").unwrap_or_default(),
            };
            let Some(key) = wanted.take(&key) else {
                continue;
            };
            if let Some(fields) = object.as_object_mut() {
                // An object in a list does not say what it is.
                fields.insert("apiVersion".into(), kind.0.clone().into());
                fields.insert("kind".into(), kind.1.clone().into());
            }
            let readiness = judge(cluster, &key, &object, causes > 0).await;
            if readiness.health != Health::Healthy {
                causes = causes.saturating_sub(1);
            }
            answers.push((key, Ok(readiness)));
        }
        next = page.metadata.next;
        if next.is_empty() || wanted.is_empty() {
            return Ok(());
        }
    }
}

async fn judge(cluster: &Cluster, key: &ObjectKey, object: &Value, ask_pods: bool) -> Readiness {
    if key.kind == "HelmChart" && key.group() == "helm.cattle.io" {
        return judge_chart(cluster, key, object).await;
    }
    let verdict = readiness(object);
    if verdict.health == Health::Healthy || !ask_pods {
        return verdict;
    }
    let (Some(namespace), Some(labels)) = (key.namespace.as_deref(), pod_labels(object)) else {
        return verdict;
    };
    // What the workload says of itself is "not ready"; its pods know why. Without their word, its own has to do.
    let pods = cluster.pods(namespace, &labels).await.unwrap_or_default();
    verdict.because_of(pod_cause(&pods, &[]))
}

/// A chart is as far as the job that installs it.
async fn judge_chart(cluster: &Cluster, chart: &ObjectKey, object: &Value) -> Readiness {
    let job = ObjectKey {
        api_version: "batch/v1".into(),
        kind: "Job".into(),
        namespace: chart.namespace.clone(),
        name: chart_job(object),
    };
    let found = cluster.get(&job).await.ok().flatten();
    let verdict = chart_readiness(object, found.as_ref());
    let labels = found.as_ref().and_then(pod_labels);
    let (Some(namespace), Some(labels), true) = (
        job.namespace.as_deref(),
        labels,
        verdict.health != Health::Healthy,
    ) else {
        return verdict;
    };
    let pods = cluster.pods(namespace, &labels).await.unwrap_or_default();
    verdict.because_of(pod_cause(&pods, &[]))
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
