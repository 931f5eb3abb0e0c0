//! A hub on this machine and one box that reaches it, with the state of both kept so that scenarios can branch off from it.

use crate::{
    Disk, Machine, Setup,
    images::{Esp, Image},
};
use anyhow::{Context as _, Result};
use holdfast_harness::{Hub, paths, process::run};
use holdfast_protocol::operator::CreateToken;
use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};
use tokio::process::Command;

/// Where QEMU's user mode network puts the machine that it runs on.
pub const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));
/// The name that the box gets.
pub const BOX: &str = "box";
/// Size of its disk, in bytes: what a small box has; an overlay takes only what is written.
pub const DISK: u64 = 8 << 30;

/// A hub and a box.
pub struct Site {
    /// The hub.
    pub hub: Hub,
    /// The box's disk.
    pub disk: Disk,
    directory: PathBuf,
}

/// A site whose hub has ended and whose box is off.
pub struct Frozen {
    disk: Disk,
    ports: (u16, u16),
    directory: PathBuf,
}

/// The directory of a scenario: its logs stay there, for people; what an earlier run left is removed.
pub fn directory(scenario: &str) -> Result<PathBuf> {
    let target = paths::repository().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    let directory = target.join("image-tests").join(scenario);
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

impl Site {
    /// A hub, and the disk of a box with this image and a token of the hub on it, not switched on yet.
    pub async fn prepare(directory: &Path, image: &Image) -> Result<Self> {
        let hub = Hub::start_for_guests(&directory.join("hub"), HOST, (0, 0)).await?;
        let request = CreateToken {
            node_name: Some(BOX.parse()?),
            ..CreateToken::default()
        };
        let token = hub.create_token(&request).await?;
        let raw = directory.join("flashed.raw");
        let mut copy = Command::new("cp");
        copy.args(["--sparse=always", "--reflink=auto"])
            .arg(image.raw()?)
            .arg(&raw);
        run(copy).await?;
        Esp::of(&raw)?
            .write("/holdfast/token", token.token.as_bytes())
            .await?;
        let disk = Disk::flashed(&directory.join("disk.qcow2"), &raw, DISK).await?;
        Ok(Self {
            hub,
            disk,
            directory: directory.to_owned(),
        })
    }

    /// Switches the box on.
    pub async fn switch_on(&self, setup: &Setup) -> Result<Machine> {
        Machine::switch_on(&self.directory, &self.disk, setup).await
    }

    /// Where everything of it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The box's ESP as it is now; the box must be off. It is a copy.
    pub async fn esp(&self) -> Result<(tempfile::TempDir, Esp)> {
        let directory = tempfile::tempdir()?;
        let raw = directory.path().join("disk.raw");
        // The partition table and the ESP are at the beginning, and the state partition's bulk is not copied.
        let mut convert = Command::new("qemu-img");
        convert
            .args(["convert", "-f", "qcow2", "-O", "raw", "-S", "4k"])
            .arg(self.disk.path())
            .arg(&raw);
        run(convert).await?;
        let esp = Esp::of(&raw)?;
        Ok((directory, esp))
    }

    /// Ends the hub. The box must be off.
    pub async fn freeze(self) -> Result<Frozen> {
        let ports = self.hub.stop().await?;
        Ok(Frozen {
            disk: self.disk,
            ports,
            directory: self.directory,
        })
    }
}

impl Frozen {
    /// A site in `directory` that goes on from here: the same hub for its nodes, the same box. One at a time: they share the hub's ports.
    pub async fn branch(&self, directory: &Path) -> Result<Site> {
        let hub = directory.join("hub");
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(self.directory.join("hub")).arg(&hub);
        run(copy).await?;
        let variables = "firmware.fd";
        fs::copy(self.directory.join(variables), directory.join(variables))
            .context("the firmware's variables")?;
        Ok(Site {
            hub: Hub::start_for_guests(&hub, HOST, self.ports).await?,
            disk: self.disk.branch(&directory.join("disk.qcow2")).await?,
            directory: directory.to_owned(),
        })
    }
}
