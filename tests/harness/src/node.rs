//! A box: a directory with the node's state and its Kubernetes, and the running daemon.

use crate::{
    Kubectl, paths, port,
    process::{Process, run, tail},
    wait,
};
use anyhow::{Context as _, Result, bail};
use holdfast_protocol::report::StatusReport;
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::{net::UnixDatagram, process::Command, time::timeout};

/// How long the daemon may take to say that it is ready.
const START: Duration = Duration::from_secs(20);

/// A box.
pub struct Node {
    /// Its directory.
    pub directory: PathBuf,
    /// Its Kubernetes, once it is up.
    pub kubectl: Kubectl,
    process: Option<Process>,
}

impl Node {
    /// Prepares a box below `directory`, not yet running; `more` is TOML appended to its configuration.
    pub fn prepare(directory: &Path, name: &str, more: &str) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let k3s = paths::k3s()?;
        let port = port::reserve()?;
        let kubeconfig = directory.join("k3s.yaml");
        let config = format!(
            "state_dir = {state:?}\nsocket = {socket:?}\n\n[enrolment]\nname = {name:?}\n\n\
             [kubernetes]\nbinary = {k3s:?}\ndata_dir = {data:?}\nconfig_file = {config:?}\nkubeconfig = {kubeconfig:?}\n\
             https_port = {port}\nnode_name = {name:?}\n\n\
             [sync]\nbackoff_min = \"100ms\"\nbackoff_max = \"2s\"\n\n{more}",
            state = directory.join("state"),
            socket = directory.join("holdfast.sock"),
            data = directory.join("k3s"),
            config = directory.join("k3s-config.yaml"),
        );
        fs::File::create(directory.join("node.toml"))?.write_all(config.as_bytes())?;
        Ok(Self {
            directory: directory.to_owned(),
            kubectl: Kubectl { k3s, kubeconfig },
            process: None,
        })
    }

    /// A command line of `holdfast` with this box's configuration.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(paths::binary("holdfast")?);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.directory.join("node.toml"))
            .env_remove("RUST_BACKTRACE");
        command.kill_on_drop(true);
        Ok(command)
    }

    /// Starts the daemon and waits for its `READY=1`, as systemd does.
    pub async fn start(&mut self) -> Result<()> {
        self.start_with(&[]).await
    }

    /// Starts the daemon with more environment variables.
    pub async fn start_with(&mut self, environment: &[(&str, &str)]) -> Result<()> {
        let socket = self.directory.join("notify.sock");
        drop(fs::remove_file(&socket));
        let notify = UnixDatagram::bind(&socket)?;
        let mut command = self.command(&["run"])?;
        command
            .env("NOTIFY_SOCKET", &socket)
            .envs(environment.iter().copied());
        let mut process = Process::start("holdfast", command, &self.directory.join("node.log"))?;
        let ready = async {
            let mut buffer = [0; 512];
            loop {
                let read = notify.recv(&mut buffer).await?;
                if String::from_utf8_lossy(&buffer[..read])
                    .lines()
                    .any(|line| line == "READY=1")
                {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::select! {
            ready = timeout(START, ready) => ready
                .with_context(|| format!("holdfast is not ready within {START:?}; its log ends:\n{}", process.log_tail(20)))??,
            ended = process.wait(START * 2) => {
                let status = ended?;
                bail!("holdfast ended with {status}; its log ends:\n{}", process.log_tail(20));
            }
        }
        self.process = Some(process);
        Ok(())
    }

    /// The daemon's process, while it runs.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the node is not running")
    }

    /// Kills the daemon without warning.
    pub async fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Ends the daemon in good order.
    pub async fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.stop(Duration::from_secs(15)).await.map(drop),
            None => Ok(()),
        }
    }

    /// Kills Kubernetes without warning, all processes that were started with this box's k3s configuration.
    pub fn kill_kubernetes(&self) -> Result<usize> {
        let mut killed = 0;
        for id in self.kubernetes_processes()? {
            if nix::sys::signal::kill(Pid::from_raw(id), Signal::SIGKILL).is_ok() {
                killed += 1;
            }
        }
        Ok(killed)
    }

    /// Ids of the processes of this box's Kubernetes.
    pub fn kubernetes_processes(&self) -> Result<Vec<i32>> {
        let marker = self.directory.join("k3s-config.yaml");
        let marker = marker.to_string_lossy();
        let mut ids = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A process may end between the listing and the look.
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command);
            if command.contains(&*marker) && command.contains("server") {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Enrols with a token, as an operator at the box does.
    pub async fn enrol(&self, token: &str) -> Result<String> {
        run(self.command(&["enrol", token])?).await
    }

    /// What `holdfast status -o json` says.
    pub async fn status(&self) -> Result<StatusReport> {
        let text = run(self.command(&["status", "-o", "json"])?).await?;
        let value: Value = serde_json::from_str(&text)?;
        // The report itself, or an object that holds it beside local facts.
        let report = value.get("report").cloned().unwrap_or(value);
        serde_json::from_value(report).with_context(|| format!("status: {text}"))
    }

    /// Waits until the node's own status satisfies `condition`.
    pub async fn wait_for_status(
        &self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&StatusReport) -> bool,
    ) -> Result<StatusReport> {
        let deadline = Instant::now() + within;
        loop {
            let seen = self.status().await;
            if let Ok(status) = &seen
                && condition(status)
            {
                return seen;
            }
            if Instant::now() >= deadline {
                bail!(
                    "{what}: not within {within:?}; the node says: {seen:#?}; its log ends:\n{}",
                    self.log_tail(30)
                );
            }
            tokio::time::sleep(wait::LOOK_AGAIN).await;
        }
    }

    /// The last lines of the daemon's log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.directory.join("node.log"), lines)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The daemon first, or it would start Kubernetes again.
        self.process = None;
        drop(self.kill_kubernetes());
    }
}
