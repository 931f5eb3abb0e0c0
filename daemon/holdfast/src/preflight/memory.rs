//! Whether the memory that the document's pods ask for is there.
//!
//! Counted is what the scheduler counts (<https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers>):
//! requests, not use. Pods that are not of this document keep what they have.

use super::{Look, quantity::bytes, refused};
use crate::codes;
use holdfast_core::{
    failure::Failure,
    object::{ObjectKey, PreparedObject},
};
use holdfast_protocol::Problem;
use serde_json::Value;
use std::collections::HashSet;

/// What runs already, for the checks to come.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// Images that some container runs with or that a node names as present.
    pub(super) images: HashSet<String>,
}

/// Checks the memory. Gives what runs already, or nothing where the document changes no pods.
pub(super) async fn check(look: &Look<'_>) -> Result<Option<Present>, Failure> {
    if !look.changed().any(|object| template(&object.key.kind).is_some()) {
        return Ok(None);
    }
    let ask = |error: crate::kubernetes::KubernetesError| Failure::of_document(error.problem(), true);
    let mut present = Present::default();
    let mut allocatable = Vec::new();
    look.cluster
        .all("/api/v1/nodes", |node: Value| {
            for image in list(&node, "/status/images") {
                let names = list(image, "/names").filter_map(Value::as_str);
                present.images.extend(names.map(str::to_owned));
            }
            let unschedulable = node.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
            if !unschedulable {
                allocatable.extend(node.pointer("/status/allocatable/memory").and_then(bytes));
            }
        })
        .await
        .map_err(ask)?;
    let Some(largest) = allocatable.iter().max().copied() else {
        // No node has registered yet.
        return Ok(Some(present));
    };
    let mut wanted: u64 = 0;
    for object in look.objects {
        let Some(pods) = Pods::of(object, allocatable.len() as u64) else {
            continue;
        };
        if pods.memory > largest && !look.document.isolated.contains(&object.app) {
            return Err(too_much(look, &object.key, pods.memory, largest));
        }
        wanted = wanted.saturating_add(pods.memory.saturating_mul(pods.count));
    }
    let ours: HashSet<_> = look
        .objects
        .iter()
        .map(|object| &object.key)
        .chain(look.owned.iter().copied())
        .collect();
    let mut foreign: u64 = 0;
    look.cluster
        .all("/api/v1/pods", |pod: Value| {
            let phase = pod.pointer("/status/phase").and_then(Value::as_str);
            if phase == Some("Running") {
                for container in list(&pod, "/spec/containers") {
                    present
                        .images
                        .extend(container["image"].as_str().map(str::to_owned));
                }
            }
            let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
            if !has_ended && !is_ours(&pod, &ours) {
                foreign = foreign.saturating_add(pod.get("spec").map_or(0, memory_of));
            }
        })
        .await
        .map_err(ask)?;
    let total: u64 = allocatable.iter().sum();
    if wanted.saturating_add(foreign) <= total {
        return Ok(Some(present));
    }
    let problem = Problem::new(
        codes::MEMORY_INSUFFICIENT,
        format!(
            "the pods of document {} ask for {} MiB of memory, other pods for {} MiB, and the box has {} MiB for pods",
            look.document.generation,
            wanted >> 20,
            foreign >> 20,
            total >> 20
        ),
        "lower resources.requests.memory or replicas in the release, or use a larger box",
    );
    // Other pods may go away.
    Err(Failure::of_document(problem, wanted <= total))
}

fn too_much(look: &Look<'_>, key: &ObjectKey, asked: u64, largest: u64) -> Failure {
    let failure = refused(
        codes::MEMORY_INSUFFICIENT,
        format!(
            "{key} of document {}: a pod asks for {} MiB of memory, and the largest node has {} MiB for pods",
            look.document.generation,
            asked >> 20,
            largest >> 20
        ),
        "lower resources.requests.memory in the release, or use a larger box",
    );
    Failure {
        key: Some(key.clone()),
        ..failure
    }
}

/// Pods of one workload.
#[derive(Debug, PartialEq, Eq)]
struct Pods {
    count: u64,
    /// Bytes that each asks for.
    memory: u64,
}

impl Pods {
    fn of(object: &PreparedObject, nodes: u64) -> Option<Self> {
        let path = template(&object.key.kind)?;
        let body: Value = serde_json::from_str(&object.json).ok()?;
        let number = |pointer| body.pointer(pointer).and_then(Value::as_u64).unwrap_or(1);
        let count = match object.key.kind.as_str() {
            "Deployment" | "StatefulSet" | "ReplicaSet" => number("/spec/replicas"),
            "Job" => number("/spec/parallelism"),
            // It runs on every node, and a node that its selector leaves out is rare on a box.
            "DaemonSet" => nodes,
            // Its pods come and go.
            "CronJob" => 0,
            _ => 1,
        };
        let memory = body.pointer(path).map_or(0, memory_of);
        Some(Self { count, memory })
    }
}

/// Where a kind has its pods' specification.
pub(super) fn template(kind: &str) -> Option<&'static str> {
    match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => Some("/spec/template/spec"),
        "CronJob" => Some("/spec/jobTemplate/spec/template/spec"),
        "Pod" => Some("/spec"),
        _ => None,
    }
}

/// Bytes of memory that a pod asks for.
fn memory_of(spec: &Value) -> u64 {
    let stays = |container: &Value| container["restartPolicy"] == "Always";
    let main: u64 = list(spec, "/containers").map(request).sum();
    let mut beside: u64 = 0;
    let mut first: u64 = 0;
    for container in list(spec, "/initContainers") {
        let asked = request(container);
        if stays(container) {
            beside = beside.saturating_add(asked);
        } else {
            first = first.max(beside.saturating_add(asked));
        }
    }
    let overhead = spec.pointer("/overhead/memory").and_then(bytes).unwrap_or(0);
    main.saturating_add(beside).max(first).saturating_add(overhead)
}

fn request(container: &Value) -> u64 {
    // A limit without a request is the request too.
    ["/resources/requests/memory", "/resources/limits/memory"]
        .iter()
        .find_map(|path| container.pointer(path).and_then(bytes))
        .unwrap_or(0)
}

pub(super) fn list<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    value
        .pointer(path)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Whether a pod, or what made it, is an object of the document or of the one before.
fn is_ours(pod: &Value, ours: &HashSet<&ObjectKey>) -> bool {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let namespace = text("/metadata/namespace");
    let has = |kind: &str, name: &str| {
        ours.iter().any(|key| {
            key.kind == kind && key.name == name && key.namespace.as_deref().unwrap_or("default") == namespace
        })
    };
    if has("Pod", text("/metadata/name")) {
        return true;
    }
    let owner = |owner: &Value| {
        let kind = owner["kind"].as_str().unwrap_or_default();
        let name = owner["name"].as_str().unwrap_or_default();
        // A Deployment makes ReplicaSets and a CronJob Jobs, each with its own name, a hyphen and one more word.
        let maker = name.rsplit_once('-').map_or("", |(maker, _)| maker);
        has(kind, name)
            || (kind == "ReplicaSet" && has("Deployment", maker))
            || (kind == "Job" && has("CronJob", maker))
    };
    list(pod, "/metadata/ownerReferences").any(owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_asks_for_what_the_scheduler_counts() {
        let asks = |amount: &str| json!({"resources": {"requests": {"memory": amount}}});
        assert_eq!(
            memory_of(&json!({"containers": [asks("1Mi"), asks("2Mi")]})),
            3 << 20
        );
        let first = json!({"containers": [asks("1Mi")], "initContainers": [asks("5Mi"), asks("4Mi")]});
        assert_eq!(memory_of(&first), 5 << 20);
        let mut beside = asks("2Mi");
        beside["restartPolicy"] = json!("Always");
        let both = json!({"containers": [asks("1Mi")], "initContainers": [beside, asks("5Mi")]});
        assert_eq!(memory_of(&both), 7 << 20);
        let limit = json!({"containers": [{"resources": {"limits": {"memory": "8Mi"}}}], "overhead": {"memory": "1Mi"}});
        assert_eq!(memory_of(&limit), 9 << 20);
        assert_eq!(memory_of(&json!({"containers": [{}]})), 0);
    }

    #[test]
    fn a_pod_is_ours_by_what_made_it() {
        let key = |kind: &str, name: &str| ObjectKey {
            api_version: "apps/v1".into(),
            kind: kind.into(),
            namespace: Some("shop".into()),
            name: name.into(),
        };
        let (deployment, cron) = (key("Deployment", "web-shop"), key("CronJob", "night"));
        let ours = HashSet::from([&deployment, &cron]);
        let pod = |namespace: &str, kind: &str, name: &str| json!({"metadata": {"name": "x", "namespace": namespace, "ownerReferences": [{"kind": kind, "name": name}]}});
        assert!(is_ours(&pod("shop", "ReplicaSet", "web-shop-5d8c7"), &ours));
        assert!(is_ours(&pod("shop", "Job", "night-29011"), &ours));
        assert!(!is_ours(&pod("other", "ReplicaSet", "web-shop-5d8c7"), &ours));
        assert!(!is_ours(&pod("shop", "ReplicaSet", "db-5d8c7"), &ours));
        assert!(!is_ours(
            &json!({"metadata": {"name": "x", "namespace": "shop"}}),
            &ours
        ));
    }
}
