//! A box that has booted from the image for the first time, enrolled, and runs its app; the state that most scenarios begin with.
//!
//! The first boot takes minutes in software emulation, so it runs once in a test program; what it left is branched off from.

use crate::{
    Architecture, Images, Machine, Setup, Site, scenario,
    site::{BOX, Frozen},
};
use anyhow::{Context as _, Result, anyhow, ensure};
use holdfast_protocol::{event::EventKind, report::Health};
use std::{path::PathBuf, time::Duration};
use tokio::sync::OnceCell;

/// How long a boot may take until the box has told the hub that its app runs, on a busy machine with two processors and no hardware help:
/// about five times what it took when measured.
pub const BOOT: Duration = Duration::from_secs(1200);
/// How long a box may take to switch itself off.
pub const OFF: Duration = Duration::from_secs(180);
/// What systemd says on the console when a boot is found good.
pub const GOOD: &str = "boot-complete.target";

static ENROLLED: OnceCell<Result<Frozen, String>> = OnceCell::const_new();

/// The state after the first boot, made once.
pub async fn enrolled() -> Result<&'static Frozen> {
    ENROLLED
        .get_or_init(|| async {
            scenario::run("first-boot", first_boot)
                .await
                .map_err(|error| format!("{error:#}"))
        })
        .await
        .as_ref()
        .map_err(|error| anyhow!("the first boot failed: {error}"))
}

/// Flashes the image with a token on its ESP, boots it, waits for the box at the hub, gives it an app and sees it proven.
async fn first_boot(directory: PathBuf) -> Result<Frozen> {
    let image = Images::given()?.of("one", Architecture::Amd64)?;
    let site = Site::prepare(&directory, &image).await?;
    let machine = site.switch_on(&Setup::default()).await?;
    machine
        .meanwhile(
            site.hub
                .wait_for_node(BOX, "the box enrols", BOOT, |node| node.online),
        )
        .await?;
    let generation = site.release("first", None).await?;
    let node = machine
        .meanwhile(site.hub.wait_for_proven(BOX, generation, BOOT))
        .await?;
    let status = node.status.context("the hub has no report of the box")?;
    ensure!(
        status.kubernetes.health == Health::Healthy,
        "{:?}",
        status.kubernetes
    );
    ensure!(
        status.apps.iter().all(|app| app.health == Health::Healthy),
        "{:?}",
        status.apps
    );
    machine
        .meanwhile(
            site.hub
                .wait_for_node(BOX, "the boot is good", BOOT, is_good("1")),
        )
        .await?;
    machine.shut_down(OFF).await?;
    site.freeze().await
}

/// Whether a box runs this version of the image, in a boot that was found good.
pub fn is_good(version: &str) -> impl FnMut(&holdfast_protocol::operator::NodeInfo) -> bool {
    move |node| {
        node.online
            && node
                .status
                .as_ref()
                .and_then(|status| status.os.as_ref())
                .is_some_and(|os| os.version == version && os.good)
    }
}

/// Waits until systemd finds the boot good, on the console alone: works without a network.
pub async fn boot_is_good(machine: &mut Machine) -> Result<()> {
    machine.console.wait_for(&[GOOD], BOOT).await.map(drop)
}

/// Whether the hub was told that the box went back to another version of its operating system.
pub async fn went_back(site: &Site) -> Result<bool> {
    Ok(site
        .hub
        .events(BOX)
        .await?
        .iter()
        .any(|event| event.kind == EventKind::OsRolledBack))
}
