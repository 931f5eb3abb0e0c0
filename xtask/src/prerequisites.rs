//! What a machine needs beyond Rust, why, and how it gets there.
//!
//! In: a purpose. Out: everything that purpose needs is installed, or an error that lists what to install by hand.
//! Guarantees: nothing is installed without being named first with its reason; nothing is done when nothing is missing.
//! Distribution packages go through apt on Debian and Ubuntu (as root or with sudo). Tools that no distribution packages
//! go below `target/tools` and touch nothing else.

mod needs;
mod tools;

use crate::shell;
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use needs::{NEEDS, Need};
use std::{fs, process::Command};

/// What the machine is to be made ready for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// `cargo xtask demo`
    Demo,
    /// `cargo xtask test`
    Test,
    /// `cargo xtask cross`
    Cross,
    /// `cargo xtask image`
    Image,
    /// `cargo xtask test --image`
    ImageTest,
    /// `cargo xtask image personalise`
    Personalise,
    /// `.ci/run`: all but what images need
    Ci,
}

#[derive(Args)]
pub struct Options {
    /// What to make the machine ready for; may be given more than once
    #[arg(long = "for", value_name = "PURPOSE", default_value = "test")]
    purposes: Vec<Purpose>,
    /// Only say what is missing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(options: &Options) -> Result<()> {
    install(&options.purposes, options.dry_run)
}

/// Installs what is missing for the purposes; with `dry_run` only says it.
pub fn install(purposes: &[Purpose], dry_run: bool) -> Result<()> {
    let system = System::of_this_machine();
    let missing: Vec<&Need> = NEEDS
        .iter()
        .filter(|need| need.serves(purposes) && !(need.present)())
        .collect();
    let (packaged, by_hand): (Vec<&Need>, Vec<&Need>) = missing
        .iter()
        .partition(|need| !need.packages(&system).is_empty());

    if !packaged.is_empty() {
        eprintln!("Missing on this machine; to be installed by apt:");
        for need in &packaged {
            eprintln!("  {:<40} {}", need.packages(&system).join(" "), need.why);
        }
    }
    if !by_hand.is_empty() {
        eprintln!("Missing on this machine, and not to be had from its packages:");
        for need in &by_hand {
            eprintln!("  {:<40} {}\n      {}", need.name, need.why, need.by_hand);
        }
    }
    for tool in tools::missing(purposes) {
        eprintln!(
            "To be installed below {}: {} ({})",
            shell::tools_directory().display(),
            tool.name,
            tool.why
        );
    }
    if dry_run {
        return Ok(());
    }
    if !packaged.is_empty() {
        let packages: Vec<&str> = packaged
            .iter()
            .flat_map(|need| need.packages(&system))
            .copied()
            .collect();
        apt_install(&packages)?;
    }
    if !by_hand.is_empty() {
        bail!("install what is listed above, then run this again");
    }
    // Asked again: a package that came just now, as an old Go, can show a need of its own.
    for tool in tools::missing(purposes) {
        (tool.install)().with_context(|| format!("cannot install {}", tool.name))?;
    }
    Ok(())
}

/// The distribution, as far as it decides package names.
pub struct System {
    id: String,
}

impl System {
    fn of_this_machine() -> Self {
        let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let id = text
            .lines()
            .find_map(|line| line.strip_prefix("ID="))
            .unwrap_or_default()
            .trim_matches('"')
            .to_owned();
        Self { id }
    }
}

/// `apt-get install`, as root or through sudo.
fn apt_install(packages: &[&str]) -> Result<()> {
    let apt = |arguments: &[&str]| -> Result<Command> {
        let mut command = if is_root()? {
            shell::command("apt-get")
        } else if shell::find("sudo").is_some() {
            let mut command = shell::command("sudo");
            command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
            command
        } else {
            bail!(
                "this needs root: run `apt-get install {}` as root",
                packages.join(" ")
            );
        };
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        Ok(command)
    };
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(packages);
    shell::run(&mut apt(&["update"])?)?;
    shell::run(&mut apt(&install)?)
}

fn is_root() -> Result<bool> {
    Ok(shell::output(shell::command("id").arg("-u"))?.trim() == "0")
}
