//! kubectl against the Kubernetes of a box.

use crate::process::run;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};
use tokio::process::Command;

/// `k3s kubectl` with one kubeconfig.
#[derive(Clone)]
pub struct Kubectl {
    /// The k3s binary.
    pub k3s: PathBuf,
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
}

impl Kubectl {
    /// A command line that starts with `kubectl --kubeconfig …`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.k3s);
        command
            .arg("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .kill_on_drop(true);
        command
    }

    /// Runs kubectl and gives what it prints.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        run(self.command(arguments)).await
    }

    /// An object, or none where there is no such object.
    pub async fn get(&self, namespace: &str, kind: &str, name: &str) -> Result<Option<Value>> {
        let text = self
            .run(&[
                "-n",
                namespace,
                "get",
                kind,
                name,
                "--ignore-not-found",
                "-o",
                "json",
            ])
            .await?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("{kind} {name}"))
    }

    /// Waits by a watch until a condition of `kubectl wait` holds.
    pub async fn wait(&self, namespace: &str, object: &str, condition: &str, within: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", within.as_secs());
        self.run(&[
            "-n",
            namespace,
            "wait",
            object,
            &format!("--for={condition}"),
            &timeout,
        ])
        .await
        .map(drop)
    }
}
