//! Tasks of the project. `cargo xtask help` lists them.
//!
//! In: a checkout and a Rust toolchain. Out: built parts, test results, generated pages. Every command that is run is
//! printed first, so that a failure can be repeated by hand.

mod bench;
mod check;
mod cluster;
mod cross;
mod demo;
mod docs;
mod files;
mod image;
mod k3s;
mod prerequisites;
mod shell;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the Holdfast project", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Tell the story of Holdfast with its real parts: hub, box, Kubernetes, a link that gets cut
    Demo(demo::Options),
    /// Build everything the tests need, then run all tests
    Test(test::Options),
    /// Measure what the documentation claims, and write docs/benchmarks.md
    Bench(bench::Options),
    /// Say what this machine lacks for tests, demo, cross builds or CI, and install it
    Prerequisites(prerequisites::Options),
    /// Build the Kubernetes that tests and demo use where no real k3s is given
    Cluster,
    /// Pin the k3s that boxes get
    #[command(subcommand)]
    K3s(k3s::Task),
    /// Build the operating system image of a box, its keys, and a box of its own out of an image
    Image(Box<image::Options>),
    /// Write docs/configuration.md, docs/cli.md and docs/metrics.md from the code
    Docs(docs::Options),
    /// Build the static node binaries and run them
    Cross(cross::Options),
    /// Check what the compiler cannot: documented problem codes and dependencies, the direction of dependencies
    Check,
    /// Run what continuous integration runs (.ci/run)
    Ci,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Arguments::parse().task {
        Task::Demo(options) => demo::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Prerequisites(options) => prerequisites::run(&options),
        Task::Cluster => cluster::build().map(drop),
        Task::K3s(task) => k3s::run(&task),
        Task::Image(options) => image::run(&options),
        Task::Docs(options) => docs::run(&options),
        Task::Cross(options) => cross::run(&options),
        Task::Check => check::run(),
        Task::Ci => shell::run(shell::command("bash").arg(".ci/run")),
    }
}
