//! Measures what the documentation claims, on real parts, and writes the figures with their limits.
//!
//! In: the binaries, one of them the node as it is shipped. Out: a table (Markdown) and a report (JSON).

mod access;
mod apply;
mod drift;
mod figures;
mod flash;
mod idle;
mod latency;
mod machine;
mod objects;
mod probe;
mod ready;
mod size;
mod soak;
mod start;

use anyhow::Result;
use clap::Parser;
use figures::Figures;
use std::path::PathBuf;

/// Arguments of the benchmarks.
#[derive(Parser)]
#[command(about = "Measures what the documentation of Holdfast claims", version)]
struct Arguments {
    /// Seconds for which the idle node is watched.
    #[arg(long, default_value_t = 200)]
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
    /// Only these groups: size, latency, start, apply, drift, ready, soak, flash, idle.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Directory of the statically linked nodes, one directory a target.
    #[arg(long, default_value = "target/cross")]
    cross: PathBuf,
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
    if wanted("size") {
        size::measure(&arguments.cross, &mut figures)?;
    }
    if wanted("latency") {
        latency::measure(arguments.changes, &mut figures).await?;
    }
    if wanted("start") {
        start::measure(&mut figures).await?;
    }
    if wanted("apply") {
        apply::measure(arguments.applies, &mut figures).await?;
    }
    if wanted("drift") {
        drift::measure(arguments.deletions, &mut figures).await?;
    }
    if wanted("ready") {
        ready::measure(arguments.kubernetes_starts, &mut figures).await?;
    }
    if wanted("soak") {
        soak::measure(arguments.generations, &mut figures).await?;
    }
    if wanted("flash") {
        flash::measure(arguments.idle_seconds, &mut figures).await?;
    }
    if wanted("idle") {
        idle::measure(arguments.idle_seconds, &mut figures).await?;
    }
    figures.write(&arguments.report, &arguments.table)
}
