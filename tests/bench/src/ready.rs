//! What it costs Kubernetes to be started by Holdfast instead of by hand: the time until it is ready.
//!
//! Both start the same program with the same configuration on the same data, in turn; the same client asks both whether they are ready. The
//! hub, which shares this machine's processors as it would share no box's, is cut off.

use crate::{
    access::Access,
    figures::{Figures, median, median_of_pairs},
};
use anyhow::{Context as _, Result, bail};
use holdfast_harness::{Node, Process, Site, paths, site::KUBERNETES};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::time::{Duration, Instant};
use tokio::process::Command;

/// Longest time of one start or end.
const LONGEST: Duration = Duration::from_secs(60);
/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(5);

/// Times so many starts of each kind.
pub async fn measure(starts: usize, figures: &mut Figures) -> Result<()> {
    let site = Site::start().await?;
    let mut node = site.enrolled_node("ready").await?;
    site.hub.create_release("empty", "empty", Vec::new()).await?;
    let generation = site.hub.assign("empty", "ready").await?;
    site.hub.wait_for_proven("ready", generation, KUBERNETES).await?;
    node.stop().await?;
    stop_kubernetes(&node).await?;
    // A hub has processors of its own. Here it would take what Kubernetes starts with, each time the node connects.
    site.hub.cut();
    let access = Access::from_kubeconfig(&node.kubectl.kubeconfig)?;

    let (mut supervised, mut bare) = (Vec::new(), Vec::new());
    for turn in 0..starts * 2 {
        // Who comes first in a pair comes second in the next one.
        let by_holdfast = (turn / 2 + turn) % 2 == 0;
        let begun = Instant::now();
        if by_holdfast {
            // The daemon says that it is ready before Kubernetes is: what it waits for is not what is timed.
            node.start().await?;
            ready(&access).await?;
            supervised.push(begun.elapsed().as_secs_f64());
            node.stop().await?;
            stop_kubernetes(&node).await?;
        } else {
            let mut command = Command::new(paths::k3s()?);
            command
                .args(["server", "--config"])
                .arg(node.directory.join("k3s-config.yaml"))
                .kill_on_drop(true);
            let mut process = Process::start("k3s", command, &node.directory.join("bare.log"))?;
            ready(&access).await?;
            bare.push(begun.elapsed().as_secs_f64());
            process.stop(LONGEST).await?;
            stop_kubernetes(&node).await?;
        }
    }
    let ratio = median_of_pairs(&supervised, &bare);
    let (supervised, bare) = (median(&mut supervised), median(&mut bare));
    figures.add(
        "k3s.ready_overhead_ratio",
        ratio,
        "",
        Some(1.02),
        format!(
            "from the start of the daemon until /readyz of the test cluster says ok ({supervised:.2} s), over the same of the bare program on the same data ({bare:.2} s); p50 of {starts} pairs in turn, without a link"
        ),
    );
    Ok(())
}

async fn ready(access: &Access) -> Result<()> {
    let begun = Instant::now();
    while !access.is_ready().await {
        if begun.elapsed() > LONGEST {
            bail!("not ready within {LONGEST:?}");
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Ends Kubernetes as a shutdown of the machine would, and waits for the end.
async fn stop_kubernetes(node: &Node) -> Result<()> {
    let begun = Instant::now();
    let ids = node.kubernetes_processes()?;
    for id in &ids {
        // It may have ended by itself meanwhile.
        let _ = kill(Pid::from_raw(*id), Signal::SIGTERM);
    }
    while !node.kubernetes_processes()?.is_empty() {
        if begun.elapsed() > LONGEST {
            return Err(anyhow::anyhow!("Kubernetes does not end")).context(format!("{ids:?}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
