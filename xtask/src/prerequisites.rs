//! What a machine needs beyond Rust, why, and how it gets there.
//!
//! In: a purpose. Out: everything that purpose needs is installed, or an error that lists what to install by hand.
//! Guarantees: nothing is installed without being named first with its reason; nothing is done when nothing is missing.
//! Distribution packages go through apt on Debian and Ubuntu (as root or with sudo). Tools that no distribution packages
//! go below `target/tools` and touch nothing else.

mod needs;
mod tools;

use crate::{
    files,
    image::mirror::{KEYRING, Mirror},
    shell,
};
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use needs::{NEEDS, Need};
use std::fs;

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
    /// `cargo xtask image --arch` for another architecture than this machine's
    ForeignImage,
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

/// What a package's name ends with that Debian 12 has new enough among its backports only.
const BACKPORT: &str = "/backports";

/// `apt-get install`, as root or through sudo.
fn apt_install(packages: &[&str]) -> Result<()> {
    let (backports, plain): (Vec<&str>, Vec<&str>) = packages
        .iter()
        .partition(|package| package.ends_with(BACKPORT) && release_is_bookworm());
    if !plain.is_empty() {
        let plain: Vec<&str> = plain
            .iter()
            .map(|package| package.trim_end_matches(BACKPORT))
            .collect();
        apt(&[], &["update"])?;
        apt(&["install", "--yes", "--no-install-recommends"], &plain)?;
    }
    if !backports.is_empty() {
        let backports: Vec<&str> = backports
            .iter()
            .map(|package| package.trim_end_matches(BACKPORT))
            .collect();
        // A list of sources for these two calls only: what the machine updates itself from stays as it is.
        let list = shell::tools_directory().join("backports.list");
        let own = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
        let mirror = Mirror::choose(None, None)?.packages;
        files::replace(
            &list,
            format!("{own}\ndeb [signed-by={KEYRING}] {mirror} bookworm-backports main\n"),
        )?;
        let source = format!("Dir::Etc::SourceList={}", list.display());
        apt(&["-o", &source], &["update"])?;
        apt(
            &[
                "-o",
                &source,
                "-t",
                "bookworm-backports",
                "install",
                "--yes",
                "--no-install-recommends",
            ],
            &backports,
        )?;
    }
    Ok(())
}

fn apt(options: &[&str], arguments: &[&str]) -> Result<()> {
    let mut command = if is_root()? {
        shell::command("apt-get")
    } else if shell::find("sudo").is_some() {
        let mut command = shell::command("sudo");
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command
    } else {
        bail!(
            "this needs root: run `apt-get {} {}` as root",
            options.join(" "),
            arguments.join(" ")
        );
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    shell::run(command.args(options).args(arguments))
}

fn release_is_bookworm() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| text.contains("VERSION_CODENAME=bookworm"))
}

fn is_root() -> Result<bool> {
    Ok(shell::output(shell::command("id").arg("-u"))?.trim() == "0")
}
