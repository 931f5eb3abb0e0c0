//! What an idle node costs: enrolled, connected over TLS, watching a thousand applied objects.

use crate::{
    figures::Figures,
    machine,
    objects::{COUNT, Set},
};
use anyhow::{Context as _, Result};
use holdfast_harness::{Site, site::KUBERNETES};
use std::time::Duration;

/// Seconds of a day.
const DAY: f64 = 86_400.0;
/// Time for what follows the last change: the last report, closing of spare connections.
const SETTLE: Duration = Duration::from_secs(20);
/// IPv4 and TCP headers with timestamps, of a packet and of its acknowledgement, in bytes.
const HEADERS: u64 = 2 * 52;

/// Watches an idle node for so many seconds.
pub async fn measure(seconds: u64, figures: &mut Figures) -> Result<()> {
    let site = Site::start().await?;
    let mut node = site.enrolled_node("idle").await?;
    let content = Set::new("holdfast").release(&site.hub).await?;
    site.hub.create_release_of("thousand", content).await?;
    let generation = site.hub.assign("thousand", "idle").await?;
    site.hub.wait_for_proven("idle", generation, KUBERNETES).await?;
    // Idle is what is measured, so this time is passed, not awaited.
    tokio::time::sleep(SETTLE).await;

    let process = node.process()?.id().context("the node ended")?;
    let link = |site: &Site| {
        let links = [&site.hub.api_link, &site.hub.mqtt_link];
        links
            .iter()
            .map(|link| link.bytes() + HEADERS * link.messages())
            .sum::<u64>()
    };
    let before = (
        machine::processor_time(process)?,
        machine::written_bytes(process)?,
        link(&site),
        machine::faults(process)?,
    );
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = (
        machine::processor_time(process)?,
        machine::written_bytes(process)?,
        link(&site),
        machine::faults(process)?,
    );
    let memory = machine::memory(process)?;

    let how =
        format!("static binary, enrolled, connected over TLS, watching {COUNT} objects, {seconds} s idle");
    let processor = after.0.saturating_sub(before.0).as_secs_f64() * 1000.0 * 60.0 / seconds as f64;
    figures.add(
        "node.pss_idle_kib",
        memory.pss as f64,
        "KiB",
        Some(8_192.0),
        format!("Pss of smaps_rollup; {how}"),
    );
    figures.add(
        "node.anon_idle_kib",
        memory.anonymous as f64,
        "KiB",
        Some(3_072.0),
        format!("Pss_Anon of smaps_rollup; {how}"),
    );
    figures.add(
        "node.program_idle_kib",
        memory.file as f64,
        "KiB",
        None,
        "Pss_File of smaps_rollup, part of node.pss_idle_kib: the pages of the program that were touched since it let go of them when it became quiet; the others are in the kernel's cache of files as long as nobody else needs the memory",
    );
    let minutes = seconds as f64 / 60.0;
    figures.add(
        "node.faults_idle_per_minute",
        (after.3.0 - before.3.0) as f64 / minutes,
        "",
        None,
        format!(
            "pages touched that were not mapped, over the same time; {} of them in all had to be read from the disk",
            after.3.1 - before.3.1
        ),
    );
    figures.add(
        "node.cpu_idle_ms_per_minute",
        processor,
        "ms",
        Some(10.0),
        "schedstat of all threads over the same time",
    );
    figures.add(
        "node.idle_disk_bytes",
        (after.1 - before.1) as f64,
        "bytes",
        Some(0.0),
        format!("write_bytes of /proc/PID/io over {seconds} s"),
    );
    figures.add(
        "flash.idle_bytes_per_day",
        (after.1 - before.1) as f64 * DAY / seconds as f64,
        "bytes",
        Some(0.0),
        "the same, for a day; of Holdfast alone",
    );
    figures.add(
        "node.idle_link_bytes_per_s",
        (after.2 - before.2) as f64 / seconds as f64,
        "B/s",
        Some(5.0),
        "both directions over both links, TLS records and 104 bytes of TCP/IP headers a packet and its acknowledgement",
    );
    Ok(())
}
