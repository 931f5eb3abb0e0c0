//! What the firmware and the disk must not get past: unsigned kernels and damaged data; who may log in; the
//! watchdog; and the other processor.

use anyhow::{Context as _, Result, ensure};
use holdfast_harness::{process::run, wait};
use holdfast_image_tests::{
    Architecture, Disk, Images, Machine, Setup, Site,
    base::{self, BOOT, OFF},
    images::Esp,
    scenario,
    site::{self, BOX},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;

/// How long the firmware and the kernel may take until the kernel's first words.
const KERNEL: Duration = Duration::from_secs(300);
/// How long the box's SSH may take, once its start was found good, until it lets a developer in: it makes its keys first.
const SSH: Duration = Duration::from_secs(60);

/// A copy of the raw image that may be written.
fn copy(directory: &Path) -> Result<PathBuf> {
    let raw = directory.join("flashed.raw");
    fs::copy(Images::given()?.of("one", Architecture::Amd64)?.raw()?, &raw)?;
    Ok(raw)
}

/// What firmware and boot loader say of a kernel that they do not start.
const REFUSED: [&str; 4] = [
    "Access denied",
    "Access Denied",
    "Security violation",
    "Security Violation",
];

/// A box whose firmware guards the variables of Secure Boot with a mode of the processor that no kernel reaches.
fn guarded() -> Setup {
    Setup {
        secure_boot: true,
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kernels_altered_or_without_a_signature_do_not_boot_where_secure_boot_is_enforced() -> Result<()> {
    scenario::run("secure-boot", |directory| async move {
        let raw = copy(&directory)?;
        // In setup mode, systemd-boot enrols the keys that lie on the ESP and restarts; from then on they are enforced.
        let disk = Disk::flashed(&directory.join("signed.qcow2"), &raw, site::DISK).await?;
        let mut machine = Machine::switch_on(&directory, &disk, &guarded()).await?;
        machine.console.wait_for(&[base::ENFORCED], 2 * KERNEL).await?;
        machine.cut_power().await?;

        let esp = Esp::of(&raw)?;
        let kernel = esp
            .list("/EFI/Linux")
            .await?
            .into_iter()
            .next()
            .context("no kernel on the ESP")?;
        let path = format!("/EFI/Linux/{kernel}");
        let signed = esp.read(&path).await?;
        let mut altered = signed.clone();
        // In the middle of the initrd: nothing but the signature can notice it before it runs.
        let middle = altered.len() / 2;
        altered[middle] ^= 1;
        for (what, content) in [("altered", altered), ("unsigned", unsigned(signed)?)] {
            esp.write(&path, &content).await?;
            let disk = Disk::flashed(&directory.join(format!("{what}.qcow2")), &raw, site::DISK).await?;
            let mut machine = Machine::switch_on(&directory, &disk, &guarded()).await?;
            let mut signs = REFUSED.to_vec();
            signs.push(base::KERNEL);
            let said = machine.console.wait_for(&signs, KERNEL).await?;
            ensure!(!said.contains(base::KERNEL), "the {what} kernel runs: {said}");
            println!("{what}: {said}");
            machine.cut_power().await?;
        }
        Ok(())
    })
    .await
}

/// A program for UEFI without its signature, as if it had never been signed.
fn unsigned(mut program: Vec<u8>) -> Result<Vec<u8>> {
    let number = |program: &[u8], at: usize| -> Result<usize> {
        let bytes = program.get(at..at + 4).context("the program is cut short")?;
        Ok(usize::try_from(u32::from_le_bytes(bytes.try_into()?))?)
    };
    // "PE Format", Microsoft: the header's place is at 60; the optional header behind 24 bytes of it; in a 64-bit one, the certificate table is
    // the fifth entry of 8 bytes from its byte 112 on, and lies at the end of the file.
    let entry = number(&program, 60)? + 24 + 112 + 4 * 8;
    let (place, size) = (number(&program, entry)?, number(&program, entry + 4)?);
    ensure!(
        place > 0 && size > 0 && place + size == program.len(),
        "the kernel is not signed as expected: {size} bytes at {place} of {}",
        program.len()
    );
    program.truncate(place);
    program[entry..entry + 8].fill(0);
    Ok(program)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_system_is_not_run_where_secure_boot_is_enforced() -> Result<()> {
    scenario::run("verity-damage", |directory| async move {
        let raw = copy(&directory)?;
        let disk = Disk::flashed(&directory.join("disk.qcow2"), &raw, site::DISK).await?;
        disk.damage("holdfast_1").await?;
        let mut machine = Machine::switch_on(&directory, &disk, &guarded()).await?;
        machine.console.wait_for(&[base::ENFORCED], 2 * KERNEL).await?;
        machine.forget_restarts().await?;
        machine.console.wait_for(&["is corrupted"], BOOT).await?;
        // It uses up its tries, so that another slot would get its turn.
        machine.restarts(BOOT).await?;
        ensure!(
            !machine.console.contains(base::OWN_SYSTEM),
            "a program of the damaged system ran"
        );
        machine.cut_power().await
    })
    .await
}

/// A developer's key for SSH.
struct Key(PathBuf);

impl Key {
    async fn generate(directory: &Path) -> Result<Self> {
        let key = directory.join("key");
        let mut generate = Command::new("ssh-keygen");
        generate.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
        run(generate).await?;
        Ok(Self(key))
    }

    /// A box that is handed the key.
    fn setup(&self) -> Result<Setup> {
        Ok(Setup {
            ssh_key: Some(fs::read_to_string(self.0.with_extension("pub"))?),
            ..Setup::default()
        })
    }

    /// What a command on the box prints, over SSH; waits until the box lets somebody in.
    async fn over_ssh(&self, machine: &mut Machine, command: &[&str]) -> Result<String> {
        let port = machine.ssh_port().await?;
        wait::until("a login over SSH", SSH, || async {
            let mut ssh = Command::new("ssh");
            ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"])
                .args(["-o", "StrictHostKeyChecking=no"])
                .args(["-o", "UserKnownHostsFile=/dev/null"])
                .arg("-i")
                .arg(&self.0)
                .args(["-p", &port.to_string(), "root@127.0.0.1"])
                .args(command);
            run(ssh).await.map(Some)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_developer_logs_in_to_the_debug_variant_and_to_no_other() -> Result<()> {
    scenario::run("log-in", |directory| async move {
        let key = Key::generate(&directory).await?;
        let setup = key.setup()?;
        for (variant, open) in [("debug", true), ("one", false)] {
            let raw = Images::given()?.of(variant, Architecture::Amd64)?.raw()?;
            let disk = Disk::flashed(&directory.join(format!("{variant}.qcow2")), &raw, site::DISK).await?;
            let mut machine = Machine::switch_on(&directory, &disk, &setup).await?;
            base::boot_is_good(&mut machine).await?;
            let release = key.over_ssh(&mut machine, &["cat", "/usr/lib/os-release"]).await;
            let shell = machine.console.contains("root-shell@console.service");
            ensure!(shell == open, "{variant}: a shell on the console: {shell}");
            match release {
                Ok(release) if open => ensure!(release.contains("IMAGE_ID=holdfast"), "{release}"),
                Err(error) if open => return Err(error),
                Ok(release) => anyhow::bail!("somebody logged in to the box over SSH: {release}"),
                Err(error) => println!("{variant}: {error:#}"),
            }
            machine.shut_down(OFF).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_hangs_is_reset_by_its_watchdog_and_says_so() -> Result<()> {
    scenario::run("watchdog", |directory| async move {
        let key = Key::generate(&directory).await?;
        let setup = Setup {
            watchdog: true,
            ..key.setup()?
        };
        let raw = Images::given()?.of("debug", Architecture::Amd64)?.raw()?;
        let disk = Disk::flashed(&directory.join("disk.qcow2"), &raw, site::DISK).await?;
        let mut machine = Machine::switch_on(&directory, &disk, &setup).await?;
        base::boot_is_good(&mut machine).await?;
        machine.forget_restarts().await?;
        // Init does nothing any more, as when it or the kernel hangs: nobody feeds the watchdog.
        let freeze = "echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze";
        key.over_ssh(&mut machine, &[freeze]).await?;
        machine.restarts(BOOT).await?;
        base::boot_is_good(&mut machine).await?;
        let history = key
            .over_ssh(&mut machine, &["holdfast", "history", "--boots"])
            .await?;
        println!("{history}");
        ensure!(history.contains("reset by the watchdog"), "{history}");
        machine.shut_down(OFF).await
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
