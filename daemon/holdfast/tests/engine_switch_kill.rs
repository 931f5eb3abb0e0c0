//! The process ends as if the power went, at each step of the two ways of k3s; the next start ends on one of the two pairs.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result, bail, ensure};
use engine_support::{
    PATIENCE, app,
    broker::Hub,
    config_map,
    daemon::Daemon,
    deployment,
    k3s::{EndsWithTest, Server, process, program, section, supervised},
    node::Node,
};
use futures::{StreamExt as _, stream};
use holdfast::{failpoint, kubernetes::switch::Current};
use holdfast_harness::wait;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use std::{fs, os::unix::process::ExitStatusExt as _};

const OLD: &str = "v1.36.3+k3s1";
const NEW: &str = "v1.37.0+k3s1";
/// Each box here runs a Kubernetes of its own.
const AT_ONCE: usize = 3;

/// Waits until this document runs and all of it is healthy, in this phase of the newest.
async fn until_healthy(daemon: &Daemon<'_>, phase: &str, generation: &str) -> Result<()> {
    wait::until(&format!("{generation} is {phase}"), 2 * PATIENCE, async || {
        let text = holdfast_harness::process::run(daemon.command(&["status", "-o", "json"])?).await?;
        let status: Value = serde_json::from_str(&text)?;
        let report = &status["report"];
        let seen = &report["generation"];
        let apps = report["apps"].as_array().context("apps")?;
        let healthy =
            report["kubernetes"]["health"] == "healthy" && apps.iter().all(|app| app["health"] == "healthy");
        if seen["running"] == generation && seen["phase"] == phase && healthy {
            return Ok(Some(()));
        }
        bail!("{seen}")
    })
    .await
}

fn leave(node: &Node, hub: &Hub, counter: u64, k3s: &Value, objects: &[Value], deadline: u32) -> Result<()> {
    let mut document = node.document(counter, &[app("hello", "default", objects)]);
    document["k3s"] = k3s.clone();
    document["policy"] = json!({"readyDeadlineSeconds": deadline, "stabilitySeconds": 0});
    node.leave_document(hub, &document)
}

/// What runs, by the record, by the process, and by what the datastore holds.
async fn ensure_pair(node: &Node, version: &str, label: &str) -> Result<()> {
    let text = fs::read(node.settings.state_dir.join("k3s/current.json"))?;
    let current: Current = serde_json::from_slice(&text)?;
    ensure!(
        current.binary.version.as_deref() == Some(version),
        "{current:?} is written down"
    );
    let command = fs::read_to_string(format!("/proc/{}/cmdline", process(node)?))?;
    // The program becomes the real one, with the label that this version alone gives.
    ensure!(command.contains(&format!("written-by={label}")), "{command} runs");
    // The kubelet writes its labels a moment after the API answers.
    wait::until("the label is in the datastore", PATIENCE, async || {
        let seen = node.object("default", "node", &node.name).await?;
        Ok(seen.filter(|seen| seen["metadata"]["labels"]["written-by"] == label))
    })
    .await?;
    ensure!(
        node.object("default", "configmap", "before").await?.is_some(),
        "an object is lost"
    );
    for leftover in ["restoring.json", "snapshots/.1.2.unfinished"] {
        ensure!(
            !node.settings.state_dir.join("k3s").join(leftover).exists(),
            "{leftover} is left"
        );
    }
    Ok(())
}

/// A power cut at `failpoint`, of the machine too where `reboot` says so, and what comes after it.
async fn comes_through(failpoint: &str, reboot: bool, hub: &Hub) -> Result<()> {
    let back = failpoint.starts_with("restore");
    let name = format!("kill-{failpoint}{}", if reboot { "-reboot" } else { "" });
    let mut node = supervised(hub, &name).await?;
    node.settings.kubernetes.binary = "/nowhere/k3s".into();
    let _end = EndsWithTest(node.settings.kubernetes_pid_file());
    let daemon = Daemon::of(&node);
    let old = section(&node, OLD, &program(OLD, Server::Runs("old"))?)?;
    leave(&node, hub, 1, &old, &[config_map("settings", "1")], 120)?;
    let mut running = daemon.start(None)?;
    until_healthy(&daemon, "committed", "1.1").await?;
    node.kubectl
        .run(&["-n", "default", "create", "configmap", "before"])
        .await?;
    running.kill().await?;

    let new = section(&node, NEW, &program(NEW, Server::Runs("new"))?)?;
    let mut objects = vec![config_map("settings", "2")];
    if back {
        objects.push(deployment("web", "registry.invalid/web:1"));
    }
    leave(&node, hub, 2, &new, &objects, if back { 30 } else { 120 })?;
    let mut running = daemon.start(Some(failpoint))?;
    let status = running.wait(2 * PATIENCE).await?;
    ensure!(
        status.signal() == Some(6),
        "it ended with {status}, not at {failpoint}"
    );
    if reboot && let Ok(pid) = process(&node) {
        // It may have been stopped already.
        let _ = kill(pid, Signal::SIGKILL);
    }

    let mut running = daemon.start(None)?;
    let (phase, generation, version, label) = if back {
        ("rolled-back", "1.1", OLD, "old")
    } else {
        ("committed", "1.2", NEW, "new")
    };
    until_healthy(&daemon, phase, generation).await?;
    ensure_pair(&node, version, label).await?;
    running.stop(PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn a_kill_at_each_step_of_a_switch_ends_on_one_of_the_two_pairs() -> Result<()> {
    let hub = Hub::start().await?;
    let hub = &hub;
    let all = ["before-switch", "after-switch-journal"]
        .iter()
        .chain(failpoint::SWITCH)
        .zip([false, true].into_iter().cycle());
    let results: Vec<_> = stream::iter(all)
        .map(|(failpoint, reboot)| async move { (failpoint, comes_through(failpoint, reboot, hub).await) })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let failed: Vec<_> = results
        .iter()
        .filter_map(|(failpoint, result)| Some(format!("{failpoint}: {:#}", result.as_ref().err()?)))
        .collect();
    ensure!(failed.is_empty(), "{failed:#?}");
    Ok(())
}
