//! `holdfastctl` as someone types it, with a home of its own.

use anyhow::{Context as _, Result, ensure};
use holdfast_harness::{Hub, paths};
use holdfast_protocol::Problem;
use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};
use tokio::process::Command;

/// Someone at a command line.
pub struct Operator {
    /// Where their contexts are.
    pub config: PathBuf,
    /// The administrator's token.
    pub token_file: PathBuf,
}

impl Operator {
    /// One whose files are below `directory`, logged in nowhere.
    pub fn of(hub: &Hub, directory: &Path) -> Self {
        Self {
            config: directory.join("config"),
            token_file: hub.ready.admin_token_file.clone(),
        }
    }

    /// A command with nothing in its environment but where the contexts are.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(paths::binary("holdfastctl")?);
        command
            .args(arguments)
            .env_clear()
            .env("XDG_CONFIG_HOME", &self.config)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Runs a command, however it ends.
    pub async fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments)?.output().await?)
    }

    /// Runs a command that must succeed, and gives what it answers.
    pub async fn succeed(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments).await?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a command that must fail with this exit code, and gives the problem.
    pub async fn fail(&self, code: i32, arguments: &[&str]) -> Result<Problem> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let output = self.run(&all).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(code),
            "{arguments:?} ended with {}: {said}",
            output.status
        );
        let last = said.lines().last().context("nothing said")?;
        serde_json::from_str(last).with_context(|| format!("{arguments:?}: {said}"))
    }

    /// Logs in to a hub.
    pub async fn log_in(&self, hub: &Hub) -> Result<()> {
        self.log_in_at(hub.plain_url()?).await
    }

    /// Logs in to the hub at this address.
    pub async fn log_in_at(&self, url: &str) -> Result<()> {
        let file = self.token_file.to_string_lossy();
        self.succeed(&["login", url, "--token-file", &file])
            .await
            .map(drop)
    }
}
