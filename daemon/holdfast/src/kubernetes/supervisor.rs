//! Keeps k3s running: one trait, and its form as a child process. A form for systemd follows the same trait.
//!
//! In: a rendered configuration. Out: a running k3s, and its end as an event. It guarantees that k3s outlives Holdfast (the next
//! Holdfast adopts it), that a k3s with another configuration than the wanted one is restarted, and that one with the wanted
//! one never is.

use super::{
    KubernetesError, address,
    process::{Launch, Process, ProcessRecord, file_error, last_word},
    target::K3sTarget,
};
use crate::{identity::write_private, settings::Settings};
use std::{fs, future::Future, path::PathBuf, time::Duration};

/// Something that keeps Kubernetes running.
pub trait Supervisor: Send {
    /// Whether Kubernetes runs as `target` says, one that a former Holdfast started too.
    fn runs_as(&mut self, target: &K3sTarget) -> impl Future<Output = Result<bool, KubernetesError>> + Send;

    /// Starts it so. It must not run.
    fn start(&mut self, target: &K3sTarget) -> impl Future<Output = Result<(), KubernetesError>> + Send;

    /// Makes it stand still, one that a former Holdfast started too.
    fn stop(&mut self) -> impl Future<Output = Result<(), KubernetesError>> + Send;

    /// Waits until Kubernetes ends by itself; the error says how and why. Cancel safe.
    fn ended(&mut self) -> impl Future<Output = KubernetesError> + Send;
}

/// How long k3s may take to end when its configuration changed: it drains its datastore.
const STOP_PATIENCE: Duration = Duration::from_secs(90);

/// k3s as a process that this one starts, and that goes on when this one ends.
#[derive(Debug)]
pub struct ChildSupervisor {
    settings: Settings,
    binary: PathBuf,
    extra_arguments: Vec<String>,
    config_file: PathBuf,
    pid_file: PathBuf,
    log: Option<PathBuf>,
    process: Option<Process>,
}

impl ChildSupervisor {
    /// A supervisor with the paths of the settings.
    pub fn new(settings: &Settings) -> Self {
        let kubernetes = &settings.kubernetes;
        Self {
            settings: settings.clone(),
            binary: kubernetes.binary.clone().into(),
            extra_arguments: kubernetes.extra_args.clone(),
            config_file: settings.kubernetes_config_file(),
            pid_file: settings.kubernetes_pid_file(),
            log: kubernetes.log_file.clone(),
            process: None,
        }
    }

    /// File that the output goes to, where there is one.
    pub fn log(&self) -> Option<&PathBuf> {
        self.log.as_ref()
    }

    fn adopt(&self) -> Option<Process> {
        let text = fs::read_to_string(&self.pid_file).ok()?;
        let record: ProcessRecord = serde_json::from_str(&text).ok()?;
        let process = Process::adopt(record)?;
        tracing::info!(pid = process.record().pid, "took over the k3s that was running");
        Some(process)
    }

    fn launch(&self, target: &K3sTarget) -> Result<Process, KubernetesError> {
        target
            .config
            .put_in_place(&self.settings)
            .map_err(|error| KubernetesError::Config {
                problem: error.problem().into(),
            })?;
        write(&self.config_file, target.config.text.as_bytes())?;
        let mut arguments = vec![
            target.command().to_owned(),
            "--config".to_owned(),
            self.config_file.display().to_string(),
        ];
        arguments.extend(self.extra_arguments.iter().cloned());
        let process = Process::start(&Launch {
            binary: target.binary.clone(),
            arguments,
            log: self.log.clone(),
            config: target.identity(),
        })?;
        tracing::info!(pid = process.record().pid, binary = %target.binary.display(), "started k3s");
        let record = serde_json::to_vec(process.record()).unwrap_or_default();
        // Without its record, k3s runs all the same; only the next Holdfast could not find it, so that is said now.
        if let Err(error) = write(&self.pid_file, &record) {
            tracing::error!(%error, "cannot write down which process k3s is");
        }
        Ok(process)
    }
}

impl Supervisor for ChildSupervisor {
    async fn runs_as(&mut self, target: &K3sTarget) -> Result<bool, KubernetesError> {
        if self.process.is_none() {
            self.process = self.adopt();
        }
        self.binary.clone_from(&target.binary);
        let identity = target.identity();
        let runs = (self.process.as_ref()).is_some_and(|process| process.record().config == identity);
        // It goes on without its address, only worse than with it.
        if runs && let Err(error) = address::ensure(target.config.address.as_ref()) {
            tracing::warn!(%error, "the address of the node is not in place");
        }
        Ok(runs)
    }

    async fn start(&mut self, target: &K3sTarget) -> Result<(), KubernetesError> {
        self.binary.clone_from(&target.binary);
        self.process = Some(self.launch(target)?);
        Ok(())
    }

    async fn stop(&mut self) -> Result<(), KubernetesError> {
        if self.process.is_none() {
            self.process = self.adopt();
        }
        if let Some(process) = &mut self.process {
            tracing::info!(pid = process.record().pid, "stopping k3s");
            process.stop(STOP_PATIENCE).await;
            self.process = None;
        }
        Ok(())
    }

    async fn ended(&mut self) -> KubernetesError {
        let Some(process) = &mut self.process else {
            return std::future::pending().await;
        };
        let status = process.ended().await;
        self.process = None;
        let line = self.log.as_deref().map_or_else(
            || "in the log of the daemon, where k3s writes too".to_owned(),
            last_word,
        );
        let words = line.to_ascii_lowercase();
        let says_root = words.contains("root") && (words.contains("must") || words.contains("need"));
        // Where its words went elsewhere: not being root is what ends a k3s that an ordinary user starts.
        let unheard = self.log.is_none() && !nix::unistd::geteuid().is_root();
        if says_root || unheard {
            return KubernetesError::NeedsRoot { line };
        }
        KubernetesError::Exited {
            binary: self.binary.clone(),
            status,
            line,
        }
    }
}

/// A Kubernetes that somebody else keeps running.
#[derive(Debug, Default)]
pub struct NotSupervised;

impl Supervisor for NotSupervised {
    async fn runs_as(&mut self, _target: &K3sTarget) -> Result<bool, KubernetesError> {
        Ok(true)
    }

    async fn start(&mut self, _target: &K3sTarget) -> Result<(), KubernetesError> {
        Ok(())
    }

    async fn stop(&mut self) -> Result<(), KubernetesError> {
        Ok(())
    }

    async fn ended(&mut self) -> KubernetesError {
        std::future::pending().await
    }
}

/// Writes a file that can be written again at any time: beside it first, then in its place.
pub(super) fn write(path: &std::path::Path, content: &[u8]) -> Result<(), KubernetesError> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|error| file_error(directory, &error))?;
    }
    write_private(path, content).map_err(|error| KubernetesError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}
