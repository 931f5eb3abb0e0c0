//! The demo is the product's promise; it must hold in every build.

use anyhow::{Result, ensure};
use holdfast_harness::paths;
use std::time::Duration;
use tokio::process::Command;

#[tokio::test]
async fn the_demo_observes_every_step_of_the_story() -> Result<()> {
    let directory = tempfile_directory()?;
    let mut command = Command::new(paths::binary("holdfast-demo")?);
    command
        .args(["--exit", "--directory"])
        .arg(&directory)
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(620), command.output()).await??;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for step in [
        "hub started",
        "token made",
        "node enrolled",
        "Kubernetes up",
        "release published",
        "applied and ready",
        "link cut",
        "put back offline",
        "restarted offline",
        "link back",
    ] {
        ensure!(told.contains(step), "the step {step:?} is missing:\n{told}");
    }
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

fn tempfile_directory() -> Result<std::path::PathBuf> {
    let directory = std::env::temp_dir().join(format!("holdfast-demo-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}
