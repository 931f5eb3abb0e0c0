//! What the firmware and the disk must not get past: unsigned kernels and damaged data; and the other processor.

use anyhow::{Context as _, Result, ensure};
use holdfast_image_tests::{
    Architecture, Disk, Images, Machine, Setup, Site,
    base::{self, BOOT, OFF},
    images::{self, Esp},
    scenario,
    site::{self, BOX},
};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long the firmware and the kernel may take until the kernel's first words.
const KERNEL: Duration = Duration::from_secs(300);
/// What the kernel says first.
const FIRST_WORDS: &str = "Linux version";

/// A copy of the raw image that may be written.
fn copy(directory: &Path) -> Result<PathBuf> {
    let raw = directory.join("flashed.raw");
    fs::copy(Images::given()?.of("one", Architecture::Amd64)?.raw()?, &raw)?;
    Ok(raw)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_kernel_does_not_boot_where_secure_boot_is_enforced() -> Result<()> {
    scenario::run("secure-boot", |directory| async move {
        let raw = copy(&directory)?;
        let setup = Setup {
            secure_boot: true,
            ..Setup::default()
        };
        // In setup mode, systemd-boot enrols the keys that lie on the ESP and restarts; from then on they are enforced.
        let disk = Disk::flashed(&directory.join("signed.qcow2"), &raw, site::DISK).await?;
        let mut machine = Machine::switch_on(&directory, &disk, &setup).await?;
        machine
            .console
            .wait_for(&["UEFI Secure Boot is enabled"], 2 * KERNEL)
            .await?;
        machine.cut_power().await?;

        let esp = Esp::of(&raw)?;
        let kernel = esp
            .list("/EFI/Linux")
            .await?
            .into_iter()
            .next()
            .context("no kernel on the ESP")?;
        let path = format!("/EFI/Linux/{kernel}");
        let mut content = esp.read(&path).await?;
        // In the middle of the initrd: nothing but the signature can notice it before it runs.
        let middle = content.len() / 2;
        content[middle] ^= 1;
        esp.write(&path, &content).await?;
        let disk = Disk::flashed(&directory.join("altered.qcow2"), &raw, site::DISK).await?;
        let mut machine = Machine::switch_on(&directory, &disk, &setup).await?;
        let said = machine
            .console
            .wait_for(
                &[
                    "Access denied",
                    "Access Denied",
                    "Security violation",
                    "Security Violation",
                    FIRST_WORDS,
                ],
                KERNEL,
            )
            .await?;
        ensure!(!said.contains(FIRST_WORDS), "the altered kernel runs: {said}");
        machine.cut_power().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_system_is_not_run() -> Result<()> {
    scenario::run("verity-damage", |directory| async move {
        let raw = copy(&directory)?;
        let usr = images::partitions(&File::open(&raw)?)?
            .into_iter()
            .find(|partition| partition.label == "holdfast_1")
            .context("no partition holdfast_1")?;
        // The file system's own description: it is read first, so that the damage shows in every boot.
        let file = File::options().read(true).write(true).open(&raw)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, usr.offset + 1024 + 40)?;
        file.write_all_at(&[byte[0] ^ 1], usr.offset + 1024 + 40)?;
        let disk = Disk::flashed(&directory.join("disk.qcow2"), &raw, site::DISK).await?;
        let mut machine = Machine::switch_on(&directory, &disk, &Setup::default()).await?;
        machine.console.wait_for(&[FIRST_WORDS], KERNEL).await?;
        machine.forget_restarts().await?;
        machine.console.wait_for(&["is corrupted"], BOOT).await?;
        // It uses up its tries, so that another slot would get its turn.
        machine.restarts(BOOT).await?;
        ensure!(
            !machine.console.contains(base::GOOD),
            "a boot from the damaged system was found good"
        );
        machine.cut_power().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_64_bit_arm_box_boots_enrols_and_reports() -> Result<()> {
    scenario::run("arm", |directory| async move {
        let image = Images::given()?.of("one", Architecture::Arm64)?;
        let site = Site::prepare(&directory, &image).await?;
        let setup = Setup {
            architecture: Architecture::Arm64,
            ..Setup::default()
        };
        let machine = site.switch_on(&setup).await?;
        let node = machine
            .meanwhile(
                site.hub
                    .wait_for_node(BOX, "the box tells of a good start", BOOT, base::is_good("1")),
            )
            .await?;
        ensure!(
            node.hardware.architecture == "aarch64",
            "it says that it is {:?}",
            node.hardware
        );
        machine.shut_down(OFF).await?;
        let (_copy, esp) = site.esp().await?;
        let kernels = esp.list("/EFI/Linux").await?;
        ensure!(kernels == ["holdfast_1.efi"], "{kernels:?}");
        Ok(())
    })
    .await
}
