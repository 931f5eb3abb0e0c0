//! How much memory an update takes.

use crate::{
    appliance::{Appliance, Image, LARGE},
    killed::{os_in, wanted_in},
    support::Manner,
};
use anyhow::{Context as _, Result, ensure};
use std::{path::PathBuf, process::Command};
use tokio_util::sync::CancellationToken;

/// Names the directory of the box to the process that is measured.
const CHILD: &str = "HOLDFAST_TEST_OS_MEASURED_IN";

/// Most that the process had resident, in KiB.
fn peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[tokio::test]
async fn memory_does_not_grow_with_the_image() -> Result<()> {
    if let Some(directory) = std::env::var_os(CHILD) {
        let directory = PathBuf::from(directory);
        let os = os_in(&directory)?;
        let wanted = wanted_in(&directory)?;
        let before = peak()?;
        os.stage(&wanted, CancellationToken::new()).await.unwrap();
        let grown = peak()? - before;
        std::fs::write(directory.join("grown"), grown.to_string())?;
        return Ok(());
    }
    // 96 MiB, all of which is fetched: the box runs something else.
    let (one, two) = (Image::new("1", 1)?, Image::new("2", LARGE)?);
    let appliance = Appliance::with(&one, LARGE)?;
    let server = appliance.server(&two, &[Manner::Good]).await?;
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
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--exact", "memory::memory_does_not_grow_with_the_image"])
        .env(CHILD, directory);
    // Beside this task, which serves what it fetches.
    let status = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(
        status.status.success(),
        "{}",
        String::from_utf8_lossy(&status.stderr)
    );
    appliance.holds(&two)?;
    let grown: u64 = std::fs::read_to_string(directory.join("grown"))?.parse()?;
    eprintln!("an update of 96 MiB took {grown} KiB more memory");
    ensure!(grown < 16_384, "{grown} KiB");
    Ok(())
}
