//! Kubernetes is healthy once its API answers and the box's own node is ready; to apply objects, the API is enough.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result};
use engine_support::{
    app,
    broker::Hub,
    config_map,
    k3s::{EndsWithTest, supervised},
    node::Node,
};
use holdfast::codes;
use holdfast_protocol::report::{Health, StatusReport};
use serde_json::json;

fn blames(code: &'static str) -> impl Fn(&StatusReport) -> bool {
    move |status| {
        let cause = status.kubernetes.cause.as_ref();
        status.kubernetes.health == Health::Progressing && cause.is_some_and(|cause| cause.code == code)
    }
}

/// Says what a kubelet says of its node.
async fn say(node: &Node, ready: &str, reason: &str, message: &str) -> Result<()> {
    let condition = json!({"type": "Ready", "status": ready, "reason": reason, "message": message});
    let patch = json!({"status": {"conditions": [condition]}}).to_string();
    node.kubectl
        .run(&[
            "patch",
            "node",
            &node.name,
            "--subresource=status",
            "--patch",
            &patch,
        ])
        .await
        .map(drop)
}

#[tokio::test]
async fn kubernetes_is_healthy_only_while_its_own_node_is_ready_and_applies_before() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = supervised(&hub, "shop-17").await?;
    let _end = EndsWithTest(node.settings.kubernetes_pid_file());
    // The simulated kubelet is another node, so that ours is as this test says.
    node.settings.kubernetes.extra_args = vec!["--node-name=another".into()];
    node.run().await?;
    node.until("the node is missed", blames(codes::KUBERNETES_NODE_MISSING))
        .await?;

    // Apps do not wait for it.
    let apps = [app("hello", "default", &[config_map("settings", "1")])];
    node.publish(&hub, 1, &apps).await?;
    let status = node.until_proven(1).await?;
    assert_eq!(status.kubernetes.health, Health::Progressing);
    assert_eq!(status.apps[0].health, Health::Healthy);
    assert_eq!(status.health, Health::Progressing);

    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}});
    let file = node.path("node.json");
    std::fs::write(&file, object.to_string())?;
    let file = file.display().to_string();
    node.kubectl.run(&["create", "--filename", &file]).await?;
    node.until("its silence is told", blames(codes::KUBERNETES_NODE_NOT_READY))
        .await?;

    say(&node, "True", "KubeletReady", "kubelet is posting ready status").await?;
    let status = node
        .until("the node is ready", |status| {
            status.kubernetes.health == Health::Healthy
        })
        .await?;
    assert_eq!(status.kubernetes.cause, None);

    say(
        &node,
        "False",
        "KubeletNotReady",
        "container runtime network not ready",
    )
    .await?;
    let status = node
        .until("its trouble is told", blames(codes::KUBERNETES_NODE_NOT_READY))
        .await?;
    assert_eq!(
        status.kubernetes.cause.context("a cause")?.message,
        "node shop-17 is not ready: KubeletNotReady: container runtime network not ready"
    );
    assert_eq!(
        status.apps[0].health,
        Health::Healthy,
        "the app is known all the same"
    );
    node.kubectl.run(&["delete", "node", &node.name]).await?;
    node.until("its loss is told", blames(codes::KUBERNETES_NODE_MISSING))
        .await?;
    node.stop().await
}
