//! What is not asked and not written, against a real Kubernetes: and that nothing is missed by that.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result};
use engine_support::{PATIENCE, app, broker::Hub, config_map, deployment, namespace, node::Node};
use holdfast_harness::{Kubectl, wait};
use holdfast_protocol::event::EventKind;
use serde_json::{Value, json};
use std::cell::Cell;

/// How many requests the API server has answered for objects of a resource, with these verbs.
async fn requests(kubectl: &Kubectl, resource: &str, verbs: &[&str]) -> Result<f64> {
    let text = kubectl.run(&["get", "--raw", "/metrics"]).await?;
    let count = |line: &str| {
        let (labels, value) = line.strip_prefix("apiserver_request_total{")?.split_once("} ")?;
        let has = |name: &str, value: &str| labels.contains(&format!("{name}=\"{value}\""));
        let counts =
            has("resource", resource) && has("subresource", "") && verbs.iter().any(|verb| has("verb", verb));
        counts.then(|| value.parse::<f64>().ok()).flatten()
    };
    Ok(text.lines().filter_map(count).sum())
}

/// Runs kubectl with a manifest.
async fn kubectl_with(node: &Node, arguments: &[&str], object: &Value) -> Result<String> {
    let path = node.path("manifest.json");
    std::fs::write(&path, object.to_string())?;
    let path = path.to_string_lossy();
    let arguments: Vec<_> = arguments.iter().copied().chain(["-f", &*path]).collect();
    node.kubectl.run(&arguments).await
}

#[tokio::test]
async fn drift_of_the_time_without_the_node_is_put_back_without_a_request_for_each_object() -> Result<()> {
    // Secrets, for nobody else in this binary touches them.
    let secret = |number: usize, value: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("s-{number}")}, "data": {"key": value}});
    let hub = Hub::start().await?;
    let mut node = Node::start(&hub, "thrift-down").await?;
    let mut objects: Vec<_> = (0..40).map(|number| secret(number, "b25l")).collect();
    objects.push(namespace("thrift-down"));
    node.publish(&hub, 1, &[app("many", "thrift-down", &objects)])
        .await?;
    node.until_proven(1).await?;
    node.stop().await?;

    let in_namespace = ["-n", "thrift-down"];
    let patch = r#"{"data":{"key":"dHdv"}}"#;
    node.kubectl
        .run(&["-n", "thrift-down", "patch", "secret", "s-0", "-p", patch])
        .await?;
    node.kubectl
        .run(&["-n", "thrift-down", "delete", "secret", "s-1", "s-2"])
        .await?;
    // Made anew by somebody else, with the same content.
    kubectl_with(
        &node,
        &[&in_namespace[..], &["create"]].concat(),
        &secret(2, "b25l"),
    )
    .await?;
    let foreign = node
        .object("thrift-down", "secret", "s-2")
        .await?
        .context("s-2")?;

    let count = async |verbs: &[&str]| requests(&node.kubectl, "secrets", verbs).await;
    let before = (
        count(&["GET"]).await?,
        count(&["APPLY"]).await?,
        count(&["LIST"]).await?,
    );
    let mut node_again = node;
    node_again.run().await?;
    let node = node_again;
    hub.hear_event(EventKind::DriftCorrected).await?;
    let repaired = async || -> Result<Option<()>> {
        let done = requests(&node.kubectl, "secrets", &["APPLY"]).await? - before.1 >= 3.0;
        Ok(done.then_some(()))
    };
    wait::until("three objects are written again", PATIENCE, repaired).await?;
    let count = async |verbs: &[&str]| requests(&node.kubectl, "secrets", verbs).await;
    assert!(
        count(&["GET"]).await? - before.0 < 1.0,
        "no request for each object"
    );
    // One of them may be told of twice: as a change, and as another object.
    assert!(
        count(&["APPLY"]).await? - before.1 <= 6.0,
        "no write of what is as it was"
    );
    assert!(count(&["LIST"]).await? - before.2 <= 2.0, "one list");

    for name in ["s-0", "s-1", "s-2"] {
        let object = node.object("thrift-down", "secret", name).await?.context(name)?;
        assert_eq!(object["data"]["key"], "b25l", "{name}");
        assert_eq!(
            object["metadata"]["labels"]["app.kubernetes.io/managed-by"],
            "holdfast"
        );
    }
    let taken = node
        .object("thrift-down", "secret", "s-2")
        .await?
        .context("s-2")?;
    assert_eq!(taken["metadata"]["uid"], foreign["metadata"]["uid"]);
    Ok(())
}

#[tokio::test]
async fn an_older_state_of_an_object_is_noticed_though_all_of_it_is_ours() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = Node::start(&hub, "thrift-older").await?;
    let objects = [namespace("thrift-older"), config_map("page", "new")];
    node.publish(&hub, 1, &[app("page", "thrift-older", &objects)])
        .await?;
    node.until_proven(1).await?;
    let written = async |node: &Node| -> Result<String> {
        let arguments = [
            "-n",
            "thrift-older",
            "get",
            "configmap",
            "page",
            "--show-managed-fields",
            "-o",
            "json",
        ];
        let object: Value = serde_json::from_str(&node.kubectl.run(&arguments).await?)?;
        let entries = object["metadata"]["managedFields"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ours = entries.iter().find(|entry| entry["manager"] == "holdfast");
        Ok(ours.map(|entry| entry["time"].to_string()).unwrap_or_default())
    };
    let then = written(&node).await?;
    node.stop().await?;

    // What a datastore that was set back shows: other values, the same fields, the same owner, another time.
    let mut older = config_map("page", "old");
    older["metadata"]["labels"] =
        json!({"app.kubernetes.io/managed-by": "holdfast", "holdfast.dev/app": "page"});
    let tries = Cell::new(0);
    wait::until("the time of the owner is another one", PATIENCE, async || {
        let apply = [
            "-n",
            "thrift-older",
            "apply",
            "--server-side",
            "--field-manager=holdfast",
            "--force-conflicts",
        ];
        let mut object = older.clone();
        object["data"]["key"] = format!("old-{}", tries.replace(tries.get() + 1)).into();
        kubectl_with(&node, &apply, &object).await?;
        Ok((written(&node).await? != then).then_some(()))
    })
    .await?;

    node.run().await?;
    wait::until("the object is as it was applied", PATIENCE, async || {
        let object = node
            .object("thrift-older", "configmap", "page")
            .await?
            .context("page")?;
        Ok((object["data"]["key"] == "new").then_some(()))
    })
    .await?;

    // What was written then is known after the next start: nothing is written again.
    let before = node
        .object("thrift-older", "configmap", "page")
        .await?
        .context("page")?;
    let recorded = async || -> Result<Option<()>> {
        let entries = node.store()?.inventory()?;
        Ok(entries
            .iter()
            .all(|entry| entry.fingerprint.is_some())
            .then_some(()))
    };
    wait::until("its fingerprint is written down", PATIENCE, recorded).await?;
    node.stop().await?;
    node.run().await?;
    node.until_proven(1).await?;
    node.publish(
        &hub,
        2,
        &[app(
            "page",
            "thrift-older",
            &[
                namespace("thrift-older"),
                config_map("page", "new"),
                config_map("two", "2"),
            ],
        )],
    )
    .await?;
    node.until_proven(2).await?;
    let after = node
        .object("thrift-older", "configmap", "page")
        .await?
        .context("page")?;
    assert_eq!(
        before["metadata"]["resourceVersion"],
        after["metadata"]["resourceVersion"]
    );
    Ok(())
}

#[tokio::test]
async fn a_kind_that_was_defined_anew_is_found_where_it_is_now() -> Result<()> {
    let definition = |plural: &str| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.thrift.example")},
            "spec": {
                "group": "thrift.example", "scope": "Cluster",
                "names": {"plural": plural, "singular": "valve", "kind": "Valve"},
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}
                }]
            }
        })
    };
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "thrift-kind").await?;
    kubectl_with(&node, &["create"], &definition("valves")).await?;
    node.kubectl
        .wait(
            "default",
            "crd/valves.thrift.example",
            "condition=established",
            PATIENCE,
        )
        .await?;
    let valve = json!({"apiVersion": "thrift.example/v1", "kind": "Valve", "metadata": {"name": "main"}, "spec": {"open": true}});
    node.publish(&hub, 1, &[app("valves", "default", &[valve])])
        .await?;
    node.until_proven(1).await?;

    node.kubectl
        .run(&["delete", "crd", "valves.thrift.example"])
        .await?;
    kubectl_with(&node, &["create"], &definition("valvez")).await?;
    wait::until("the object is where its kind is now", PATIENCE, async || {
        let seen = node.object("default", "valvez.thrift.example", "main").await;
        Ok(seen.ok().flatten())
    })
    .await?;
    // And it is watched there.
    node.kubectl
        .run(&["delete", "valvez.thrift.example", "main"])
        .await?;
    wait::until("the deleted object is put back", PATIENCE, async || {
        let seen = node.object("default", "valvez.thrift.example", "main").await;
        Ok(seen.ok().flatten())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_request_that_is_refused_for_load_is_sent_again_and_nothing_fails() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = Node::enrolled(&hub, "thrift-load").await?;
    // A user of its own: priority and fairness exempt the administrator.
    let kubectl = node.kubectl.clone();
    kubectl.run(&["create", "serviceaccount", "thrift-load"]).await?;
    let role = [
        "create",
        "clusterrolebinding",
        "thrift-load",
        "--clusterrole=cluster-admin",
        "--serviceaccount=default:thrift-load",
    ];
    kubectl.run(&role).await?;
    let token = kubectl
        .run(&["create", "token", "thrift-load", "--duration=1h"])
        .await?;
    let mut kubeconfig: Value =
        serde_json::from_str(&kubectl.run(&["config", "view", "--raw", "-o", "json"]).await?)?;
    kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
    node.settings.kubernetes.kubeconfig = node.path("kubeconfig");
    std::fs::write(node.path("kubeconfig"), kubeconfig.to_string())?;
    node.run().await?;
    node.publish(&hub, 1, &[app("one", "thrift-load", &[namespace("thrift-load")])])
        .await?;
    node.until_proven(1).await?;

    let level = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": "thrift-nothing"},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}
    });
    let flow = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "thrift-refused"},
        "spec": {
            "priorityLevelConfiguration": {"name": "thrift-nothing"}, "matchingPrecedence": 10,
            "rules": [{
                "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "default", "name": "thrift-load"}}],
                "resourceRules": [{"verbs": ["patch"], "apiGroups": ["apps"], "resources": ["deployments"], "namespaces": ["*"]}]
            }]
        }
    });
    kubectl_with(&node, &["create"], &level).await?;
    kubectl_with(&node, &["create"], &flow).await?;
    // The API server takes a moment to obey its new rule, so one document follows the other until it does.
    let counter = Cell::new(1);
    wait::until("the API server refuses", PATIENCE, async || {
        let counter = counter.replace(counter.get() + 1) + 1;
        // Such a level lets one request through at a time, and refuses all others.
        let mut objects: Vec<_> = (0..24)
            .map(|number| {
                deployment(
                    &format!("web-{number}"),
                    &format!("registry.example/web:{counter}"),
                )
            })
            .collect();
        objects.push(namespace("thrift-load"));
        node.publish(&hub, counter, &[app("one", "thrift-load", &objects)])
            .await?;
        node.until_proven(counter).await?;
        let metrics = kubectl.run(&["get", "--raw", "/metrics"]).await?;
        let refused = metrics.lines().any(|line| {
            line.starts_with("apiserver_flowcontrol_rejected_requests_total{")
                && line.contains("thrift-refused")
        });
        Ok(refused.then_some(()))
    })
    .await?;
    let failed = hub
        .heard()
        .events
        .iter()
        .any(|event| event.kind == EventKind::DocumentFailed);
    assert!(!failed, "a refusal for load is no failure");
    Ok(())
}

#[tokio::test]
async fn a_watch_goes_on_over_documents_and_begins_anew_where_there_is_more_to_see() -> Result<()> {
    const CHANGES: u64 = 6;
    // Pod templates, for nobody else in this binary touches them.
    let template = |name: &str, value: u32| json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": {"metadata": {"labels": {"value": value.to_string()}}, "spec": {"containers": [{"name": "main", "image": "registry.k8s.io/pause:3.10"}]}}});
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "thrift-watch").await?;
    let publish = async |counter: u64, objects: &[Value]| -> Result<()> {
        let objects = [objects, &[namespace("thrift-watch")]].concat();
        node.publish(&hub, counter, &[app("templates", "thrift-watch", &objects)])
            .await?;
        node.until_proven(counter).await.map(drop)
    };
    publish(1, &[template("one", 1)]).await?;
    let lists = || requests(&node.kubectl, "podtemplates", &["LIST"]);
    let before = lists().await?;
    for counter in 2..2 + CHANGES {
        publish(counter, &[template("one", counter as u32)]).await?;
    }
    // Controllers that come up late list them too, once each.
    let listed = lists().await? - before;
    assert!(
        listed < CHANGES as f64,
        "{listed} lists for {CHANGES} changes of an object"
    );

    // What came while the table before was in place is seen too.
    let last = 2 + CHANGES;
    publish(last, &[template("one", 0), template("two", 0)]).await?;
    for name in ["one", "two"] {
        let uid = async || -> Result<Option<String>> {
            let object = node.object("thrift-watch", "podtemplate", name).await?;
            Ok(object.and_then(|object| Some(object["metadata"]["uid"].as_str()?.to_owned())))
        };
        let former = uid().await?.context("it is there")?;
        node.kubectl
            .run(&["-n", "thrift-watch", "delete", "podtemplate", name])
            .await?;
        wait::until("it is put back", PATIENCE, async || {
            Ok(uid().await?.filter(|uid| *uid != former))
        })
        .await?;
    }
    Ok(())
}
