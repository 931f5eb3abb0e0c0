//! Whether memory grows with the number of documents.

use crate::{figures::Figures, machine};
use anyhow::{Context as _, Result};
use holdfast_harness::{Node, Site, site::KUBERNETES};
use serde_json::{Value, json};
use std::time::Duration;

/// Where the growth is counted from: everything was used once by then.
const FIRST: usize = 100;
/// Longest time of one document.
const LONGEST: Duration = Duration::from_secs(30);
/// Time for what follows the last document: reports, closing of spare connections.
const SETTLE: Duration = Duration::from_secs(10);

/// Publishes so many small documents, each after the one before was proven.
pub async fn measure(generations: usize, figures: &mut Figures) -> Result<()> {
    let site = Site::start().await?;
    let mut node = site.enrolled_node("soak").await?;
    let mut at_first = 0;
    for number in 1..=generations {
        let release = format!("r{number}");
        let objects = (0..3).map(|object| page(object, number)).collect();
        site.hub.create_release(&release, "pages", objects).await?;
        let generation = site.hub.assign(&release, "soak").await?;
        let patience = if number == 1 { KUBERNETES } else { LONGEST };
        site.hub.wait_for_proven("soak", generation, patience).await?;
        if number == FIRST {
            at_first = resident(&mut node).await?;
        }
    }
    let at_last = resident(&mut node).await?;
    figures.add(
        "node.rss_after_100_generations_kib",
        at_first as f64,
        "KiB",
        None,
        format!(
            "VmRSS of the daemon {} s after document {FIRST}",
            SETTLE.as_secs()
        ),
    );
    figures.add(
        "node.rss_after_2000_generations_kib",
        at_last as f64,
        "KiB",
        None,
        format!(
            "VmRSS of the daemon {} s after document {generations}",
            SETTLE.as_secs()
        ),
    );
    figures.add(
        "node.rss_growth_kib",
        at_last as f64 - at_first as f64,
        "KiB",
        Some(512.0),
        format!(
            "the one minus the other: {} documents of three objects, each proven",
            generations - FIRST
        ),
    );
    Ok(())
}

async fn resident(node: &mut Node) -> Result<u64> {
    // Idle is what is measured, so this time is passed, not awaited.
    tokio::time::sleep(SETTLE).await;
    machine::resident_memory(node.process()?.id().context("the node ended")?)
}

fn page(object: usize, number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("page-{object}"), "namespace": "default"}, "data": {"number": number.to_string()}})
}
