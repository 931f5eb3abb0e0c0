//! The process ends as if the power went, at each journalled step; the next start goes on right.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result, ensure};
use engine_support::{
    PATIENCE, app, broker::Hub, config_map, daemon::Daemon, deployment, namespace, node::Node,
};
use holdfast::failpoint;
use holdfast_harness::wait;
use holdfast_protocol::event::{Event, EventKind};
use holdfast_store::{Blobs, Options, Store};
use serde_json::{Value, json};
use std::{collections::BTreeSet, os::unix::process::ExitStatusExt as _};

/// Where the process ends, and what must have become of the second document when all is over.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// It is good.
    Good,
    /// It fails, and the node goes back to the first.
    Back,
    /// It is the first one and is refused; there is nothing to go back to.
    Refused,
}

/// Places that are passed only where Holdfast runs k3s itself; the tests of switching k3s kill there.
const OF_A_SWITCH: [&str; 2] = ["before-switch", "after-switch-journal"];

fn way_of(failpoint: &str) -> Way {
    match failpoint {
        "before-failed" | "after-failed" => Way::Refused,
        name if name.contains("roll") || name.contains("restore") => Way::Back,
        _ => Way::Good,
    }
}

/// The second document: it passes every place that a failpoint has a name for.
fn second(node: &Node, way: Way) -> Result<Value> {
    let name = &node.name;
    let blob = serde_json::to_vec(&[config_map("new", "1")])?;
    let blobs = Blobs::open(&node.settings.state_dir)?;
    let digest = blobs.put(&blob)?;
    let mut objects = vec![namespace(name), config_map("kept", "1")];
    if way == Way::Back {
        objects.push(deployment("broken", "registry.invalid/web:1"));
    }
    let mut document = node.document(2, &[app("hello", name, &objects)]);
    let manifests = document["apps"][0]["manifests"]
        .as_array_mut()
        .context("manifests")?;
    manifests.push(json!({"blob": {"digest": digest, "size": blob.len()}}));
    document["k3s"] = json!({"config": {"v": 1}});
    document["policy"] = json!({
        "stabilitySeconds": u8::from(way == Way::Good),
        "readyDeadlineSeconds": if way == Way::Back { 3 } else { 600 },
    });
    Ok(document)
}

async fn resumes_after(failpoint: &str, hub: &Hub) -> Result<()> {
    let way = way_of(failpoint);
    let name = format!("crash-{failpoint}");
    let node = Node::enrolled(hub, &name).await?;
    let daemon = Daemon::of(&node);
    if way == Way::Refused {
        return stays_failed(&daemon, hub, failpoint).await;
    }
    let objects = [
        namespace(&name),
        config_map("kept", "1"),
        config_map("leaving", "1"),
    ];
    node.leave_first_document(hub, 1, &[app("hello", &name, &objects)])?;
    let mut process = daemon.start(None)?;
    daemon.until("1.1", "committed").await?;
    process.kill().await?;
    let before = node.object(&name, "configmap", "kept").await?.context("kept")?;

    node.leave_document(hub, &second(&node, way)?)?;
    let mut process = daemon.start(Some(failpoint))?;
    let status = process.wait(PATIENCE).await?;
    ensure!(
        status.signal() == Some(6),
        "it ended with {status}, not at {failpoint}"
    );

    let mut process = daemon.start(None)?;
    let (running, phase) = match way {
        Way::Back => ("1.1", "rolled-back"),
        _ => ("1.2", "committed"),
    };
    daemon.until(running, phase).await?;
    process.stop(PATIENCE).await?;
    let is_there = async |object: &str| anyhow::Ok(node.object(&name, "configmap", object).await?.is_some());
    let went_back = way == Way::Back;
    ensure!(
        is_there("leaving").await? == went_back,
        "leaving is not as it should be"
    );
    ensure!(is_there("new").await? != went_back, "new is not as it should be");
    ensure!(
        node.object(&name, "deployment", "broken").await?.is_none(),
        "what failed is still there"
    );
    let after = node.object(&name, "configmap", "kept").await?.context("kept")?;
    ensure!(
        before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"],
        "kept was written again"
    );
    let store = Store::open(&node.settings.state_dir, Options::default())?;
    let mut names: Vec<_> = store
        .inventory()?
        .into_iter()
        .map(|entry| (entry.key.name, entry.digest.is_some()))
        .collect();
    names.sort();
    let third = if went_back { "leaving" } else { "new" };
    let mut expected = [(name.clone(), true), ("kept".into(), true), (third.into(), true)];
    expected.sort();
    ensure!(names == expected, "{names:?}");
    once_each(&store)
}

/// What was told to the hub was told once.
fn once_each(store: &Store) -> Result<()> {
    let mut told = BTreeSet::new();
    for event in store.pending_events(1_000)? {
        let event: Event = serde_json::from_slice(&event.payload)?;
        let once = matches!(
            event.kind,
            EventKind::DocumentAccepted
                | EventKind::DocumentProven
                | EventKind::DocumentFailed
                | EventKind::DocumentRolledBack
        );
        if event.kind == EventKind::Booted {
            ensure!(
                told.insert("booted".into()),
                "one start of the machine was told twice"
            );
        }
        if once {
            let key = format!("{:?} {:?}", event.kind, event.generation);
            ensure!(told.insert(key.clone()), "{key} was told twice");
        }
    }
    ensure!(
        told.contains("booted"),
        "the start of the machine was not told: {told:?}"
    );
    Ok(())
}

async fn stays_failed(daemon: &Daemon<'_>, hub: &Hub, failpoint: &str) -> Result<()> {
    let node = daemon.node;
    let mut bad = deployment("broken", "registry.example/web:1");
    bad["spec"]["replicas"] = json!("many");
    node.leave_first_document(hub, 1, &[app("hello", &node.name, &[namespace(&node.name), bad])])?;
    let mut process = daemon.start(Some(failpoint))?;
    let status = process.wait(PATIENCE).await?;
    ensure!(status.signal() == Some(6), "it ended with {status}");
    let mut process = daemon.start(None)?;
    daemon.until_phase("failed").await?;
    process.stop(PATIENCE).await?;
    once_each(&Store::open(&node.settings.state_dir, Options::default())?)
}

/// Each half of the places by itself: they all share one API server.
async fn all_resume(places: &[&str]) -> Result<()> {
    let hub = Hub::start().await?;
    let mut failed = Vec::new();
    for some in places.chunks(6) {
        let all = some
            .iter()
            .map(|failpoint| async { (*failpoint, resumes_after(failpoint, &hub).await) });
        for (failpoint, result) in futures::future::join_all(all).await {
            if let Err(error) = result {
                failed.push(format!("{failpoint}: {error:#}"));
            }
        }
    }
    ensure!(failed.is_empty(), "{failed:#?}");
    Ok(())
}

#[tokio::test]
async fn a_kill_at_each_journalled_step_is_resumed_right() -> Result<()> {
    let places: Vec<_> = failpoint::ALL
        .iter()
        .copied()
        .filter(|name| way_of(name) == Way::Good && !OF_A_SWITCH.contains(name))
        .collect();
    all_resume(&places).await
}

#[tokio::test]
async fn pain_20_a_kill_at_each_step_of_the_way_back_is_resumed_right() -> Result<()> {
    let places: Vec<_> = failpoint::ALL
        .iter()
        .copied()
        .filter(|name| way_of(name) != Way::Good)
        .collect();
    all_resume(&places).await
}

#[tokio::test]
async fn pain_01_apps_come_back_from_the_cache_alone() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::enrolled(&hub, "cached").await?;
    let daemon = Daemon::of(&node);
    let objects = [namespace("cached"), config_map("settings", "1")];
    node.leave_first_document(&hub, 1, &[app("hello", "cached", &objects)])?;
    let mut process = daemon.start(None)?;
    daemon.until("1.1", "committed").await?;
    process.kill().await?;

    // While nobody looks, the app goes. There is no hub and no broker; what is on the disk has to do.
    node.kubectl
        .run(&["-n", "cached", "delete", "configmap", "settings"])
        .await?;
    let _process = daemon.start(None)?;
    wait::until("the object is back", PATIENCE, async || {
        node.object("cached", "configmap", "settings").await
    })
    .await?;
    Ok(())
}
