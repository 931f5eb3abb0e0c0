//! Keeps k3s running as a unit of systemd, over D-Bus.
//!
//! In: a target. Out: the unit `kubernetes.unit`, started and stopped, and its end as an event. It guarantees that k3s and Holdfast end and
//! start without each other; that the unit never starts otherwise than it was last told, and by nobody but Holdfast, since its files are
//! changed while it stands still; and that nothing is polled: jobs and states come as signals.
//!
//! The unit's files are in `<state>/k3s/unit`: `program` (a link to the program), `environment` (its arguments) and `identity` (what it was
//! started as, by which the next Holdfast knows a running one). The bus is connected to when it is first needed.

use super::{
    KubernetesError, address,
    process::file_error,
    supervisor::{Supervisor, write},
    target::K3sTarget,
};
use crate::settings::Settings;
use futures::StreamExt as _;
use std::{fs, io::ErrorKind, os::unix::fs::symlink, path::PathBuf, sync::Arc, time::Duration};
use zbus::{
    Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant, connection::Builder, message::Type,
};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const ROOT: &str = "/org/freedesktop/systemd1";
/// Longest wait for a job: the unit's own limit for its stop, and some more.
const JOB_PATIENCE: Duration = Duration::from_mins(3);

/// k3s as a unit of systemd.
pub struct SystemdSupervisor {
    settings: Settings,
    files: PathBuf,
    bus: Option<Bus>,
}

/// A connection, and the unit on it.
struct Bus {
    connection: Connection,
    unit: OwnedObjectPath,
}

impl SystemdSupervisor {
    /// A supervisor of the unit that the settings name.
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            files: settings.state_dir.join("k3s/unit"),
            bus: None,
        }
    }

    /// The bus, connected where it was not, or is no more.
    async fn bus(&mut self) -> Result<&mut Bus, KubernetesError> {
        let bus = match self.bus.take() {
            Some(bus) => bus,
            None => Bus::connect(&self.settings)
                .await
                .map_err(|error| self.failed("the system bus", &error))?,
        };
        Ok(self.bus.insert(bus))
    }

    fn failed(&self, what: &str, error: &zbus::Error) -> KubernetesError {
        KubernetesError::Systemd {
            unit: self.settings.kubernetes.unit.clone(),
            reason: format!("{what}: {error}"),
        }
    }

    /// Has a job done on the unit, and waits for its end.
    async fn job(&mut self, method: &'static str) -> Result<String, KubernetesError> {
        let unit = self.settings.kubernetes.unit.clone();
        let bus = self.bus().await?;
        let done = match tokio::time::timeout(JOB_PATIENCE, bus.job(method, &unit)).await {
            Ok(done) => done,
            Err(_) => Ok("timeout".to_owned()),
        };
        done.map_err(|error| self.lost(method, &error))
    }

    /// After an error, the connection is made anew: systemd may have been started again.
    fn lost(&mut self, what: &str, error: &zbus::Error) -> KubernetesError {
        self.bus = None;
        self.failed(what, error)
    }

    async fn state(&mut self) -> Result<State, KubernetesError> {
        let state = self.bus().await?.state().await;
        state.map_err(|error| self.lost("its state", &error))
    }

    fn write_files(&self, target: &K3sTarget) -> Result<(), KubernetesError> {
        let config = self.settings.kubernetes_config_file();
        write(&config, target.config.text.as_bytes())?;
        target
            .config
            .put_in_place(&self.settings)
            .map_err(|error| KubernetesError::Config {
                problem: error.problem().into(),
            })?;
        let mut arguments = vec![
            target.command().to_owned(),
            "--config".to_owned(),
            config.display().to_string(),
        ];
        arguments.extend(self.settings.kubernetes.extra_args.iter().cloned());
        // systemd splits an unquoted variable at white space; what has some in it could not be told apart.
        let text = format!("HOLDFAST_K3S_ARGUMENTS=\"{}\"\n", arguments.join(" "));
        write(&self.files.join("environment"), text.as_bytes())?;
        let link = self.files.join("program");
        let beside = self.files.join(".program.new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(file_error(&beside, &error)),
            _ => {}
        }
        symlink(&target.binary, &beside)
            .and_then(|()| fs::rename(&beside, &link))
            .map_err(|error| file_error(&link, &error))?;
        write(
            &self.files.join("identity"),
            target.identity().to_string().as_bytes(),
        )
    }
}

impl Supervisor for SystemdSupervisor {
    async fn runs_as(&mut self, target: &K3sTarget) -> Result<bool, KubernetesError> {
        if !self.state().await?.is_up() {
            return Ok(false);
        }
        let identity = fs::read_to_string(self.files.join("identity")).unwrap_or_default();
        let runs = identity == target.identity().to_string();
        // It goes on without its address, only worse than with it.
        if runs && let Err(error) = address::ensure(target.config.address.as_ref()) {
            tracing::warn!(%error, "the address of the node is not in place");
        }
        Ok(runs)
    }

    async fn start(&mut self, target: &K3sTarget) -> Result<(), KubernetesError> {
        if !target.binary.exists() {
            return Err(KubernetesError::BinaryMissing {
                binary: target.binary.clone(),
                reason: "there is no such file".into(),
            });
        }
        self.write_files(target)?;
        let result = self.job("StartUnit").await?;
        if result == "done" {
            tracing::info!(unit = %self.settings.kubernetes.unit, binary = %target.binary.display(), "started k3s");
            return Ok(());
        }
        Err(KubernetesError::Systemd {
            unit: self.settings.kubernetes.unit.clone(),
            reason: format!(
                "its start ended with {result:?}; see journalctl --unit {}",
                self.settings.kubernetes.unit
            ),
        })
    }

    async fn stop(&mut self) -> Result<(), KubernetesError> {
        if self.state().await?.is_down() {
            return Ok(());
        }
        tracing::info!(unit = %self.settings.kubernetes.unit, "stopping k3s");
        let result = self.job("StopUnit").await?;
        if self.state().await?.is_down() {
            return Ok(());
        }
        Err(KubernetesError::Systemd {
            unit: self.settings.kubernetes.unit.clone(),
            reason: format!("its stop ended with {result:?}, and it still runs"),
        })
    }

    async fn ended(&mut self) -> KubernetesError {
        let binary = self.files.join("program");
        let line = format!("see journalctl --unit {}", self.settings.kubernetes.unit);
        loop {
            let bus = match self.bus().await {
                Ok(bus) => bus,
                Err(error) => return error,
            };
            match bus.ended().await {
                Ok(status) => return KubernetesError::Exited { binary, status, line },
                // systemd or the bus was started again; k3s was not.
                Err(error) => {
                    tracing::warn!(%error, "the connection to systemd ended");
                    self.bus = None;
                }
            }
        }
    }
}

/// `ActiveState` of the unit.
#[derive(Debug)]
struct State {
    active: String,
}

impl State {
    fn is_up(&self) -> bool {
        matches!(self.active.as_str(), "active" | "activating" | "reloading")
    }

    fn is_down(&self) -> bool {
        matches!(self.active.as_str(), "inactive" | "failed")
    }
}

impl Bus {
    async fn connect(settings: &Settings) -> zbus::Result<Self> {
        let unit = settings.kubernetes.unit.as_str();
        let connection = match &settings.kubernetes.systemd_bus {
            Some(address) => Builder::address(address.as_str()).build().await?,
            None => Connection::system().await?,
        };
        let manager = async |method: &'static str, body: &(&str,)| {
            connection
                .call_method(Some(SYSTEMD), ROOT, Some(MANAGER), method, body)
                .await
        };
        // systemd sends signals only while somebody wants them.
        connection
            .call_method(Some(SYSTEMD), ROOT, Some(MANAGER), "Subscribe", &())
            .await?;
        let path: OwnedObjectPath = manager("LoadUnit", &(unit,)).await?.body().deserialize()?;
        Ok(Self {
            unit: path,
            connection,
        })
    }

    /// Signals, for as long as somebody reads them: one that nobody reads would keep all that comes after it from being read.
    async fn signals(
        &self,
        interface: &'static str,
        member: &'static str,
        path: &str,
    ) -> zbus::Result<MessageStream> {
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SYSTEMD)
            .interface(interface)
            .member(member)
            .path(path)
            .build()?;
        MessageStream::for_match_rule(rule, &self.connection, None).await
    }

    async fn get(&self, interface: &str, property: &str) -> zbus::Result<OwnedVariant> {
        self.connection
            .call_method(
                Some(SYSTEMD),
                &self.unit,
                Some(PROPERTIES),
                "Get",
                &(interface, property),
            )
            .await?
            .body()
            .deserialize()
    }

    async fn state(&self) -> zbus::Result<State> {
        let active = self.get(UNIT, "ActiveState").await?;
        Ok(State {
            active: String::try_from(active)?,
        })
    }

    /// How the unit ended, in words.
    async fn result(&self) -> String {
        let text = async |property| {
            let value = self.get(SERVICE, property).await.ok()?;
            String::try_from(value).ok()
        };
        let result = text("Result").await.unwrap_or_else(|| "unknown".into());
        match self.get(SERVICE, "ExecMainStatus").await.map(i32::try_from) {
            Ok(Ok(status)) => format!("systemd says {result}, status {status}"),
            _ => format!("systemd says {result}"),
        }
    }

    async fn job(&self, method: &'static str, unit: &str) -> zbus::Result<String> {
        let mut ended = self.signals(MANAGER, "JobRemoved", ROOT).await?;
        let job: OwnedObjectPath = self
            .connection
            .call_method(Some(SYSTEMD), ROOT, Some(MANAGER), method, &(unit, "replace"))
            .await?
            .body()
            .deserialize()?;
        while let Some(signal) = ended.next().await {
            let signal = signal?;
            let body = signal.body();
            let (_, removed, _, result): (u32, OwnedObjectPath, String, String) = body.deserialize()?;
            if removed == job {
                return Ok(result);
            }
        }
        Err(disconnected())
    }

    /// Waits until the unit is neither up nor on its way up; says how it ended.
    async fn ended(&self) -> zbus::Result<String> {
        let mut changes = self
            .signals(PROPERTIES, "PropertiesChanged", self.unit.as_str())
            .await?;
        while self.state().await?.is_up() {
            changes.next().await.ok_or_else(disconnected)??;
        }
        Ok(self.result().await)
    }
}

fn disconnected() -> zbus::Error {
    zbus::Error::InputOutput(Arc::new(std::io::Error::from(ErrorKind::ConnectionReset)))
}
