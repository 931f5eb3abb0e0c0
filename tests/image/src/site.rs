//! A hub on this machine and one box that reaches it, with the state of both kept so that scenarios can branch off from it.

use crate::{
    Datastore, Disk, Machine, Setup,
    images::{self, Esp, Image, Partition},
};
use anyhow::{Context as _, Result, ensure};
use holdfast_harness::{Hub, paths, process::run, wait};
use holdfast_protocol::{
    Generation,
    document::{App, Artifact, ManifestSource, OsSection, Policy},
    event::Event,
    operator::{CreateToken, ReleaseContent},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    env, fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
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

/// A site whose hub has ended and whose box is off or stopped: then its memory is in a file beside its disk.
#[derive(Serialize, Deserialize)]
pub struct Frozen {
    disk: Disk,
    ports: (u16, u16),
    directory: PathBuf,
}

/// The memory of a stopped box, in a site's directory.
pub const MEMORY: &str = "memory";
/// The variables of its firmware.
const VARIABLES: &str = "firmware.fd";

/// Where the directory of a scenario is.
pub fn place(scenario: &str) -> PathBuf {
    let target = paths::repository().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    target.join("image-tests").join(scenario)
}

/// The directory of a scenario: its logs stay there, for people; what an earlier run left is removed.
pub fn directory(scenario: &str) -> Result<PathBuf> {
    let directory = place(scenario);
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
        let token = token(&hub, BOX).await?;
        let raw = copy(directory, image).await?;
        Esp::of(&raw)?.write("/holdfast/token", token.as_bytes()).await?;
        Self::flashed(directory, hub, &raw).await
    }

    /// As [`Site::prepare`], made a box of its own as a builder does it, with these arguments of `cargo xtask image personalise` beside the token.
    pub async fn personalise(directory: &Path, image: &Image, arguments: &[&str]) -> Result<Self> {
        let hub = Hub::start_for_guests(&directory.join("hub"), HOST, (0, 0)).await?;
        let file = directory.join("token");
        let token = token(&hub, BOX).await?;
        fs::File::create(&file)?.write_all(token.as_bytes())?;
        let raw = copy(directory, image).await?;
        let mut personalise = Command::new(paths::binary("xtask")?);
        personalise.args(["image", "personalise"]).arg(&raw);
        personalise.arg("--token-file").arg(&file).args(arguments);
        run(personalise).await?;
        Self::flashed(directory, hub, &raw).await
    }

    async fn flashed(directory: &Path, hub: Hub, raw: &Path) -> Result<Self> {
        Ok(Self {
            hub,
            disk: Disk::flashed(&directory.join("disk.qcow2"), raw, DISK).await?,
            directory: directory.to_owned(),
        })
    }

    /// Puts a token for a node of this name on the ESP; the box must be off.
    pub async fn write_token(&mut self, name: &str) -> Result<()> {
        let token = token(&self.hub, name).await?;
        let raw = self.take_out().await?;
        Esp::of(&raw)?.write("/holdfast/token", token.as_bytes()).await?;
        self.put_in(&raw).await
    }

    /// Fills the ESP until less than `room` bytes are left; the box must be off.
    pub async fn fill_esp(&mut self, room: u64) -> Result<()> {
        let raw = self.take_out().await?;
        let esp = Esp::of(&raw)?;
        let mut size = images::labelled(&raw, "esp")?.length;
        let mut file = 0;
        while size >= room {
            // What does not fit is not copied at all; half of it may.
            let ballast = vec![0xa5; usize::try_from(size)?];
            let path = format!("/ballast-{file}");
            match esp.write(&path, &ballast).await {
                Ok(()) => file += 1,
                Err(_) => {
                    drop(esp.remove(&path).await);
                    size /= 2;
                }
            }
        }
        ensure!(file > 0, "nothing fitted on the ESP");
        self.put_in(&raw).await
    }

    /// Fills the state partition until about `room` bytes are left; the box must be off.
    pub async fn fill_state(&mut self, room: u64) -> Result<()> {
        let raw = self.take_out().await?;
        let state = images::labelled(&raw, "state")?;
        let file_system = format!("{}?offset={}", raw.display(), state.offset);
        let debugfs = async |request: &str| {
            let mut command = Command::new("debugfs");
            command.args(["-w", "-R", request]).arg(&file_system);
            run(command).await
        };
        // The box may have been stopped with entries in the journal.
        debugfs("jr").await?;
        let said = debugfs("stats -h").await?;
        let number = |name: &str| -> Result<u64> {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            Ok(line
                .with_context(|| format!("no {name} in {said}"))?
                .trim()
                .parse()?)
        };
        let left = room / number("Block size:")?;
        let taken = number("Free blocks:")?.saturating_sub(left);
        debugfs("write /dev/null ballast").await?;
        debugfs(&format!("fallocate ballast 0 {taken}")).await?;
        self.put_in(&raw).await
    }

    async fn take_out(&self) -> Result<PathBuf> {
        let raw = self.directory.join("changed.raw");
        convert(&self.disk, &raw).await?;
        Ok(raw)
    }

    async fn put_in(&mut self, raw: &Path) -> Result<()> {
        self.disk = Disk::flashed(&self.directory.join("changed.qcow2"), raw, DISK).await?;
        Ok(())
    }

    /// Switches the box on.
    pub async fn switch_on(&self, setup: &Setup) -> Result<Machine> {
        Machine::switch_on(&self.directory, &self.disk, setup).await
    }

    /// Gives the box a release with a small app, and an operating system where one is named, and waits for nothing.
    pub async fn release(&self, name: &str, os: Option<OsSection>) -> Result<Generation> {
        let app = App {
            name: "web".to_owned(),
            manifests: vec![ManifestSource::Inline(vec![
                json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": "page", "namespace": "default"},
                    "data": {"release": name},
                }),
                json!({
                    "apiVersion": "apps/v1", "kind": "Deployment",
                    "metadata": {"name": "web", "namespace": "default"},
                    "spec": {
                        "replicas": 1,
                        "selector": {"matchLabels": {"app": "web"}},
                        "template": {
                            "metadata": {"labels": {"app": "web"}},
                            "spec": {"containers": [{"name": "main", "image": "registry.k8s.io/pause:3.10"}]},
                        },
                    },
                }),
            ])],
            ..App::default()
        };
        let content = ReleaseContent {
            os,
            apps: vec![app],
            policy: Policy {
                ready_deadline_seconds: 3600,
                ..Policy::default()
            },
            ..ReleaseContent::default()
        };
        self.hub.create_release_of(name, content).await?;
        self.hub.assign(name, BOX).await
    }

    /// Uploads what an update to `image` needs and gives the section of a release that asks for it.
    pub async fn push_os(&self, version: &str, image: &Image) -> Result<OsSection> {
        self.hub.put_blob(fs::read(image.pack()?)?).await?;
        let manifest = fs::read(image.manifest()?)?;
        let size = u64::try_from(manifest.len())?;
        let artifact = Artifact {
            digest: self.hub.put_blob(manifest).await?,
            size,
            name: String::new(),
            sources: Vec::new(),
            extra: serde_json::Map::new(),
        };
        Ok(OsSection {
            version: version.to_owned(),
            images: [(image.architecture().name().to_owned(), artifact)].into(),
            max_bytes_per_second: None,
            extra: serde_json::Map::new(),
        })
    }

    /// Waits for an event of the box that satisfies `condition`.
    pub async fn event(
        &self,
        what: &str,
        within: Duration,
        condition: impl Fn(&Event) -> bool,
    ) -> Result<Event> {
        wait::until(what, within, || async {
            Ok(self.hub.events(BOX).await?.into_iter().find(&condition))
        })
        .await
    }

    /// Where everything of it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The box's ESP as it is now; the box must be off. It is a copy.
    pub async fn esp(&self) -> Result<(tempfile::TempDir, Esp)> {
        esp(&self.disk).await
    }

    /// The datastore of the box's Kubernetes as it is now; the box must be off.
    pub async fn datastore(&self) -> Result<Datastore> {
        let (_directory, raw) = raw(&self.disk).await?;
        Datastore::of(&raw).await
    }

    /// The partitions of the box's disk as they are now; the box must be off.
    pub async fn partitions(&self) -> Result<Vec<Partition>> {
        let (_directory, raw) = raw(&self.disk).await?;
        images::partitions(&fs::File::open(raw)?)
    }

    /// Stops the box as it runs, and ends the hub.
    pub async fn freeze(self, machine: Machine) -> Result<Frozen> {
        machine.hold(&self.directory.join(MEMORY)).await?;
        self.put_away().await
    }

    /// Ends the hub; the box must be off. What comes of it can be branched off from, but not gone on with.
    pub async fn put_away(self) -> Result<Frozen> {
        let ports = self.hub.stop().await?;
        Ok(Frozen {
            disk: self.disk,
            ports,
            directory: self.directory,
        })
    }
}

impl Frozen {
    /// A copy of the box's ESP.
    pub async fn esp(&self) -> Result<(tempfile::TempDir, Esp)> {
        esp(&self.disk).await
    }

    /// The partitions of the box's disk.
    pub async fn partitions(&self) -> Result<Vec<Partition>> {
        let (_directory, raw) = raw(&self.disk).await?;
        images::partitions(&fs::File::open(raw)?)
    }

    /// A site in `directory` that goes on from here, with the box off, as after a cut of its power: the same hub for its nodes, the same box.
    /// One at a time: they share the hub's ports.
    pub async fn branch(&self, directory: &Path) -> Result<Site> {
        let hub = directory.join("hub");
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(self.directory.join("hub")).arg(&hub);
        run(copy).await?;
        fs::copy(self.directory.join(VARIABLES), directory.join(VARIABLES))
            .context("the firmware's variables")?;
        Ok(Site {
            hub: Hub::start_for_guests(&hub, HOST, self.ports).await?,
            disk: self.disk.branch(&directory.join("disk.qcow2")).await?,
            directory: directory.to_owned(),
        })
    }

    /// As [`Frozen::branch`], but the box runs on from where it was stopped: nothing of it has to start, and its clock is behind.
    pub async fn go_on(&self, directory: &Path) -> Result<(Site, Machine)> {
        let site = self.branch(directory).await?;
        let memory = self.directory.join(MEMORY);
        let machine = Machine::go_on(directory, &site.disk, &Setup::default(), &memory).await?;
        Ok((site, machine))
    }
}

async fn esp(disk: &Disk) -> Result<(tempfile::TempDir, Esp)> {
    let (directory, raw) = raw(disk).await?;
    Ok((directory, Esp::of(&raw)?))
}

/// A copy of the raw image that may be written.
async fn copy(directory: &Path, image: &Image) -> Result<PathBuf> {
    let raw = directory.join("flashed.raw");
    let mut copy = Command::new("cp");
    copy.args(["--sparse=always", "--reflink=auto"])
        .arg(image.raw()?)
        .arg(&raw);
    run(copy).await?;
    Ok(raw)
}

/// A new token for a node of this name.
async fn token(hub: &Hub, name: &str) -> Result<String> {
    let request = CreateToken {
        node_name: Some(name.parse()?),
        ..CreateToken::default()
    };
    Ok(hub.create_token(&request).await?.token)
}

/// The disk as one sparse raw file.
async fn raw(disk: &Disk) -> Result<(tempfile::TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    let raw = directory.path().join("disk.raw");
    convert(disk, &raw).await?;
    Ok((directory, raw))
}

async fn convert(disk: &Disk, raw: &Path) -> Result<()> {
    let mut convert = Command::new("qemu-img");
    convert
        .args(["convert", "-f", "qcow2", "-O", "raw"])
        .arg(disk.path())
        .arg(raw);
    run(convert).await.map(drop)
}
