//! A child process with a log file, in a process group of its own, ended when the handle is dropped.

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// A running child process.
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts `command`; its standard error is appended to `log`, its standard output can be read line by line.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        if let Some(directory) = log.parent() {
            fs::create_dir_all(directory)?;
        }
        let file: File = OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}: {:?}", command.as_std().get_program()))?;
        let stdout = child.stdout.take().map(BufReader::new);
        Ok(Self {
            name: name.to_owned(),
            log: log.to_owned(),
            child,
            stdout,
        })
    }

    /// Process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The next line of its standard output; an error, with the end of its log, if it ends or says nothing before that.
    pub async fn line(&mut self, within: Duration) -> Result<String> {
        let mut line = String::new();
        let Some(stdout) = self.stdout.as_mut() else {
            bail!("{} has no standard output", self.name)
        };
        let read = timeout(within, stdout.read_line(&mut line)).await;
        match read {
            Ok(Ok(bytes)) if bytes > 0 => Ok(line.trim_end().to_owned()),
            Ok(_) => bail!(
                "{} ended early; its log {} ends:\n{}",
                self.name,
                self.log.display(),
                self.log_tail(20)
            ),
            Err(_) => bail!(
                "{} said nothing within {within:?}; its log ends:\n{}",
                self.name,
                self.log_tail(20)
            ),
        }
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Kills it without warning, as a power cut would, and waits until it is gone.
    pub async fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("kill {}", self.name))
    }

    /// Asks it to end (SIGTERM) and waits; kills it after `within`, which is an error.
    pub async fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        if let Some(id) = self.child.id() {
            nix::sys::signal::kill(Pid::from_raw(i32::try_from(id)?), Signal::SIGTERM)?;
        }
        match timeout(within, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                self.kill().await?;
                bail!(
                    "{} did not end within {within:?} of SIGTERM; its log ends:\n{}",
                    self.name,
                    self.log_tail(20)
                )
            }
        }
    }

    /// Waits until it ends by itself.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        match timeout(within, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!(
                "{} did not end within {within:?}; its log ends:\n{}",
                self.name,
                self.log_tail(20)
            ),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // Whatever it started in its own group goes with it; it may be gone already.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

/// The last lines of a text file; empty where there is none.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Runs a command to its end and gives its standard output; the error carries its standard error.
pub async fn run(mut command: Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("start {:?}", command.as_std()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    bail!(
        "{:?} ended with {}: {}{}",
        command.as_std(),
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    )
}
