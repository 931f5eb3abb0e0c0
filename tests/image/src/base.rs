//! A box that has booted from the image for the first time, enrolled, and runs its app; the state that most scenarios begin with.
//!
//! The first boot takes minutes in software emulation, so it runs once for one image and one hub, also where several test programs need it;
//! what it left, the box with its memory as it runs, is branched off from.

use crate::{
    Architecture, Images, Machine, Setup, Site, scenario,
    site::{self, BOX, Frozen},
};
use anyhow::{Context as _, Result, anyhow, ensure};
use holdfast_harness::paths;
use holdfast_protocol::{event::EventKind, report::Health};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};
use tokio::sync::OnceCell;

/// How long a boot may take until the box has told the hub that its app runs, on a busy machine with two processors and no hardware help:
/// about five times what it took when measured.
pub const BOOT: Duration = Duration::from_secs(1200);
/// How long a box may take to switch itself off.
pub const OFF: Duration = Duration::from_secs(180);
/// What systemd says on the console when a boot is found good. Not the target behind it, which only a boot with a counter reaches.
pub const GOOD: &str = "Finished holdfast-health.service";

/// What the firmware says when it starts the boot loader.
pub const LOADER: &str = "BdsDxe: starting";
/// How what the kernel says first begins. What it says later is too quiet for the console.
pub const KERNEL: &str = "EFI stub:";
/// What the kernel says where the firmware enforces Secure Boot.
pub const ENFORCED: &str = "UEFI Secure Boot is enabled";
/// What systemd says at the end of the initrd.
pub const INITRD: &str = "Reached target initrd.target";
/// What systemd says first when the box's own system begins; its version follows.
pub const OWN_SYSTEM: &str = "Welcome to Holdfast";

static ENROLLED: OnceCell<Result<Frozen, String>> = OnceCell::const_new();

/// The state after the first boot, made once.
pub async fn enrolled() -> Result<&'static Frozen> {
    ENROLLED
        .get_or_init(|| async { kept_or_made().await.map_err(|error| format!("{error:#}")) })
        .await
        .as_ref()
        .map_err(|error| anyhow!("the first boot failed: {error}"))
}

/// What a kept first boot is of: with another one of these it is made anew.
#[derive(PartialEq, Serialize, Deserialize)]
struct Of {
    /// The description of the image, with its root hash.
    image: String,
    /// When the hub was built, in seconds since 1970; and its size in bytes.
    hub: (u64, u64),
}

#[derive(Serialize, Deserialize)]
struct Kept {
    of: Of,
    frozen: Frozen,
}

async fn kept_or_made() -> Result<Frozen> {
    let hub = fs::metadata(paths::binary("holdfast-hub")?)?;
    let built = hub.modified()?.duration_since(UNIX_EPOCH)?.as_secs();
    let of = Of {
        image: fs::read_to_string(
            Images::given()?
                .of("one", Architecture::Amd64)?
                .only("image.json")?,
        )?,
        hub: (built, hub.len()),
    };
    let file = site::place("first-boot").join("kept.json");
    if let Ok(text) = fs::read(&file) {
        let kept: Kept = serde_json::from_slice(&text)?;
        if kept.of == of {
            return Ok(kept.frozen);
        }
    }
    let kept = Kept {
        frozen: scenario::keep("first-boot", first_boot).await?,
        of,
    };
    fs::File::create(file)?.write_all(&serde_json::to_vec(&kept)?)?;
    Ok(kept.frozen)
}

/// Flashes the image with a token on its ESP, boots it, waits for the box at the hub, gives it an app and sees it proven.
async fn first_boot(directory: PathBuf) -> Result<Frozen> {
    let image = Images::given()?.of("one", Architecture::Amd64)?;
    let site = Site::prepare(&directory, &image).await?;
    let machine = site.switch_on(&Setup::default()).await?;
    comes_up(&site, &machine).await?;
    // systemd-boot has enrolled the keys on the ESP, as it does in virtual machines, and they are enforced from the start of this kernel on: here, and in
    // all that branches off from here.
    ensure!(machine.console.contains(ENFORCED), "Secure Boot is not enforced");
    site.freeze(machine).await
}

/// Waits until a box of version 1 has enrolled, has been given an app and proven it, and was found good.
pub async fn comes_up(site: &Site, machine: &Machine) -> Result<()> {
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
    Ok(())
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
