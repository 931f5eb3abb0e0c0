//! What Kubernetes writes to the flash while nothing happens, with its datastore on the disk and in memory.
//!
//! Two boxes idle side by side for the same time. Counted is what the kernel hands to the block layer (`write_bytes` of `/proc/PID/io`, where
//! a file system in memory does not count) for k3s and for the Holdfast that writes its snapshots. The directory of the measurement must be
//! on a disk: on a tmpfs nothing is counted at all.

use crate::{figures::Figures, machine};
use anyhow::{Context as _, Result, ensure};
use holdfast_harness::{Node, Site, site::KUBERNETES};
use holdfast_protocol::operator::CreateToken;
use std::{fs, path::Path, time::Duration};

/// Seconds of a day.
const DAY: f64 = 86_400.0;
/// A tmpfs on every Linux.
const MEMORY: &str = "/dev/shm";
/// Time for what follows the start: controllers that come to rest, the first snapshot.
const SETTLE: Duration = Duration::from_secs(30);

/// Watches two idle boxes for so many seconds.
pub async fn measure(seconds: u64, figures: &mut Figures) -> Result<()> {
    let site = Site::start().await?;
    let memory = Path::new(MEMORY).join(format!("holdfast-bench-{}", std::process::id()));
    let mut persistent = box_with(&site, "flash-disk", "").await?;
    let ram = format!("datastore = \"ram\"\ndatastore_ram_dir = {memory:?}\n");
    let mut in_memory = box_with(&site, "flash-ram", &ram).await?;
    site.hub.create_release("empty", "empty", Vec::new()).await?;
    for name in ["flash-disk", "flash-ram"] {
        let generation = site.hub.assign("empty", name).await?;
        site.hub.wait_for_proven(name, generation, KUBERNETES).await?;
    }
    // Idle is what is measured, so this time is passed, not awaited.
    tokio::time::sleep(SETTLE).await;
    let before = (written(&mut persistent)?, written(&mut in_memory)?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = (written(&mut persistent)?, written(&mut in_memory)?);
    let _ = fs::remove_dir_all(&memory);
    let (on_disk, in_ram) = (after.0 - before.0, after.1 - before.1);
    ensure!(
        on_disk > 0,
        "nothing is counted: put the measurement on a disk (TMPDIR)"
    );
    let a_day = |bytes: u64| bytes as f64 * DAY / seconds as f64;
    figures.add(
        "flash.persistent_idle_bytes_per_day",
        a_day(on_disk),
        "bytes",
        None,
        format!("write_bytes of the test cluster and Holdfast over {seconds} s idle, for a day; datastore on the disk"),
    );
    figures.add(
        "flash.ram_idle_bytes_per_day",
        a_day(in_ram),
        "bytes",
        None,
        "the same at the same time, datastore in memory, snapshots included",
    );
    figures.add(
        "flash.ram_ratio",
        in_ram as f64 / on_disk as f64,
        "",
        Some(0.05),
        "the second over the first",
    );
    Ok(())
}

async fn box_with(site: &Site, name: &str, more: &str) -> Result<Node> {
    let mut node = site.prepare_node(name)?;
    let file = node.directory.join("node.toml");
    let config = fs::read_to_string(&file)?.replace("[kubernetes]\n", &format!("[kubernetes]\n{more}"));
    fs::File::create(&file).and_then(|mut file| std::io::Write::write_all(&mut file, config.as_bytes()))?;
    node.start().await?;
    let token = site.hub.create_token(&CreateToken::default()).await?;
    node.enrol(&token.token).await?;
    site.hub
        .wait_for_node(name, "the node is online", Duration::from_secs(30), |node| {
            node.online
        })
        .await?;
    Ok(node)
}

fn written(node: &mut Node) -> Result<u64> {
    let mut bytes = machine::written_bytes(node.process()?.id().context("the node ended")?)?;
    for id in node.kubernetes_processes()? {
        bytes += machine::written_bytes(u32::try_from(id)?)?;
    }
    Ok(bytes)
}
