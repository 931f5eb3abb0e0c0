//! Measures what the documentation claims, on real parts, and writes the figures with their limits.
//!
//! In: the binaries, one of them the node as it is shipped. Out: a table (Markdown) and a report (JSON).

mod access;
mod figures;
mod idle;
mod latency;
mod machine;
mod probe;
mod size;
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
    #[arg(long, default_value_t = 300)]
    idle_seconds: u64,
    /// Changes whose way from the hub to the cluster is timed.
    #[arg(long, default_value_t = 60)]
    changes: u32,
    /// Only these groups: size, idle, latency, start.
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
    if wanted("idle") {
        idle::measure(arguments.idle_seconds, &mut figures).await?;
    }
    if wanted("start") {
        start::measure(&mut figures).await?;
    }
    figures.write(&arguments.report, &arguments.table)
}
