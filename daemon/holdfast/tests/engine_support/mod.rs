//! What the engine's tests stand on: a real Kubernetes (one for each test binary), a real mosquitto with mutual TLS, a hub's side that signs and
//! publishes, and nodes that run in this process.
#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods)]

pub mod broker;
pub mod cluster;
pub mod daemon;
pub mod k3s;
pub mod node;
pub mod systemd;

use serde_json::{Value, json};
use std::time::Duration;

/// Long enough for the slowest step on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A config map.
pub fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": value}})
}

/// A deployment with one replica.
pub fn deployment(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": image}]}
            }
        }
    })
}

/// A namespace.
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// An app with inline objects.
pub fn app(name: &str, namespace: &str, objects: &[Value]) -> Value {
    json!({"name": name, "namespace": namespace, "manifests": [{"inline": objects}]})
}
