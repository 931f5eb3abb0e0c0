//! The process ends as in a power cut, at each step of an update.

use crate::{
    appliance::{Appliance, Image, USR_A, places_in},
    support::Manner,
};
use anyhow::{Context as _, Result, ensure};
use holdfast::{
    artifacts::Fetcher,
    failpoint,
    identity::Identity,
    os::{Os, Wanted},
    settings::Settings,
};
use holdfast_store::Blobs;
use std::{
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::Arc,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Names the directory of the box to the process that is killed.
const CHILD: &str = "HOLDFAST_TEST_OS_IN";

pub fn os_in(directory: &Path) -> Result<Os> {
    holdfast_harness::install_tls_provider();
    let mut settings = Settings {
        state_dir: directory.join("state"),
        ..Settings::default()
    };
    settings.artifacts.ca_file = Some(directory.join("ca.pem"));
    let identity = Identity::load(&settings.identity_dir())?.context("the box is enrolled")?;
    let (_, identity) = watch::channel(Arc::new(identity));
    let blobs = Blobs::open(&settings.state_dir)?;
    let fetcher = Fetcher::new(blobs, identity, Arc::new(settings));
    Ok(Os::at(places_in(directory), Some(fetcher)))
}

pub fn wanted_in(directory: &Path) -> Result<Wanted> {
    Ok(Wanted {
        version: "2".into(),
        manifest: serde_json::from_slice(&std::fs::read(directory.join("wanted.json"))?)?,
        max_bytes_per_second: None,
    })
}

/// Runs an update in a process of its own, with this failpoint.
async fn update(directory: &Path, failpoint: &str) -> Result<ExitStatus> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([
            "--exact",
            "killed::a_power_cut_at_any_step_leaves_a_box_that_boots",
        ])
        .env(CHILD, directory)
        .env("HOLDFAST_FAILPOINT", failpoint);
    // Beside this task, which serves what it fetches.
    Ok(tokio::task::spawn_blocking(move || command.output())
        .await??
        .status)
}

#[tokio::test]
async fn a_power_cut_at_any_step_leaves_a_box_that_boots() -> Result<()> {
    if let Some(directory) = std::env::var_os(CHILD) {
        let directory = PathBuf::from(directory);
        let os = os_in(&directory)?;
        let staged = os
            .stage(&wanted_in(&directory)?, CancellationToken::new())
            .await
            .unwrap();
        os.install(&staged).await.unwrap();
        return Ok(());
    }
    let (one, two) = (Image::new("1", 4)?, Image::new("2", 4)?);
    for place in failpoint::SLOTS {
        let appliance = Appliance::with(&one, 4)?;
        let server = appliance.server(&two, &[Manner::Good]).await?;
        // Something of an earlier version, so that there is something to disown.
        appliance.sgdisk(&[
            "--change-name=5:holdfast_0.9",
            "--change-name=4:holdfast_0.9_verity",
        ])?;
        let old = appliance.esp().join("EFI/Linux/holdfast_0.9.efi");
        std::fs::write(&old, &one.uki)?;
        appliance
            .it
            .identity(None)?
            .store(&appliance.it.settings.identity_dir())?;
        let directory = appliance.it.directory.path();
        let wanted = two.wanted(&appliance, &[&server])?;
        std::fs::write(
            directory.join("wanted.json"),
            serde_json::to_vec(&wanted.manifest)?,
        )?;
        let status = update(directory, place).await?;
        if *place == "os-other-armed" {
            // What was just installed has its counter already.
            ensure!(status.success(), "{place}: {status}");
        } else {
            ensure!(
                status.signal() == Some(nix::libc::SIGABRT),
                "{place} was not reached: {status}"
            );
            // What runs is untouched and is what boots, unless the new one is whole.
            assert_eq!(appliance.read(USR_A * 4, one.usr.len())?, one.usr, "{place}");
            let kernels = appliance.kernels()?;
            ensure!(
                kernels.contains(&"holdfast_1.efi".to_owned()),
                "{place}: {kernels:?}"
            );
            ensure!(
                !kernels.contains(&"holdfast_0.9.efi".to_owned()),
                "{place}: {kernels:?}"
            );
            ensure!(
                !kernels.contains(&"holdfast_2+3.efi".to_owned()),
                "{place}: {kernels:?}"
            );
            appliance.table_is_sound()?;
            ensure!(
                update(directory, "").await?.success(),
                "{place}: it does not go on"
            );
        }
        assert_eq!(
            appliance.kernels()?,
            ["holdfast_1.efi", "holdfast_2+3.efi"],
            "{place}"
        );
        appliance.holds(&two).context(*place)?;
    }
    Ok(())
}
