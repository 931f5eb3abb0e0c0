//! What the end-to-end scenarios share: small Kubernetes objects, and the times that things may take.

pub mod disk;

use serde_json::{Value, json};
use std::time::Duration;

/// How long a change may take that needs nothing to start.
pub const SOON: Duration = Duration::from_secs(60);

/// A configuration map in the namespace `default`.
pub fn config_map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"value": value},
    })
}

/// A deployment of one replica in the namespace `default`.
pub fn deployment(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
        },
    })
}

/// An image that the simulated kubelet runs and that a real one can pull.
pub const IMAGE: &str = "registry.k8s.io/pause:3.10";
