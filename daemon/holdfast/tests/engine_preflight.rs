//! Checks before anything is touched, against a real Kubernetes.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::Result;
use engine_support::{app, broker::Hub, config_map, deployment, namespace, node::Node};
use holdfast::codes;
use holdfast_core::codes as core_codes;
use holdfast_harness::wait;
use holdfast_protocol::report::{Phase, StatusReport};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// A node on which document 1 runs, with one config map in a namespace of its own.
async fn running(hub: &Hub, name: &str) -> Result<Node> {
    let node = Node::start(hub, name).await?;
    node.publish(
        hub,
        1,
        &[app("base", name, &[namespace(name), config_map("kept", "1")])],
    )
    .await?;
    node.until_proven(1).await?;
    Ok(node)
}

/// Document 2, of document 1's objects and these, fails; gives the status.
async fn refused(hub: &Hub, node: &Node, name: &str, objects: &[Value]) -> Result<StatusReport> {
    let base = app("base", name, &[namespace(name), config_map("kept", "2")]);
    node.publish(hub, 2, &[base, app("new", name, objects)]).await?;
    let status = node
        .until("document 2 is refused", |status| {
            status
                .generation
                .accepted
                .is_some_and(|accepted| accepted.counter == 2)
                && status.generation.phase == Phase::Failed
        })
        .await?;
    assert_eq!(status.generation.running.map(|running| running.counter), Some(1));
    let kept = node.object(name, "configmap", "kept").await?.unwrap();
    assert_eq!(kept["data"]["key"], "1", "nothing was touched");
    Ok(status)
}

#[track_caller]
fn cause(status: &StatusReport) -> (String, String) {
    let cause = status.generation.cause.clone().unwrap();
    (cause.code.into_owned(), cause.message)
}

#[tokio::test]
async fn an_object_that_the_api_server_would_refuse_fails_the_document_before_anything_is_touched()
-> Result<()> {
    let hub = Hub::start().await?;
    let node = running(&hub, "refused").await?;
    let mut wrong = deployment("wrong", "registry.example/web:1");
    wrong["spec"]["selector"]["matchLabels"]["app"] = json!("another");
    let status = refused(&hub, &node, "refused", &[config_map("new", "1"), wrong]).await?;
    let (code, message) = cause(&status);
    assert_eq!(code, core_codes::OBJECT_REFUSED);
    assert!(message.contains("wrong"), "{message}");
    assert_eq!(node.object("refused", "configmap", "new").await?, None);
    Ok(())
}

#[tokio::test]
async fn a_version_of_a_kind_that_is_served_no_more_fails_the_document() -> Result<()> {
    let hub = Hub::start().await?;
    let node = running(&hub, "outdated").await?;
    let old = json!({
        "apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "old"},
        "spec": {"backend": {"serviceName": "web", "servicePort": 80}}
    });
    let status = refused(&hub, &node, "outdated", &[old]).await?;
    assert_eq!(cause(&status).0, core_codes::KIND_UNKNOWN);
    Ok(())
}

#[tokio::test]
async fn what_a_document_brings_itself_is_no_reason_to_refuse_it() -> Result<()> {
    let hub = Hub::start().await?;
    let node = running(&hub, "brings").await?;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "valves.preflight.example"},
        "spec": {
            "group": "preflight.example", "scope": "Namespaced",
            "names": {"plural": "valves", "singular": "valve", "kind": "Valve"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}
            }}}]
        }
    });
    let valve = json!({
        "apiVersion": "preflight.example/v1", "kind": "Valve", "metadata": {"name": "main"}, "spec": {"open": true}
    });
    let base = app("base", "brings", &[namespace("brings"), config_map("kept", "1")]);
    let objects = [
        namespace("brings-new"),
        config_map("inside", "1"),
        definition,
        valve,
    ];
    node.publish(&hub, 2, &[base, app("new", "brings-new", &objects)])
        .await?;
    node.until_proven(2).await?;
    assert!(node.object("brings-new", "valve", "main").await?.is_some());
    Ok(())
}

#[tokio::test]
async fn pods_that_ask_for_more_memory_than_the_box_has_fail_the_document() -> Result<()> {
    let hub = Hub::start().await?;
    let node = running(&hub, "greedy").await?;
    let mut greedy = deployment("greedy", "registry.example/web:1");
    greedy["spec"]["template"]["spec"]["containers"][0]["resources"] =
        json!({"requests": {"memory": "900Ti"}});
    let status = refused(&hub, &node, "greedy", &[greedy]).await?;
    let (code, message) = cause(&status);
    assert_eq!(code, codes::MEMORY_INSUFFICIENT, "{message}");
    Ok(())
}

#[tokio::test]
async fn what_is_as_it_was_applied_is_not_checked_again() -> Result<()> {
    let hub = Hub::start().await?;
    let node = running(&hub, "unchanged").await?;
    // From now on, no config map of this namespace may be written.
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "unchanged"},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]
            }]},
            "validations": [{"expression": "false", "message": "no config map may be written"}]
        }
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "unchanged"},
        "spec": {
            "policyName": "unchanged", "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "unchanged"}}}
        }
    });
    let objects = node.path("policy.json");
    std::fs::write(
        &objects,
        json!({"apiVersion": "v1", "kind": "List", "items": [policy, binding]}).to_string(),
    )?;
    node.kubectl
        .run(&["apply", "-f", objects.to_str().unwrap()])
        .await?;
    wait::until("the policy holds", engine_support::PATIENCE, async || {
        let dry = [
            "create",
            "configmap",
            "probe",
            "-n",
            "unchanged",
            "--dry-run=server",
        ];
        Ok(node.kubectl.run(&dry).await.is_err().then_some(()))
    })
    .await?;
    let base = app(
        "base",
        "unchanged",
        &[namespace("unchanged"), config_map("kept", "1")],
    );
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "new"}, "stringData": {"key": "1"}
    });
    node.publish(&hub, 2, &[base, app("new", "unchanged", &[secret])])
        .await?;
    node.until_proven(2).await?;

    // And where it is not, the policy's word comes through.
    let base = app(
        "base",
        "unchanged",
        &[
            namespace("unchanged"),
            config_map("kept", "3"),
            config_map("other", "3"),
        ],
    );
    node.publish(&hub, 3, &[base]).await?;
    let status = node
        .until("document 3 is refused", |status| {
            status.generation.phase == Phase::Failed
        })
        .await?;
    assert_eq!(status.generation.running.map(|running| running.counter), Some(2));
    let (_, message) = cause(&status);
    assert!(message.contains("no config map may be written"), "{message}");
    Ok(())
}

/// A registry that has no image.
async fn empty_registry() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            let answer = format!(
                "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok(port)
}

#[tokio::test]
async fn only_a_registry_that_says_so_makes_an_image_missing() -> Result<()> {
    let hub = Hub::start().await?;
    let port = empty_registry().await?;
    let registry = format!("127.0.0.1:{port}");
    let mut node = Node::enrolled(&hub, "images").await?;
    node.settings
        .artifacts
        .registries
        .insert(registry.clone(), json!({"http": true}));
    node.run().await?;
    // Nobody answers for this name: nothing is known of the image.
    let base = app("base", "images", &[namespace("images"), config_map("kept", "1")]);
    let unknown = app(
        "unknown",
        "images",
        &[deployment("web", "registry.example/web:1")],
    );
    node.publish(&hub, 1, &[base, unknown]).await?;
    node.until_proven(1).await?;
    let status = refused(
        &hub,
        &node,
        "images",
        &[deployment("new", &format!("{registry}/edge/web:1"))],
    )
    .await?;
    let (code, message) = cause(&status);
    assert_eq!(code, codes::IMAGE_NOT_FOUND);
    assert!(message.contains("edge/web:1"), "{message}");
    Ok(())
}
