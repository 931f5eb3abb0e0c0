//! Charts and plans against a real Kubernetes: a chart is as ready as its job; what a document would change is foreseen.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result};
use engine_support::{app, broker::Hub, config_map, namespace, node::Node};
use holdfast::foresee::Basis;
use holdfast_core::codes as core_codes;
use holdfast_protocol::report::{Health, Phase};
use serde_json::{Value, json};

/// The job that k3s's controller would make, with a pod that does what `annotations` say.
fn job(chart: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": format!("helm-install-{chart}"), "namespace": "kube-system"},
        "spec": {"backoffLimit": 0, "template": {
            "metadata": {"annotations": annotations},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "helm", "image": "registry.example/klipper-helm:1"}]},
        }},
    })
}

async fn apply(node: &Node, object: &Value) -> Result<()> {
    let path = node.path("object.json");
    std::fs::write(&path, object.to_string())?;
    node.kubectl
        .run(&["apply", "-f", &path.display().to_string()])
        .await?;
    Ok(())
}

fn chart(name: &str) -> Value {
    json!({
        "apiVersion": "helm.cattle.io/v1", "kind": "HelmChart",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"chartContent": "aGVsbG8=", "targetNamespace": "shop", "createNamespace": true, "valuesContent": "{\"replicas\":2}"},
    })
}

#[tokio::test]
async fn a_chart_is_ready_when_the_job_that_installs_it_is_done() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "chart-done").await?;
    node.publish(&hub, 1, &[app("till", "chart-done", &[chart("till-done")])])
        .await?;
    let waiting = node
        .until("the chart waits for its job", |status| {
            status.generation.phase == Phase::Verifying && status.apps.iter().any(|app| app.cause.is_some())
        })
        .await?;
    let cause = waiting.apps[0].cause.as_ref().context("a cause")?;
    assert!(
        cause.message.contains("HelmChart kube-system/till-done"),
        "{cause}"
    );
    apply(&node, &job("till-done", &json!({}))).await?;
    let proven = node.until_proven(1).await?;
    assert_eq!(
        (proven.apps[0].ready, proven.apps[0].health),
        (1, Health::Healthy)
    );
    Ok(())
}

#[tokio::test]
async fn a_chart_whose_job_failed_is_told_with_the_log_to_look_at() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "chart-failed").await?;
    apply(
        &node,
        &job(
            "till-failed",
            &json!({"testcluster.holdfast/crash": "no such value"}),
        ),
    )
    .await?;
    node.publish(&hub, 1, &[app("till", "chart-failed", &[chart("till-failed")])])
        .await?;
    let told = node
        .until("the failure is told", |status| {
            status.apps.iter().any(|app| app.health == Health::Degraded)
        })
        .await?;
    let cause = told.apps[0].cause.as_ref().context("a cause")?;
    assert!(
        [
            core_codes::CHART_FAILED,
            core_codes::POD_FAILED,
            core_codes::CONTAINER_CRASHES
        ]
        .contains(&cause.code.as_ref()),
        "{cause}"
    );
    Ok(())
}

#[tokio::test]
async fn what_a_document_would_change_is_foreseen_and_nothing_is_changed() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "foreseen").await?;
    let objects = [
        namespace("foreseen"),
        config_map("kept", "1"),
        config_map("leaving", "1"),
    ];
    node.publish(&hub, 1, &[app("one", "foreseen", &objects)]).await?;
    node.until_proven(1).await?;

    let refused = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": "two", "selector": {"matchLabels": {"app": "web"}}, "template": {}},
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "data": {"password": "not base64: till-secret"},
    });
    let unknown = json!({"apiVersion": "example.com/v1", "kind": "Lamp", "metadata": {"name": "red"}});
    let objects = [
        namespace("foreseen"),
        config_map("kept", "2"),
        refused,
        secret,
        unknown,
    ];
    let document = node.document(2, &[app("one", "foreseen", &objects)]);
    let foresight = node.handle()?.foresee(serde_json::from_value(document)?).await?;
    assert_eq!(foresight.basis, Basis::Cluster);
    let names = |list: &[holdfast_core::plan::PlannedObject]| -> Vec<String> {
        list.iter().map(|object| object.key.name.clone()).collect()
    };
    assert_eq!(names(&foresight.plan.prune), ["leaving"]);
    let mut refused: Vec<&str> = foresight
        .refused
        .iter()
        .map(|refusal| refusal.object.key.name.as_str())
        .collect();
    refused.sort_unstable();
    assert_eq!(refused, ["key", "red", "web"]);
    let said = serde_json::to_string(&foresight)?;
    assert!(!said.contains("till-secret"), "{said}");

    let kept = node
        .object("foreseen", "configmap", "kept")
        .await?
        .context("kept")?;
    assert_eq!(
        kept["data"]["value"],
        config_map("kept", "1")["data"]["value"],
        "{kept}"
    );
    assert!(node.object("foreseen", "configmap", "leaving").await?.is_some());
    Ok(())
}
