//! The process ends as if the power went, at each journalled step; the next start goes on right.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result, bail, ensure};
use engine_support::{PATIENCE, app, broker::Hub, config_map, namespace, node::Node};
use holdfast::failpoint;
use holdfast_harness::{Process, wait};
use serde_json::Value;
use std::{fmt::Write as _, os::unix::process::ExitStatusExt as _, time::Duration};
use tokio::process::Command;

/// The real binary on a node's state directory, without a link.
struct Daemon<'a> {
    node: &'a Node,
}

impl Daemon<'_> {
    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let config = self.node.path("holdfast.toml");
        if !config.exists() {
            let settings = &self.node.settings;
            let mut text = String::new();
            writeln!(text, "state_dir = {:?}", settings.state_dir)?;
            writeln!(text, "socket = {:?}", settings.socket)?;
            writeln!(text, "[sync]\nenabled = false\n[kubernetes]\nsupervise = false")?;
            writeln!(text, "kubeconfig = {:?}", settings.kubernetes.kubeconfig)?;
            std::fs::write(&config, text)?;
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command
            .args(arguments)
            .arg("--config")
            .arg(config)
            .kill_on_drop(true);
        Ok(command)
    }

    fn start(&self, failpoint: Option<&str>) -> Result<Process> {
        let mut command = self.command(&["run"])?;
        command.envs(failpoint.map(|name| ("HOLDFAST_FAILPOINT", name)));
        Process::start("holdfast", command, &self.node.path("log"))
    }

    async fn until_proven(&self, generation: &str) -> Result<()> {
        wait::until(
            &format!("document {generation} is proven"),
            PATIENCE,
            async || {
                let text = holdfast_harness::process::run(self.command(&["status", "-o", "json"])?).await?;
                let status: Value = serde_json::from_str(&text)?;
                let seen = &status["report"]["generation"];
                if seen["proven"] == generation && seen["phase"] == "committed" {
                    return Ok(Some(()));
                }
                bail!("{seen}")
            },
        )
        .await
    }
}

async fn resumes_after(failpoint: &str, hub: &Hub) -> Result<()> {
    let name = format!("crash-{failpoint}");
    let node = Node::enrolled(hub, &name).await?;
    let daemon = Daemon { node: &node };
    let document = |objects: &[Value]| [app("hello", &name, objects)];
    let kept = config_map("kept", "1");

    node.leave_first_document(
        hub,
        1,
        &document(&[namespace(&name), kept.clone(), config_map("leaving", "1")]),
    )?;
    let mut process = daemon.start(None)?;
    daemon.until_proven("1.1").await?;
    process.kill().await?;
    let before = node.object(&name, "configmap", "kept").await?.context("kept")?;

    node.leave_first_document(
        hub,
        2,
        &document(&[namespace(&name), kept, config_map("new", "1")]),
    )?;
    let mut process = daemon.start(Some(failpoint))?;
    let status = process.wait(PATIENCE).await?;
    ensure!(
        status.signal() == Some(6),
        "it ended with {status}, not at {failpoint}"
    );

    let mut process = daemon.start(None)?;
    daemon.until_proven("1.2").await?;
    process.stop(Duration::from_secs(20)).await?;
    ensure!(
        node.object(&name, "configmap", "leaving").await?.is_none(),
        "leaving is still there"
    );
    ensure!(
        node.object(&name, "configmap", "new").await?.is_some(),
        "new is not there"
    );
    let after = node.object(&name, "configmap", "kept").await?.context("kept")?;
    ensure!(
        before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"],
        "kept was written again"
    );
    let store = holdfast_store::Store::open(&node.settings.state_dir, holdfast_store::Options::default())?;
    let mut names: Vec<_> = store
        .inventory()?
        .into_iter()
        .map(|entry| (entry.key.name, entry.digest.is_some()))
        .collect();
    names.sort();
    ensure!(
        names == [(name.clone(), true), ("kept".into(), true), ("new".into(), true)],
        "{names:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_kill_at_each_journalled_step_is_resumed_right() -> Result<()> {
    let hub = Hub::start().await?;
    let all = failpoint::ALL
        .iter()
        .map(|failpoint| async { (*failpoint, resumes_after(failpoint, &hub).await) });
    let results = futures::future::join_all(all).await;
    let failed: Vec<_> = results
        .iter()
        .filter_map(|(failpoint, result)| Some(format!("{failpoint}: {:#}", result.as_ref().err()?)))
        .collect();
    ensure!(failed.is_empty(), "{failed:#?}");
    Ok(())
}

#[tokio::test]
async fn pain_01_apps_come_back_from_the_cache_alone() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::enrolled(&hub, "cached").await?;
    let daemon = Daemon { node: &node };
    let objects = [namespace("cached"), config_map("settings", "1")];
    node.leave_first_document(&hub, 1, &[app("hello", "cached", &objects)])?;
    let mut process = daemon.start(None)?;
    daemon.until_proven("1.1").await?;
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
