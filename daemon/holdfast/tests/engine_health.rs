//! Whether a start of the machine is good, asked of the real daemon by the real command.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result, ensure};
use engine_support::{app, broker::Hub, config_map, daemon::Daemon, deployment, namespace, node::Node};
use holdfast::boots::{BootLog, Note};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt as _};

/// What the command ended with and said.
async fn health(node: &Node, arguments: &[&str]) -> Result<(i32, Value)> {
    let daemon = Daemon::of(node);
    let output = daemon
        .command(&[&["health", "-o", "json"], arguments].concat())?
        .output()
        .await?;
    let code = output.status.code().context("it was not killed")?;
    let verdict = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((code, verdict))
}

/// The first check that is not good.
fn first_bad(verdict: &Value) -> Option<&str> {
    let checks = verdict["checks"].as_array()?;
    checks.iter().find(|check| check["good"] == false)?["name"].as_str()
}

#[tokio::test]
async fn a_box_whose_apps_are_ready_is_good_without_any_hub_and_its_boot_says_so() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::enrolled(&hub, "health-good").await?;
    let objects = [namespace("health-good"), config_map("kept", "1")];
    node.leave_first_document(&hub, 1, &[app("web", "health-good", &objects)])?;
    let daemon = Daemon::of(&node);
    // It has no link at all.
    let mut process = daemon.start(None)?;
    let (code, verdict) = health(&node, &["--boot", "--deadline", "60s"]).await?;
    assert_eq!((code, first_bad(&verdict)), (0, None), "{verdict}");
    daemon.until("1.1", "committed").await?;
    let (code, verdict) = health(&node, &["--wait", "--deadline", "60s"]).await?;
    assert_eq!(code, 0, "{verdict}");
    let names: Vec<_> = verdict["checks"]
        .as_array()
        .context("checks")?
        .iter()
        .filter_map(|check| check["name"].as_str())
        .collect();
    assert_eq!(
        names,
        ["daemon", "state-partition", "store", "kubernetes", "apps"]
    );
    let boots = BootLog::new(&node.settings.state_dir).read()?;
    let noted = boots.last().context("a boot")?.verdict();
    assert_eq!(noted, Some(Ok(())));
    process.kill().await?;
    Ok(())
}

#[tokio::test]
async fn kubernetes_that_does_not_answer_and_apps_that_are_not_ready_are_named() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = Node::enrolled(&hub, "health-bad").await?;
    let objects = [
        namespace("health-bad"),
        config_map("kept", "1"),
        deployment("web", "registry.invalid/web:1"),
    ];
    let good = [namespace("health-bad"), config_map("kept", "1")];
    node.leave_first_document(&hub, 1, &[app("web", "health-bad", &good)])?;
    let mut process = Daemon::of(&node).start(None)?;
    Daemon::of(&node).until("1.1", "committed").await?;
    let (code, _) = health(&node, &["--wait", "--deadline", "60s"]).await?;
    assert_eq!(code, 0);
    // A document that is on its way is no fault of this start.
    process.kill().await?;
    node.leave_first_document(&hub, 2, &[app("web", "health-bad", &objects)])?;
    let mut process = Daemon::of(&node).start(None)?;
    Daemon::of(&node).until_phase("verifying").await?;
    let (code, verdict) = health(&node, &[]).await?;
    assert_eq!(code, 0, "{verdict}");
    process.kill().await?;
    // Without Kubernetes there is no good start; nothing restarts the machine, as it runs no image.
    node.settings.kubernetes.kubeconfig = node.path("nowhere");
    fs::remove_file(node.path("holdfast.toml"))?;
    let mut process = Daemon::of(&node).start(None)?;
    let (code, verdict) = health(&node, &["--wait", "--deadline", "15s"]).await?;
    assert_eq!((code, first_bad(&verdict)), (1, Some("kubernetes")), "{verdict}");
    let (code, _) = health(&node, &["--boot", "--deadline", "2s"]).await?;
    assert_eq!(code, 0);
    let boots = BootLog::new(&node.settings.state_dir).read()?;
    let noted = boots
        .last()
        .and_then(|boot| boot.notes.last())
        .context("a note")?;
    ensure!(
        matches!(&noted.note, Note::Bad { check, .. } if check == "kubernetes"),
        "{noted:?}"
    );
    process.kill().await?;
    Ok(())
}

#[tokio::test]
async fn without_a_daemon_and_on_a_disk_that_takes_no_file_a_start_is_not_good() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::enrolled(&hub, "health-disk").await?;
    let (code, verdict) = health(&node, &["--wait", "--deadline", "2s"]).await?;
    assert_eq!((code, first_bad(&verdict)), (1, Some("daemon")), "{verdict}");

    let mut process = Daemon::of(&node).start(None)?;
    let (code, verdict) = health(&node, &["--wait", "--deadline", "60s"]).await?;
    assert_eq!(code, 0, "{verdict}");
    // Root writes wherever it wants; a directory in the way of the file stops it too.
    let blocked = node.settings.state_dir.join(".health");
    fs::create_dir(&blocked)?;
    fs::set_permissions(&blocked, fs::Permissions::from_mode(0o700))?;
    fs::write(blocked.join("full"), "")?;
    let (code, verdict) = health(&node, &[]).await?;
    assert_eq!(
        (code, first_bad(&verdict)),
        (1, Some("state-partition")),
        "{verdict}"
    );
    process.kill().await?;

    // A database that is no database is set aside by the daemon, which starts without it; one that cannot even be read keeps it from starting.
    fs::remove_dir_all(&blocked)?;
    let database = node.settings.state_dir.join("store/node.db");
    fs::remove_file(&database)?;
    fs::create_dir(&database)?;
    let mut process = Daemon::of(&node).start(None)?;
    let (code, verdict) = health(&node, &["--wait", "--deadline", "3s"]).await?;
    assert_eq!((code, first_bad(&verdict)), (1, Some("daemon")), "{verdict}");
    process.kill().await?;
    Ok(())
}
