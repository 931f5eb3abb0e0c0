//! How long a change takes from the hub to the cluster, over what it must take at least.

use crate::{
    access::Access,
    figures::{Figures, median},
    probe::Probe,
};
use anyhow::Result;
use holdfast_harness::{Site, site::KUBERNETES};
use serde_json::json;
use std::time::{Duration, Instant};

/// Longest time of one change.
const LONGEST: Duration = Duration::from_secs(30);

/// Times so many changes; in the same run, and in turn with them, round trips of the broker and direct patches.
pub async fn measure(changes: u32, figures: &mut Figures) -> Result<()> {
    let site = Site::start().await?;
    let node = site.enrolled_node("quick").await?;
    let object = |value: u32| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bench", "namespace": "default"}, "data": {"value": value.to_string()}});
    site.hub.create_release("r0", "bench", vec![object(0)]).await?;
    let generation = site.hub.assign("r0", "quick").await?;
    site.hub.wait_for_proven("quick", generation, KUBERNETES).await?;
    let access = Access::from_kubeconfig(&node.kubectl.kubeconfig)?;
    let mut probe = Probe::connect(&site.hub).await?;
    let mut watch = access.watch("bench").await?;
    access.patch("direct", "warm").await?;
    probe.round_trip().await?;

    let (mut applied, mut trips, mut patches) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=changes {
        let release = format!("r{number}");
        site.hub
            .create_release(&release, "bench", vec![object(number)])
            .await?;
        let started = Instant::now();
        let generation = site.hub.assign(&release, "quick").await?;
        tokio::time::timeout(LONGEST, watch.until_value(&number.to_string())).await??;
        applied.push(milliseconds(started.elapsed()));
        // The next change starts only when the whole of this one is over, as in real life.
        site.hub.wait_for_proven("quick", generation, LONGEST).await?;

        trips.push(milliseconds(probe.round_trip().await?));
        let started = Instant::now();
        access.patch("direct", &number.to_string()).await?;
        patches.push(milliseconds(started.elapsed()));
    }
    let (applied, trip, patch) = (median(&mut applied), median(&mut trips), median(&mut patches));
    figures.add(
        "sync.publish_to_applied_ms",
        applied,
        "ms",
        None,
        "p50 from the request to assign at the hub to the change seen by a watch",
    );
    figures.add(
        "sync.broker_round_trip_ms",
        trip,
        "ms",
        None,
        "p50 of a publication with QoS 1 to the acknowledgement, over TLS",
    );
    figures.add(
        "sync.direct_patch_ms",
        patch,
        "ms",
        None,
        "p50 of one server-side apply by a bare client",
    );
    let how = format!(
        "publish_to_applied over (broker_round_trip + direct_patch), {changes} of each in turn in the same run"
    );
    figures.add(
        "sync.publish_to_applied_ratio",
        applied / (trip + patch),
        "",
        Some(2.0),
        how,
    );
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
