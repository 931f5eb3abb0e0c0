//! The daemon as a process of its own, on a node's state directory.

use super::{PATIENCE, node::Node};
use anyhow::{Result, bail};
use holdfast::local_api::client::ask;
use holdfast_harness::{Process, wait};
use http::Method;
use serde_json::Value;
use tokio::process::Command;

/// The real binary on a node's state directory, without a link.
pub struct Daemon<'a> {
    pub node: &'a Node,
}

impl<'a> Daemon<'a> {
    pub const fn of(node: &'a Node) -> Self {
        Self { node }
    }

    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let config = self.node.path("holdfast.toml");
        if !config.exists() {
            self.node.write_settings()?;
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command
            .args(arguments)
            .arg("--config")
            .arg(config)
            .kill_on_drop(true);
        Ok(command)
    }

    /// Starts it; it ends at `failpoint`, where one is given.
    pub fn start(&self, failpoint: Option<&str>) -> Result<Process> {
        let mut command = self.command(&["run"])?;
        command.envs(failpoint.map(|name| ("HOLDFAST_FAILPOINT", name)));
        Process::start("holdfast", command, &self.node.path("log"))
    }

    /// What it says of its documents.
    pub async fn generation(&self) -> Result<Value> {
        let path = &self.node.settings.socket;
        let text = ask(path, Method::GET, "/v1/status", Vec::new()).await?;
        let status: Value = serde_json::from_slice(&text)?;
        Ok(status["report"]["generation"].clone())
    }

    /// Waits until this document runs, in this phase of the newest.
    pub async fn until(&self, running: &str, phase: &str) -> Result<()> {
        wait::until(
            &format!("document {running} runs, {phase}"),
            PATIENCE,
            async || {
                let seen = self.generation().await?;
                if seen["running"] == running && seen["phase"] == phase {
                    return Ok(Some(()));
                }
                bail!("{seen}")
            },
        )
        .await
    }

    /// Waits until the newest document is in this phase.
    pub async fn until_phase(&self, phase: &str) -> Result<()> {
        wait::until(phase, PATIENCE, async || {
            let seen = self.generation().await?;
            if seen["phase"] == phase {
                return Ok(Some(()));
            }
            bail!("{seen}")
        })
        .await
    }
}
