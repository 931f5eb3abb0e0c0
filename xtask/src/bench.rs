//! `cargo xtask bench`: builds what is shipped as it is shipped, then measures it.

use crate::{cluster, prerequisites, shell};
use anyhow::Result;
use clap::Args;

#[derive(Args)]
pub struct Options {
    /// Passed on to the benchmarks, e.g. `--only latency --changes 20`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

pub fn run(options: &Options) -> Result<()> {
    prerequisites::install(
        &[prerequisites::Purpose::Demo, prerequisites::Purpose::Cross],
        false,
    )?;
    let k3s = cluster::choose()?;
    let built = shell::output(shell::command("bash").arg("cross/build.sh"))?;
    print!("{built}");
    let packages = ["holdfast-hub", "holdfastctl", "holdfast-bench"];
    shell::run(
        shell::cargo()
            .args(["build", "--locked", "--release"])
            .args(packages.iter().flat_map(|package| ["-p", package])),
    )?;
    let node = shell::target_directory().join("cross/x86_64-unknown-linux-musl");
    shell::run(
        shell::command(shell::target_directory().join("release/holdfast-bench"))
            .args(&options.arguments)
            .env("HOLDFAST_K3S", k3s)
            .env("HOLDFAST_BIN_DIR", node)
            .env_remove("RUST_BACKTRACE"),
    )
}
