//! `cargo xtask image`: makes the operating system image of a box, its keys, and a box of its own out of an image.
//!
//! In: the recipe in `image/`, the units in `systemd/`, the node's static binary, keys. Out: `target/image/<architecture>/`, see
//! [`outputs`]. Guarantees: the same input gives the same `/usr`; packages other than those of the lock file are refused; nothing but the
//! package mirror of this machine (or the one given) is asked.

mod build;
mod foreign;
mod inputs;
mod keys;
mod lock;
mod locked;
pub mod mirror;
mod outputs;
mod parts;
mod personalise;
mod sbom;
mod secure_boot;
mod space;
mod update;
mod versions;

pub use versions::another as another_version;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    task: Option<Task>,
    #[command(flatten)]
    build: Box<build::Options>,
}

#[derive(Subcommand)]
enum Task {
    /// Make the builder's keys: one signs images and manifests, one is for Secure Boot
    Keys(keys::Options),
    /// Write host name, network and enrolment token of one box to a finished image
    Personalise(Box<personalise::Options>),
}

pub fn run(options: &Options) -> Result<()> {
    match &options.task {
        Some(Task::Keys(keys)) => keys::run(keys),
        Some(Task::Personalise(personalise)) => personalise::run(personalise),
        None => build::run(&options.build),
    }
}

/// Architecture of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// 64-bit PCs and servers
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    /// 64-bit Arm
    #[value(name = "aarch64", alias = "arm64")]
    Aarch64,
}

impl Architecture {
    /// That of this machine.
    const fn own() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }

    /// As the project names it: in file names and directories.
    const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As Debian and k3s name it, and as a document does.
    const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// As mkosi names it.
    const fn mkosi(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The target of the node's static binary.
    const fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }
}
