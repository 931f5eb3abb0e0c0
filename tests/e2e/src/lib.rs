//! What the end-to-end scenarios share: small Kubernetes objects, an app that runs, and the times that things may take.

pub mod disk;

use anyhow::{Context as _, Result};
use holdfast_harness::{Node, Site, site::KUBERNETES};
use holdfast_protocol::Generation;
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

/// The objects of [`run_web`]: the deployment `web` and the configuration map `page` with this value.
pub fn web(page: &str) -> Vec<Value> {
    vec![config_map("page", page), deployment("web", IMAGE)]
}

/// Releases [`web`] with page `1` under the name `one` to this node, waits until it is proven, and gives its generation.
pub async fn run_web(site: &Site, node: &str) -> Result<Generation> {
    site.hub.create_release("one", "web", web("1")).await?;
    let generation = site.hub.assign("one", node).await?;
    site.hub.wait_for_proven(node, generation, KUBERNETES).await?;
    Ok(generation)
}

/// The identity of the running deployment `web`; another one means that it was replaced.
pub async fn web_uid(node: &Node) -> Result<Value> {
    let web = node.kubectl.get("default", "deployment", "web").await?;
    Ok(web.context("the deployment is gone")?["metadata"]["uid"].clone())
}

/// The value of the configuration map `page`.
pub async fn page(node: &Node) -> Result<Value> {
    let page = node.kubectl.get("default", "configmap", "page").await?;
    Ok(page.context("the page is gone")?["data"]["value"].clone())
}
