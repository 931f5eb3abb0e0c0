//! A node that supervises a Kubernetes of its own, and k3s programs of many versions: each the real test cluster behind a few lines of shell.

use super::{broker::Hub, node::Node};
use anyhow::{Context as _, Result};
use holdfast::settings::Settings;
use holdfast_harness::{Kubectl, paths, port};
use holdfast_protocol::Digest;
use holdfast_store::Blobs;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// A node that supervises a Kubernetes of its own. It does not run yet.
pub async fn supervised(hub: &Hub, name: &str) -> Result<Node> {
    let mut node = Node::enrolled(hub, name).await?;
    let data = node.path("kubernetes");
    node.kubectl = supervise(&mut node.settings, &data)?;
    Ok(node)
}

/// Has a node supervise a Kubernetes of its own, with all its files in `data`; gives what asks it.
pub fn supervise(settings: &mut Settings, data: &Path) -> Result<Kubectl> {
    let k3s = paths::k3s()?;
    let kubernetes = &mut settings.kubernetes;
    kubernetes.supervise = true;
    kubernetes.binary = k3s.display().to_string();
    kubernetes.data_dir = data.join("data");
    kubernetes.kubeconfig = data.join("k3s.yaml");
    kubernetes.https_port = port::reserve()?;
    kubernetes.log_file = Some(data.join("log"));
    kubernetes.cni_state_dir = data.join("cni");
    kubernetes.restart_min = Duration::from_millis(100);
    Ok(Kubectl {
        k3s,
        kubeconfig: kubernetes.kubeconfig.clone(),
    })
}

/// What a k3s program does when it is started as a server.
#[derive(Clone, Copy, Debug)]
pub enum Server {
    /// Runs, and leaves the label `written-by` with this value on its node: in the datastore.
    Runs(&'static str),
    /// Runs, and never answers.
    Hangs,
    /// Ends at once.
    Crashes,
}

/// Text of a k3s program.
pub fn program(version: &str, server: Server) -> Result<String> {
    let k3s = paths::k3s()?;
    let k3s = k3s.display();
    let run = match server {
        Server::Runs(label) => format!("exec {k3s} \"$@\" --node-label written-by={label}"),
        Server::Hangs => "exec sleep 600".to_owned(),
        Server::Crashes => "echo 'level=fatal msg=\"this version is broken\"' >&2; exit 1".to_owned(),
    };
    Ok(format!(
        "#!/bin/sh\ncase $1 in\n--version) echo 'k3s version {version} (test)' ;;\nserver) {run} ;;\n*) exec {k3s} \"$@\" ;;\nesac\n"
    ))
}

/// Writes a program to a file.
pub fn write_program(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::set_permissions(&beside, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::rename(&beside, path)?;
    Ok(())
}

/// The `k3s` section of a document that wants this program, which is put into the node's store.
pub fn section(node: &Node, version: &str, text: &str) -> Result<Value> {
    let digest: Digest = Blobs::open(&node.settings.state_dir)?.put(text.as_bytes())?;
    let artifact = json!({"digest": digest, "size": text.len(), "name": "k3s"});
    Ok(json!({"version": version, "binaries": {"amd64": artifact, "arm64": artifact}}))
}

/// The process that is Kubernetes.
pub fn process(node: &Node) -> Result<Pid> {
    recorded(&node.settings.kubernetes_pid_file())
}

fn recorded(file: &Path) -> Result<Pid> {
    let text = std::fs::read_to_string(file)?;
    let record: Value = serde_json::from_str(&text)?;
    let pid = record["pid"].as_i64().context("the record has a process id")?;
    Ok(Pid::from_raw(i32::try_from(pid)?))
}

/// Ends the Kubernetes of a node with the test, however it ends: by design it outlives the node.
pub struct EndsWithTest(pub PathBuf);

impl Drop for EndsWithTest {
    fn drop(&mut self) {
        if let Ok(pid) = recorded(&self.0) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}
