//! What it costs a box to be started with Holdfast: from power-on until Kubernetes answers, against the same image that starts the same k3s by a
//! plain unit of systemd.
//!
//! In: two images, `one` and `bare`, as `cargo xtask bench` builds them, and QEMU. Both boot from a disk that was set up before, branched anew for
//! each boot. The moment is a line of k3s itself, once its API says that it is ready; in both images the log is shown on the console, where it is
//! read. Guarantees: one machine runs at a time; the hub has ended, for it would share this machine's processors as it shares no box's.

use crate::figures::{Figures, median, median_of_pairs};
use anyhow::{Context as _, Result};
use holdfast_image_tests::{
    Architecture, Disk, Images, Machine, Setup, Site,
    base::{BOOT, OFF, comes_up},
    site::{self, DISK},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// What k3s says once its API is ready.
const READY: &str = "Kube API server is now running";
/// What it says once all of it runs.
const RUNS: &str = "k3s is up and running";
/// What systemd says once the boot loader's entry has no counter any more; long before k3s runs.
const GOOD: &str = "Finished systemd-bless-boot.service";
/// Most time over that of the bare image.
const LIMIT: f64 = 1.05;
/// The variables of a box's firmware, in the directory of the box.
const VARIABLES: &str = "firmware.fd";

/// A box that was set up and switched off.
struct SetUp {
    directory: PathBuf,
    disk: Disk,
}

impl SetUp {
    /// Switches it on, as it was left when it was set up, and gives how long it takes until Kubernetes answers.
    async fn boot(&self) -> Result<f64> {
        let directory = self.directory.join("boot");
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir(&directory)?;
        fs::copy(self.directory.join(VARIABLES), directory.join(VARIABLES))
            .context("the firmware's variables")?;
        let disk = self.disk.branch(&directory.join("disk.qcow2")).await?;
        let begun = Instant::now();
        let mut machine = Machine::switch_on(&directory, &disk, &Setup::default()).await?;
        machine.console.wait_for(&[READY], BOOT).await?;
        let took = begun.elapsed();
        machine.cut_power().await?;
        Ok(took.as_secs_f64())
    }
}

/// Boots both, in turn, so many times.
pub async fn measure(images: &Path, pairs: usize, figures: &mut Figures) -> Result<()> {
    // What lies below a disk is named in the disk.
    let images = images.canonicalize().with_context(|| {
        format!(
            "{}: `cargo xtask bench --only boot` builds what is booted",
            images.display()
        )
    })?;
    let images = Images::in_directory(&images);
    let directory = site::directory("bench-boot")?;
    let supervised = supervised(&images, &directory.join("supervised")).await?;
    let bare = bare(&images, &directory.join("bare")).await?;
    let mut took = [Vec::new(), Vec::new()];
    for pair in 0..pairs {
        for turn in 0..2 {
            // Who comes first in a pair comes second in the next one.
            let which = (pair + turn) % 2;
            let seconds = [&supervised, &bare][which].boot().await?;
            eprintln!(
                "boot: pair {pair}: {} {seconds:.2} s",
                ["with Holdfast", "without"][which]
            );
            took[which].push(seconds);
        }
    }
    let [mut supervised, mut bare] = took;
    let ratio = median_of_pairs(&supervised, &bare);
    let (supervised, bare) = (median(&mut supervised), median(&mut bare));
    figures.add(
        "boot.overhead_ratio",
        ratio,
        "",
        Some(LIMIT),
        format!(
            "from power-on until k3s (that of the tests) says that its API is ready, on a box set up before, in QEMU without hardware help ({supervised:.1} s), over the same image without Holdfast's units and with a plain one for k3s ({bare:.1} s); p50 of {pairs} pairs in turn, without a hub"
        ),
    );
    Ok(())
}

/// A box that has enrolled, has proven a release and was found good.
async fn supervised(images: &Images, directory: &Path) -> Result<SetUp> {
    fs::create_dir_all(directory)?;
    let site = Site::prepare(directory, &images.of("one", Architecture::Amd64)?).await?;
    let machine = site.switch_on(&Setup::default()).await?;
    comes_up(&site, &machine).await?;
    machine.shut_down(OFF).await?;
    let disk = site.disk.clone();
    site.hub.stop().await?;
    Ok(SetUp {
        directory: directory.to_owned(),
        disk,
    })
}

/// A box whose k3s has run once.
async fn bare(images: &Images, directory: &Path) -> Result<SetUp> {
    fs::create_dir_all(directory)?;
    let raw = images.of("bare", Architecture::Amd64)?.raw()?;
    let disk = Disk::flashed(&directory.join("disk.qcow2"), &raw, DISK).await?;
    let mut machine = Machine::switch_on(directory, &disk, &Setup::default()).await?;
    machine.console.wait_for(&[GOOD], BOOT).await?;
    machine.console.wait_for(&[RUNS], BOOT).await?;
    machine.shut_down(OFF).await?;
    Ok(SetUp {
        directory: directory.to_owned(),
        disk,
    })
}
