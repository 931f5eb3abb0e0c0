//! A box that runs an image: a node's daemon in a mount namespace where the root is that of the image, its disk is a file with two slots, and
//! the restart that it asks of systemd is one of this box alone.

use crate::{
    appliance::{Appliance, Image},
    engine_support::{
        PATIENCE, app,
        broker::Hub,
        k3s::{EndsWithTest, process, supervised, write_program},
        node::Node,
        systemd::Systemd,
    },
};
use anyhow::{Context as _, Result, bail, ensure};
use holdfast::{
    boots::BootLog,
    local_api::client::ask,
    os::compare_versions,
    reconcile::system::{Record, Records},
};
use holdfast_harness::{Process, appliance_root, wait};
use holdfast_os::sign;
use holdfast_protocol::event::Event;
use holdfast_store::{Blobs, Options, Store};
use http::Method;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt as _,
    process::Stdio,
    sync::OnceLock,
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};

/// Version 1, which runs, and version 2, which comes.
pub fn images() -> &'static [Image; 2] {
    static IMAGES: OnceLock<[Image; 2]> = OnceLock::new();
    IMAGES.get_or_init(|| ["1", "2"].map(|version| Image::new(version, 1).unwrap()))
}

/// A kernel image as the boot loader sees it: version, tries left and made, file.
type Entry = (String, Option<(u32, u32)>, String);

/// How a stretch of a box's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With what was waited for.
    Seen,
    /// The daemon ended as if the power went.
    Cut,
}

pub struct Board {
    pub node: Node,
    pub appliance: Appliance,
    systemd: Systemd,
    /// The k3s that is part of each version, where the box has a Kubernetes of its own.
    programs: BTreeMap<String, String>,
    daemon: Option<Process>,
    gate: Option<Child>,
    starts: u32,
    /// Whether holdfast-health.service is there. Without it, the test judges starts itself.
    pub has_gate: bool,
    _end: EndsWithTest,
}

impl Board {
    /// A box that is switched off, enrolled, with version 1 in its first slot.
    pub async fn new(hub: &Hub, name: &str, programs: BTreeMap<String, String>) -> Result<Self> {
        let mut node = if programs.is_empty() {
            Node::enrolled(hub, name).await?
        } else {
            let mut node = supervised(hub, name).await?;
            node.settings.kubernetes.binary = node.path("k3s").display().to_string();
            node
        };
        let appliance = Appliance::running(&images()[0])?;
        let systemd = Systemd::boot("reboot.target", "[Unit]\nDefaultDependencies=no\n").await?;
        node.settings.kubernetes.systemd_bus = Some(systemd.address());
        node.write_settings()?;
        let board = Self {
            _end: EndsWithTest(node.settings.kubernetes_pid_file()),
            node,
            appliance,
            systemd,
            programs,
            daemon: None,
            gate: None,
            starts: 0,
            has_gate: true,
        };
        appliance_root::describe_disk(board.appliance.it.directory.path())?;
        Ok(board)
    }

    /// A document that wants this version of the operating system, and these objects, within so many seconds.
    pub fn leave(
        &self,
        hub: &Hub,
        counter: u64,
        version: &str,
        objects: &[Value],
        seconds: u32,
    ) -> Result<()> {
        let image = images()
            .iter()
            .find(|image| image.version == version)
            .context("an image")?;
        Blobs::open(&self.node.settings.state_dir)?.put(&image.pack)?;
        let manifest = sign(&image.manifest, &[&crate::appliance::key(1)])?;
        self.leave_manifest(hub, counter, version, &manifest, objects, seconds)
    }

    /// The same with any manifest.
    pub fn leave_manifest(
        &self,
        hub: &Hub,
        counter: u64,
        version: &str,
        manifest: &[u8],
        objects: &[Value],
        seconds: u32,
    ) -> Result<()> {
        let digest = Blobs::open(&self.node.settings.state_dir)?.put(manifest)?;
        let artifact = json!({"digest": digest, "size": manifest.len()});
        let mut document = self
            .node
            .document(counter, &[app("web", &self.node.name, objects)]);
        document["os"] = json!({"version": version, "images": {"amd64": artifact, "arm64": artifact}});
        document["policy"] = json!({"readyDeadlineSeconds": seconds, "stabilitySeconds": 0});
        self.node.leave_document(hub, &document)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = appliance_root::enter(self.appliance.it.directory.path());
        command
            .arg(env!("CARGO_BIN_EXE_holdfast"))
            .args(arguments)
            .arg("--config")
            .arg(self.node.path("holdfast.toml"));
        command
    }

    /// Switches the box on: the boot loader takes a kernel image and counts its try, as systemd-boot does. Gives the version.
    pub async fn power_on(&mut self) -> Result<String> {
        let mut entries: Vec<Entry> = Vec::new();
        for file in self.appliance.kernels()? {
            let Some(name) = file
                .strip_prefix("holdfast_")
                .and_then(|rest| rest.strip_suffix(".efi"))
            else {
                continue;
            };
            let (version, counter) = name
                .split_once('+')
                .map_or((name, None), |(version, counter)| (version, Some(counter)));
            let tries = match counter {
                None => None,
                Some(counter) => {
                    let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
                    Some((left.parse()?, done.parse()?))
                }
            };
            entries.push((version.to_owned(), tries, file.clone()));
        }
        let is_spent = |tries: Option<(u32, u32)>| matches!(tries, Some((0, _)));
        entries.sort_by(|a, b| {
            is_spent(a.1)
                .cmp(&is_spent(b.1))
                .then_with(|| compare_versions(&b.0, &a.0))
        });
        let (version, tries, file) = entries.into_iter().next().context("nothing boots")?;
        if let Some((left @ 1.., done)) = tries {
            self.rename(
                &file,
                &format!("holdfast_{version}+{}-{}.efi", left - 1, done + 1),
            )?;
        }
        let image = images()
            .iter()
            .find(|image| image.version == version)
            .context("an image")?;
        self.appliance.boots(image)?;
        self.starts += 1;
        let boot = format!("00000000-0000-4000-8000-{:012}\n", self.starts);
        fs::write(self.appliance.root().join("proc/boot_id"), boot)?;
        if let Some(program) = self.programs.get(&version) {
            write_program(&self.node.path("k3s"), program)?;
        }
        holdfast_harness::process::run(self.command(&["boot-record", "start"])).await?;
        Ok(version)
    }

    /// Gives a kernel image another name.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        let directory = self.appliance.esp().join("EFI/Linux");
        Ok(fs::rename(directory.join(from), directory.join(to))?)
    }

    /// Starts the daemon, and the command that judges this start of the machine.
    pub fn start(&mut self, failpoint: Option<&str>) -> Result<()> {
        let mut command = self.command(&["run"]);
        command.envs(failpoint.map(|name| ("HOLDFAST_FAILPOINT", name)));
        self.daemon = Some(Process::start("holdfast", command, &self.node.path("log"))?);
        Ok(())
    }

    /// Ends everything that runs on the box, as a loss of power does.
    pub async fn power_off(&mut self) -> Result<()> {
        self.gate = None;
        self.stop_daemon().await?;
        let Ok(kubernetes) = process(&self.node) else {
            return Ok(());
        };
        // It may have been stopped already.
        let _ = kill(kubernetes, Signal::SIGKILL);
        wait::until("Kubernetes has ended", 5 * PATIENCE, async || {
            let stat = fs::read_to_string(format!("/proc/{kubernetes}/stat")).unwrap_or_default();
            Ok((stat.is_empty() || stat.contains(") Z ")).then_some(()))
        })
        .await
    }

    /// Ends the daemon alone, without a word.
    pub async fn stop_daemon(&mut self) -> Result<()> {
        match self.daemon.take() {
            Some(mut daemon) => daemon.kill().await,
            None => Ok(()),
        }
    }

    /// What the daemon says of the box.
    pub async fn report(&self) -> Result<Value> {
        let socket = &self.node.settings.socket;
        let text = ask(socket, Method::GET, "/v1/status", Vec::new()).await?;
        let mut status: Value = serde_json::from_slice(&text)?;
        Ok(status["report"].take())
    }

    /// Judges this start of the machine as holdfast-health.service does, and marks it good as systemd-bless-boot does. Gives whether the
    /// machine stays up.
    pub async fn judge(&self, within: &str) -> Result<bool> {
        let output = self
            .command(&["health", "--boot", "--deadline", within])
            .output()
            .await?;
        self.judged(output.status.success())
    }

    fn judged(&self, stays: bool) -> Result<bool> {
        let running = self.running()?;
        for file in self.appliance.kernels()? {
            if stays && file.starts_with(&format!("holdfast_{running}+")) && !file.contains("+0.") {
                self.rename(&file, &format!("holdfast_{running}.efi"))?;
            }
        }
        Ok(stays)
    }

    fn running(&self) -> Result<String> {
        let text = fs::read_to_string(self.appliance.root().join("usr/lib/os-release"))?;
        let version = text.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="));
        Ok(version.context("a version")?.trim_matches('"').to_owned())
    }

    /// Lets the box live until the report is so: the machine restarts when that is asked for, and each of its starts is judged.
    pub async fn live(
        &mut self,
        what: &str,
        failpoint: Option<&str>,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<End> {
        let begun = Instant::now();
        let mut last = Value::Null;
        loop {
            if self.daemon.is_none() {
                self.start(failpoint)?;
            }
            if self.gate.is_none() && self.has_gate {
                let mut gate = self.command(&["health", "--boot", "--deadline", "900s"]);
                gate.stdout(Stdio::null()).stderr(Stdio::null());
                self.gate = Some(gate.spawn()?);
            }
            ensure!(
                begun.elapsed() < 10 * PATIENCE,
                "{what}: not in time; {last:#}\n{}\n{:?}",
                holdfast_harness::process::tail(&self.node.path("log"), 30),
                self.appliance.kernels()?
            );
            // Nothing tells of all of these at once; a wait that is over without an answer is the pause between two looks.
            let daemon = self.daemon.as_mut().context("just started")?;
            if let Ok(status) = daemon.wait(Duration::from_millis(100)).await {
                ensure!(
                    status.signal() == Some(6),
                    "{what}: the daemon ended with {status}"
                );
                self.daemon = None;
                return Ok(End::Cut);
            }
            let verdict = self.gate.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(verdict) = verdict
                && !self.judged(verdict.success())?
            {
                self.restart().await?;
                continue;
            }
            let Ok(report) = self.report().await else {
                continue;
            };
            if condition(&report) {
                return Ok(End::Seen);
            }
            let phase = report["generation"]["phase"].as_str().unwrap_or_default();
            if ["switching-os", "rolling-back"].contains(&phase)
                && self
                    .systemd
                    .property("reboot.target", "Unit", "ActiveState")
                    .await?
                    == "active"
            {
                self.restart().await?;
            }
            last = report["generation"].clone();
        }
    }

    async fn restart(&mut self) -> Result<()> {
        self.power_off().await?;
        self.systemd
            .manager("StopUnit", &["ss", "reboot.target", "replace"])
            .await?;
        self.power_on().await.map(drop)
    }

    /// Lets it live until this document runs, in this phase of the newest, on this version, in a start that was found good.
    pub async fn until(&mut self, running: &str, phase: &str, version: &str) -> Result<()> {
        let what = format!("{running} runs, {phase}, on version {version}");
        let end = self
            .live(&what, None, |report| {
                report["generation"]["running"] == running
                    && report["generation"]["phase"] == phase
                    && report["os"]["version"] == version
                    && report["os"]["good"] == true
            })
            .await?;
        match end {
            End::Seen => Ok(()),
            End::Cut => bail!("{what}: the daemon ended"),
        }
    }

    /// What is written down of its systems.
    pub fn record(&self) -> Record {
        Records::new(&self.node.settings.state_dir).read()
    }

    /// The record of its starts.
    pub fn boots(&self) -> BootLog {
        BootLog::new(&self.node.settings.state_dir)
    }

    /// What waits for the hub. The daemon must not run.
    pub fn events(&self) -> Result<Vec<Event>> {
        let store = Store::open(&self.node.settings.state_dir, Options::default())?;
        store
            .pending_events(10_000)?
            .iter()
            .map(|row| Ok(serde_json::from_slice(&row.payload)?))
            .collect()
    }
}
