//! Measures what the documentation claims, on real parts, and writes the figures with their limits.
//!
//! In: the binaries, one of them the node as it is shipped. Out: a table (Markdown) and a report (JSON).

mod access;
mod apply;
mod boot;
mod cuts;
mod drift;
mod figures;
mod flash;
mod idle;
mod image;
mod latency;
mod machine;
mod objects;
mod probe;
mod ready;
mod size;
mod soak;
mod start;
mod update;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use figures::Figures;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// All groups, in the order of measuring.
const GROUPS: [&str; 13] = [
    "size", "image", "update", "cuts", "boot", "latency", "start", "apply", "drift", "ready", "soak",
    "flash", "idle",
];

/// Arguments of the benchmarks.
#[derive(Parser)]
#[command(about = "Measures what the documentation of Holdfast claims", version)]
struct Arguments {
    /// Seconds for which the idle node is watched.
    #[arg(long, default_value_t = 150)]
    idle_seconds: u64,
    /// Changes whose way from the hub to the cluster is timed.
    #[arg(long, default_value_t = 60)]
    changes: u32,
    /// Times that a thousand objects are written by each of those who are compared.
    #[arg(long, default_value_t = 3)]
    applies: usize,
    /// Documents of the soak.
    #[arg(long, default_value_t = 2000)]
    generations: usize,
    /// Objects that are deleted behind the node's back.
    #[arg(long, default_value_t = 250)]
    deletions: usize,
    /// Starts of Kubernetes, with Holdfast and without.
    #[arg(long, default_value_t = 9)]
    kubernetes_starts: usize,
    /// Only these groups.
    #[arg(long, value_delimiter = ',', value_parser = GROUPS)]
    only: Vec<String>,
    /// Directory of the statically linked nodes, one directory a target.
    #[arg(long, default_value = "target/cross")]
    cross: PathBuf,
    /// Output directory of `cargo xtask image --check-reproducible`, without k3s.
    #[arg(long, default_value = "target/bench/image/one")]
    image: PathBuf,
    /// Output directory of an image that differs from it by one package.
    #[arg(long, default_value = "target/bench/image/two")]
    next_image: PathBuf,
    /// Directory of the images that are booted: `one/ARCHITECTURE` and, with a plain unit for k3s in place of Holdfast, `bare/ARCHITECTURE`.
    #[arg(long, default_value = "target/bench/image/boot")]
    boot_images: PathBuf,
    /// Boots of each of them.
    #[arg(long, default_value_t = 5)]
    boots: usize,
    /// What `cargo xtask test --image=full` left of the power cuts that it tried.
    #[arg(long, default_value = "target/image-tests/power-cuts")]
    power_cuts: PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "target/bench/report.json")]
    report: PathBuf,
    /// Where the table goes.
    #[arg(long, default_value = "docs/benchmarks.md")]
    table: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    holdfast_harness::install_tls_provider();
    let wanted = |group: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == group);
    let mut figures = Figures::new();
    let mut failed = Vec::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    for group in GROUPS {
        if !wanted(group) {
            continue;
        }
        // A signal drops what is being measured, and that ends every process that was started for it.
        let measured = tokio::select! {
            measured = measure(group, &arguments, &mut figures) => measured,
            _ = terminate.recv() => bail!("ended by SIGTERM while {group} was measured"),
            _ = interrupt.recv() => bail!("interrupted while {group} was measured"),
        };
        // A group that cannot be measured must not take the others with it.
        if let Err(error) = measured {
            eprintln!("{group}: {error:#}");
            failed.push(group);
        }
    }
    figures.write(&arguments.report, &arguments.table)?;
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

async fn measure(group: &str, arguments: &Arguments, figures: &mut Figures) -> Result<()> {
    match group {
        "size" => size::measure(&arguments.cross, figures),
        "image" => image::measure(&arguments.image, figures),
        "update" => update::measure(&arguments.image, &arguments.next_image, figures).await,
        "cuts" => cuts::measure(&arguments.power_cuts, figures),
        "boot" => boot::measure(&arguments.boot_images, arguments.boots, figures).await,
        "latency" => latency::measure(arguments.changes, figures).await,
        "start" => start::measure(figures).await,
        "apply" => apply::measure(arguments.applies, figures).await,
        "drift" => drift::measure(arguments.deletions, figures).await,
        "ready" => ready::measure(arguments.kubernetes_starts, figures).await,
        "soak" => soak::measure(arguments.generations, figures).await,
        "flash" => flash::measure(arguments.idle_seconds, figures).await,
        "idle" => idle::measure(arguments.idle_seconds, figures).await,
        _ => bail!("no such group"),
    }
}
