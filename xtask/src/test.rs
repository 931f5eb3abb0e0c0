//! `cargo xtask test`: everything a test needs is installed and built first, then all tests of the workspace run.

mod image;

use crate::{cluster, prerequisites, shell};
use anyhow::Result;
use clap::Args;

#[derive(Args)]
pub struct Options {
    /// Do not look for or install packages
    #[arg(long)]
    no_prerequisites: bool,
    /// Boot the operating system image in QEMU instead, in software emulation; builds the images it needs
    #[arg(long, value_enum, value_name = "SCOPE", num_args = 0..=1, require_equals = true, default_missing_value = "short")]
    image: Option<image::Scope>,
    /// Kill the node so many times at random moments instead (the suite does it 40 times); the seed that is told repeats a run
    #[arg(long, value_name = "NUMBER", conflicts_with = "image")]
    kills: Option<u64>,
    /// Repeat the run of this seed
    #[arg(long, value_name = "SEED", requires = "kills")]
    seed: Option<u64>,
    /// Passed on to `cargo test --workspace`, e.g. `-p holdfast-e2e -- a_token`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    cargo: Vec<String>,
}

pub fn run(options: &Options) -> Result<()> {
    if let Some(scope) = options.image {
        return image::run(scope, options.no_prerequisites, &options.cargo);
    }
    if !options.no_prerequisites {
        prerequisites::install(&[prerequisites::Purpose::Test], false)?;
    }
    let k3s = cluster::choose()?;
    // The whole workspace at once, here as there: cargo unifies features over what it is asked to build, and a
    // narrower choice would compile shared dependencies a second time.
    shell::run(shell::cargo().args(["build", "--locked", "--workspace", "--bins"]))?;
    let mut tests = shell::cargo();
    tests
        .args(["test", "--locked"])
        .env("HOLDFAST_K3S", &k3s)
        .env("HOLDFAST_BIN_DIR", shell::target_directory().join("debug"))
        .env_remove("RUST_BACKTRACE");
    if let Some(kills) = options.kills {
        tests
            .args(["-p", "holdfast", "--test", "engine_kills"])
            .env("HOLDFAST_KILLS", kills.to_string());
        if let Some(seed) = options.seed {
            tests.env("HOLDFAST_KILLS_SEED", seed.to_string());
        }
    } else if !options
        .cargo
        .iter()
        .any(|argument| argument == "-p" || argument.starts_with("--package"))
    {
        tests.arg("--workspace");
    }
    shell::run(tests.args(&options.cargo))?;
    // What the tests stand on has tests of its own; they are in Go, so an argument for cargo does not choose among them.
    if options.cargo.is_empty() && options.kills.is_none() && !cluster::is_given() {
        shell::run(
            shell::command("go")
                .current_dir(shell::root().join("tests/cluster"))
                // As build.sh compiles: other flags would compile all of Kubernetes a second time.
                .env("CGO_ENABLED", "1")
                .args(["test", "-trimpath", "-buildvcs=false", "./..."]),
        )?;
    }
    Ok(())
}
