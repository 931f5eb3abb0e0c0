//! A thousand objects as a site of some apps has them: of eleven kinds, in ten namespaces, with a definition of a kind and objects of it.
//!
//! In: a name that tells one set from another. Out: the objects, and where a bare client sends each of them. It guarantees that two sets have
//! no object in common, and that nothing runs: what is measured is writing, not starting containers.

use anyhow::{Context as _, Result};
use holdfast_harness::Hub;
use holdfast_protocol::{
    document::{App, BlobRef, ManifestSource, Policy},
    operator::ReleaseContent,
};
use serde_json::{Value, json};

/// How many objects a set has.
pub const COUNT: usize = 1_000;
/// Namespaces of a set.
const NAMESPACES: usize = 10;
/// Group of the kind that a set defines.
const GROUP: &str = "bench.example";

/// A set.
pub struct Set {
    /// What has to be there before the others: namespaces and the definition.
    pub first: Vec<Value>,
    /// The others.
    pub others: Vec<Value>,
    name: String,
}

impl Set {
    /// The set of this name.
    pub fn new(name: &str) -> Self {
        let namespace = |number: usize| format!("{name}-{}", number % NAMESPACES);
        let mut first: Vec<_> = (0..NAMESPACES)
            .map(|number| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace(number)}}))
            .collect();
        first.push(definition(name));
        let mut others = Vec::new();
        let mut add = |count: usize, object: &dyn Fn(usize) -> Value| {
            for number in 0..count {
                let mut object = object(number);
                object["metadata"]["name"] = format!(
                    "{}-{number}",
                    object["kind"].as_str().unwrap_or_default().to_lowercase()
                )
                .into();
                if object["kind"] == "ClusterRole" {
                    object["metadata"]["name"] = format!("{name}-{number}").into();
                } else {
                    object["metadata"]["namespace"] = namespace(number).into();
                }
                others.push(object);
            }
        };
        add(
            300,
            &|number| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"number": number.to_string(), "page": "x".repeat(200 + number)}}),
        );
        add(
            150,
            &|number| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "type": "Opaque", "stringData": {"password": format!("not-a-secret-{number}")}}),
        );
        add(100, &|number| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {
                "clusterIP": "None", "selector": {"app": format!("web-{number}")}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]
            }})
        });
        add(100, &deployment);
        add(
            100,
            &|number| json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind_of(name), "metadata": {}, "spec": {"rpm": number, "site": "north"}}),
        );
        add(
            70,
            &|_| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {}}),
        );
        add(70, &|_| {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {}, "rules": [
                {"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["get", "list", "watch"]}
            ]})
        });
        add(70, &|number| {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": format!("role-{number}")},
                "subjects": [{"kind": "ServiceAccount", "name": format!("serviceaccount-{number}")}]
            })
        });
        let left = COUNT - first.len() - 300 - 150 - 100 * 3 - 70 * 3;
        add(left, &|_| {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {}, "rules": [
                {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
            ]})
        });
        Self {
            first,
            others,
            name: name.to_owned(),
        }
    }

    /// Name of the definition in it.
    pub fn definition(&self) -> String {
        format!("{}.{GROUP}", plural(&self.name))
    }

    /// Path of an object of this set for a bare client.
    pub fn path(&self, object: &Value) -> Result<String> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let version = text("/apiVersion").context("apiVersion")?;
        let root = if version.contains('/') { "/apis" } else { "/api" };
        let kind = text("/kind").context("kind")?.to_lowercase();
        let plural = if kind == kind_of(&self.name).to_lowercase() {
            plural(&self.name)
        } else {
            format!("{kind}s")
        };
        let name = text("/metadata/name").context("name")?;
        Ok(match text("/metadata/namespace") {
            Some(namespace) => format!("{root}/{version}/namespaces/{namespace}/{plural}/{name}"),
            None => format!("{root}/{version}/{plural}/{name}"),
        })
    }

    /// The whole set as a release, kept in a blob of the hub.
    pub async fn release(&self, hub: &Hub) -> Result<ReleaseContent> {
        let all: Vec<_> = self.first.iter().chain(&self.others).collect();
        let content = serde_json::to_vec(&all)?;
        let size = content.len() as u64;
        let digest = hub.put_blob(content).await?;
        Ok(ReleaseContent {
            apps: vec![App {
                name: "thousand".into(),
                manifests: vec![ManifestSource::Blob(BlobRef { digest, size })],
                ..App::default()
            }],
            policy: Policy::default(),
            ..ReleaseContent::default()
        })
    }
}

fn kind_of(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

fn plural(name: &str) -> String {
    format!("{name}s")
}

fn definition(name: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{GROUP}", plural(name))},
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {"plural": plural(name), "singular": name, "kind": kind_of(name)},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {
                    "rpm": {"type": "integer"}, "site": {"type": "string"}
                }}}
            }}}]
        }
    })
}

/// A workload of no replica, with about as many fields as real ones have.
fn deployment(number: usize) -> Value {
    let app = format!("web-{number}");
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"labels": {"app": app}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": app}},
            "template": {
                "metadata": {"labels": {"app": app}},
                "spec": {
                    "serviceAccountName": "default",
                    "containers": [{
                        "name": "main", "image": "registry.example/web:1",
                        "args": ["--listen", "0.0.0.0:8080"],
                        "env": [{"name": "SITE", "value": "north"}, {"name": "NUMBER", "value": number.to_string()}],
                        "ports": [{"name": "http", "containerPort": 8080}],
                        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
                        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
                        "volumeMounts": [{"name": "settings", "mountPath": "/settings"}]
                    }],
                    "volumes": [{"name": "settings", "configMap": {"name": format!("configmap-{number}")}}]
                }
            }
        }
    })
}
