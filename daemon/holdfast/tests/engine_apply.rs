//! Documents against a real Kubernetes: written, pruned, kept up, reported.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result};
use engine_support::{app, broker::Hub, config_map, deployment, namespace, node::Node};
use holdfast_core::codes as core_codes;
use holdfast_protocol::{
    event::EventKind,
    report::{Health, Phase},
};
use serde_json::{Value, json};
use std::time::Instant;

fn resource_version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_published_document_is_applied_proven_and_reported() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "first").await?;
    let objects = [
        deployment("web", "registry.example/web:1"),
        config_map("settings", "1"),
        namespace("first"),
    ];
    let begun = Instant::now();
    node.publish(&hub, 1, &[app("hello", "first", &objects)]).await?;
    let status = node.until_proven(1).await?;
    eprintln!("published to proven: {:?}", begun.elapsed());
    assert_eq!(status.apps.len(), 1);
    assert_eq!((status.apps[0].ready, status.apps[0].objects), (3, 3));
    assert_eq!(status.health, Health::Healthy);

    let web = node
        .object("first", "deployment", "web")
        .await?
        .context("web is there")?;
    assert_eq!(
        web["metadata"]["labels"]["app.kubernetes.io/managed-by"],
        "holdfast"
    );
    for kind in [
        EventKind::Started,
        EventKind::DocumentAccepted,
        EventKind::DocumentApplied,
        EventKind::DocumentProven,
    ] {
        hub.hear_event(kind).await?;
    }
    hub.hear("a report of the proven document", |heard| {
        heard.presence.last() == Some(&true)
            && heard
                .reports
                .last()
                .is_some_and(|report| report.generation.proven.is_some() && report.health == Health::Healthy)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn what_left_the_document_is_deleted_and_what_stayed_costs_no_write() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "pruned").await?;
    let kept = config_map("kept", "1");
    let objects = [namespace("pruned"), kept.clone(), config_map("leaving", "1")];
    node.publish(&hub, 1, &[app("one", "pruned", &objects)]).await?;
    node.until_proven(1).await?;
    let before = node
        .object("pruned", "configmap", "kept")
        .await?
        .context("kept")?;

    let objects = [namespace("pruned"), kept, config_map("new", "1")];
    node.publish(&hub, 2, &[app("one", "pruned", &objects)]).await?;
    node.until_proven(2).await?;
    assert!(node.object("pruned", "configmap", "leaving").await?.is_none());
    assert!(node.object("pruned", "configmap", "new").await?.is_some());
    let after = node
        .object("pruned", "configmap", "kept")
        .await?
        .context("kept")?;
    assert_eq!(resource_version(&before), resource_version(&after));
    let names: Vec<_> = node
        .store()?
        .inventory()?
        .into_iter()
        .map(|entry| entry.key.name)
        .collect();
    assert!(!names.contains(&"leaving".to_owned()), "{names:?}");
    Ok(())
}

#[tokio::test]
async fn a_definition_and_its_objects_come_in_one_document() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "defined").await?;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "pumps.engine.example"},
        "spec": {
            "group": "engine.example", "scope": "Cluster",
            "names": {"plural": "pumps", "singular": "pump", "kind": "Pump"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"rpm": {"type": "integer"}}}}}}
            }]
        }
    });
    let pump = json!({"apiVersion": "engine.example/v1", "kind": "Pump", "metadata": {"name": "main"}, "spec": {"rpm": 3000}});
    node.publish(&hub, 1, &[app("pumps", "default", &[pump, definition])])
        .await?;
    node.until_proven(1).await?;
    let pump = node
        .object("default", "pumps.engine.example", "main")
        .await?
        .context("pump")?;
    assert_eq!(pump["spec"]["rpm"], 3000);

    node.publish(&hub, 2, &[]).await?;
    node.until_proven(2).await?;
    node.kubectl
        .wait(
            "default",
            "crd/pumps.engine.example",
            "delete",
            engine_support::PATIENCE,
        )
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_deleted_and_a_changed_object_are_put_back_and_reported() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "drifting").await?;
    let objects = [
        namespace("drifting"),
        config_map("settings", "right"),
        deployment("web", "registry.example/web:1"),
    ];
    node.publish(&hub, 1, &[app("hello", "drifting", &objects)])
        .await?;
    node.until_proven(1).await?;
    // Controllers have written statuses and other annotations by now; none of that is drift.
    assert!(
        hub.heard()
            .events
            .iter()
            .all(|event| event.kind != EventKind::DriftCorrected)
    );

    let begun = Instant::now();
    node.kubectl
        .run(&[
            "-n",
            "drifting",
            "delete",
            "configmap",
            "settings",
            "--wait=false",
        ])
        .await?;
    let event = hub.hear_event(EventKind::DriftCorrected).await?;
    eprintln!("deleted to corrected and heard: {:?}", begun.elapsed());
    assert!(event.message.contains("settings"), "{}", event.message);
    assert_eq!(
        node.object("drifting", "configmap", "settings")
            .await?
            .context("back")?["data"]["key"],
        "right"
    );

    node.kubectl
        .run(&["-n", "drifting", "scale", "deployment", "web", "--replicas=3"])
        .await?;
    hub.hear("the second correction", |heard| {
        heard
            .events
            .iter()
            .any(|event| event.kind == EventKind::DriftCorrected && event.message.contains("web"))
    })
    .await?;
    assert_eq!(
        node.object("drifting", "deployment", "web")
            .await?
            .context("web")?["spec"]["replicas"],
        1
    );
    Ok(())
}

#[tokio::test]
async fn drift_is_only_reported_where_the_policy_says_so() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "lenient").await?;
    let objects = [namespace("lenient"), config_map("settings", "right")];
    let mut document = node.document(1, &[app("hello", "lenient", &objects)]);
    document["policy"] = json!({"drift": "report"});
    hub.publish("lenient", hub.sign(&document).to_json()).await?;
    node.until_proven(1).await?;
    let patch = r#"{"data":{"key":"wrong"}}"#;
    node.kubectl
        .run(&["-n", "lenient", "patch", "configmap", "settings", "-p", patch])
        .await?;
    hub.hear_event(EventKind::DriftSeen).await?;
    assert_eq!(
        node.object("lenient", "configmap", "settings")
            .await?
            .context("there")?["data"]["key"],
        "wrong"
    );
    Ok(())
}

#[tokio::test]
async fn a_refused_manifest_is_named_and_the_older_document_is_kept_up() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "refused").await?;
    let good = [namespace("refused"), config_map("settings", "1")];
    node.publish(&hub, 1, &[app("hello", "refused", &good)]).await?;
    node.until_proven(1).await?;

    let mut bad = deployment("broken", "registry.example/web:1");
    bad["spec"]["replicas"] = json!("many");
    // Several writes are rehearsed before the first of them; one alone is taken or refused as a whole.
    for (counter, settings, phase) in [(2, "2", Phase::Failed), (3, "1", Phase::RolledBack)] {
        let objects = [
            namespace("refused"),
            config_map("settings", settings),
            bad.clone(),
        ];
        node.publish(&hub, counter, &[app("hello", "refused", &objects)])
            .await?;
        let status = node
            .until("the document failed", |status| {
                let generation = &status.generation;
                generation.accepted.map(|accepted| accepted.counter) == Some(counter)
                    && [Phase::Failed, Phase::RolledBack].contains(&generation.phase)
            })
            .await?;
        assert_eq!(status.generation.phase, phase);
        let cause = status.generation.cause.context("a cause")?;
        assert_eq!(cause.code, core_codes::OBJECT_REFUSED, "{cause}");
        assert!(cause.message.contains("replicas"), "{cause}");
        let first = Some("1.1".parse()?);
        assert_eq!(status.generation.proven, first);
        assert_eq!(status.generation.running, first);
        hub.hear_event(EventKind::DocumentFailed).await?;
        let kept = node.object("refused", "configmap", "settings").await?;
        assert_eq!(kept.context("kept")?["data"]["key"], "1");
    }
    Ok(())
}

#[tokio::test]
async fn a_kind_that_nobody_serves_is_not_in_the_way_of_the_next_document() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "misspelt").await?;
    let misspelt = json!({"apiVersion": "engine.example/v9", "kind": "Pmup", "metadata": {"name": "main"}});
    let objects = [namespace("misspelt"), misspelt];
    node.publish(&hub, 1, &[app("pumps", "misspelt", &objects)])
        .await?;
    node.until("the kind is named", |status| {
        status
            .generation
            .cause
            .as_ref()
            .is_some_and(|cause| cause.code == core_codes::KIND_UNKNOWN)
    })
    .await?;
    node.publish(&hub, 2, &[app("pumps", "misspelt", &[namespace("misspelt")])])
        .await?;
    let status = node.until_proven(2).await?;
    assert_eq!(status.generation.cause, None);
    Ok(())
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_the_first_cause() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "pulling").await?;
    let objects = [namespace("pulling"), deployment("web", "registry.invalid/web:1")];
    node.publish(&hub, 1, &[app("hello", "pulling", &objects)])
        .await?;
    let status = node
        .until("the cause is told", |status| {
            status.apps.iter().any(|app| {
                app.cause
                    .as_ref()
                    .is_some_and(|cause| cause.code == core_codes::IMAGE_PULL_FAILED)
            })
        })
        .await?;
    let cause = status.apps[0].cause.clone().context("a cause")?;
    assert!(cause.message.contains("registry.invalid/web:1"), "{cause}");
    Ok(())
}

#[tokio::test]
async fn pain_21_nothing_is_touched_when_the_same_document_comes_again() -> Result<()> {
    let mut hub = Hub::start().await?;
    let node = Node::start(&hub, "untouched").await?;
    let objects = [
        namespace("untouched"),
        config_map("settings", "1"),
        deployment("web", "registry.example/web:1"),
    ];
    node.publish(&hub, 1, &[app("hello", "untouched", &objects)])
        .await?;
    node.until_proven(1).await?;
    let look = async || -> Result<Vec<String>> {
        let mut versions = Vec::new();
        for (kind, name) in [("configmap", "settings"), ("deployment", "web")] {
            versions.push(resource_version(
                &node.object("untouched", kind, name).await?.context("there")?,
            ));
        }
        let pods = node
            .kubectl
            .run(&[
                "-n",
                "untouched",
                "get",
                "pods",
                "-o",
                "jsonpath={.items[*].metadata.uid}",
            ])
            .await?;
        versions.push(pods);
        Ok(versions)
    };
    let before = look().await?;
    let reports = hub.heard().presence.len();
    // The same bytes once more, and then the retained message again after a lost broker.
    node.publish(&hub, 1, &[app("hello", "untouched", &objects)])
        .await?;
    hub.kill_broker().await?;
    hub.start_broker().await?;
    hub.hear("the node is back", |heard| heard.presence.len() > reports)
        .await?;
    hub.publish(
        "untouched",
        hub.sign(&node.document(1, &[app("hello", "untouched", &objects)]))
            .to_json(),
    )
    .await?;
    node.until_proven(1).await?;
    assert_eq!(before, look().await?);
    let accepted = hub
        .heard()
        .events
        .iter()
        .filter(|event| event.kind == EventKind::DocumentAccepted)
        .count();
    assert_eq!(accepted, 1);
    Ok(())
}
