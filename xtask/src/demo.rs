//! `cargo xtask demo`: builds what the story needs, then tells it.

use crate::{cluster, prerequisites, shell};
use anyhow::Result;
use clap::Args;

#[derive(Args)]
pub struct Options {
    /// End after the story: the exit code is 0 only if every step was observed
    #[arg(long)]
    exit: bool,
    /// Do not look for or install packages
    #[arg(long)]
    no_prerequisites: bool,
}

pub fn run(options: &Options) -> Result<()> {
    if !options.no_prerequisites {
        prerequisites::install(&[prerequisites::Purpose::Demo], false)?;
    }
    let k3s = cluster::choose()?;
    let packages = ["holdfast", "holdfast-hub", "holdfastctl", "holdfast-demo"];
    shell::run(
        shell::cargo()
            .args(["build", "--locked"])
            .args(packages.iter().flat_map(|package| ["-p", package])),
    )?;
    let mut demo = shell::command(shell::target_directory().join("debug/holdfast-demo"));
    demo.env("HOLDFAST_K3S", k3s).env_remove("RUST_BACKTRACE");
    if options.exit {
        demo.arg("--exit");
    }
    shell::run(&mut demo)
}
