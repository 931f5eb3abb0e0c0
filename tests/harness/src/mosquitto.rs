//! A real mosquitto with the configuration that Holdfast ships; only paths and the port are those of the test.

use crate::{paths, process::Process};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use tokio::process::Command;

/// Where Debian installs it; elsewhere it is looked for in `PATH`.
const PROGRAM: &str = "/usr/sbin/mosquitto";

/// A running mosquitto.
pub struct Mosquitto {
    process: Process,
    directory: PathBuf,
}

impl Mosquitto {
    /// Starts it at `address`, with what `holdfast-hub broker-certificate` wrote to `certificates`.
    pub fn start(directory: &Path, address: SocketAddr, certificates: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let shipped = paths::repository().join("control/mosquitto");
        let file = |name: &str| certificates.join(name).display().to_string();
        let mut changes = vec![
            ("listener", format!("{} {}", address.port(), address.ip())),
            ("cafile", file("ca.pem")),
            ("certfile", file("broker.pem")),
            ("keyfile", file("broker.key")),
            ("crlfile", file("revoked.pem")),
            ("acl_file", shipped.join("holdfast.acl").display().to_string()),
            ("persistence_location", format!("{}/", directory.display())),
        ];
        let mut lines = Vec::new();
        for line in fs::read_to_string(shipped.join("holdfast.conf"))?.lines() {
            let key = line.split_whitespace().next().unwrap_or_default();
            lines.push(match changes.iter().position(|(name, _)| *name == key) {
                Some(place) => {
                    let (name, value) = changes.remove(place);
                    format!("{name} {value}")
                }
                None => line.to_owned(),
            });
        }
        ensure!(changes.is_empty(), "the shipped configuration lacks {changes:?}");
        // Started by root it would change to a user who cannot read the test's files.
        lines.push("user root\n".to_owned());
        let configuration = directory.join("mosquitto.conf");
        fs::File::create(&configuration)?.write_all(lines.join("\n").as_bytes())?;
        Ok(Self {
            process: Self::run(directory)?,
            directory: directory.to_owned(),
        })
    }

    fn run(directory: &Path) -> Result<Process> {
        let program = if Path::new(PROGRAM).exists() {
            PROGRAM
        } else {
            "mosquitto"
        };
        let mut command = Command::new(program);
        command.arg("-c").arg(directory.join("mosquitto.conf"));
        Process::start("mosquitto", command, &directory.join("mosquitto.log"))
            .context("mosquitto is not installed: run `cargo xtask prerequisites`")
    }

    /// Kills it without warning.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// Starts it again after its death, on the same data.
    pub fn restart(&mut self) -> Result<()> {
        self.process = Self::run(&self.directory)?;
        Ok(())
    }
}
