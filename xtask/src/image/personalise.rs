//! `cargo xtask image personalise`: makes a finished image that of one box.
//!
//! In: an image (raw) or a disk with one, host name, network, wireless network, enrolment token. Out: the same with `holdfast/personal.toml`
//! and `holdfast/token` on its EFI system partition. Guarantees: nothing is written unless every value is one that the box takes, and all of them
//! have room; what is not named stays as it was.

mod country;
mod esp;
mod fat;
mod gpt;

use crate::prerequisites;
use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use esp::Esp;
use holdfast_protocol::{Problem, personal, token::EnrolmentToken};
use nix::fcntl::OFlag;
use std::{
    fs::OpenOptions,
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// The most bytes of a file with a token or a passphrase: neither is nearly as long.
const MAX_BYTES: u64 = 8192;

#[derive(Args)]
pub struct Options {
    /// The image: a raw file, not a compressed one, or the disk or card that it was written to
    image: PathBuf,
    /// File with the enrolment token of this box
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Host name, and name of the Kubernetes node
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Fixed address with the length of its network, such as 192.0.2.17/24
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    static_ip: Option<String>,
    /// Router, where the address is fixed
    #[arg(long, value_name = "ADDRESS", requires = "static_ip")]
    gateway: Option<String>,
    /// Name server, where the address is fixed; may be given more than once
    #[arg(long, value_name = "ADDRESS", requires = "static_ip")]
    dns: Vec<String>,
    /// Interface that has the fixed address [default: every wired one]
    #[arg(long, value_name = "NAME", requires = "static_ip")]
    interface: Option<String>,
    /// Name of a wireless network
    #[arg(long, value_name = "NAME")]
    wifi: Option<String>,
    /// File with the passphrase of the wireless network
    #[arg(long, value_name = "FILE", requires = "wifi")]
    wifi_passphrase_file: Option<PathBuf>,
    /// Country whose radio rules hold, such as DE
    #[arg(long, value_name = "COUNTRY", requires = "wifi")]
    wifi_country: Option<String>,
}

pub fn run(options: &Options) -> Result<()> {
    prerequisites::install(&[prerequisites::Purpose::Personalise], false)?;
    personalise(options)
}

fn personalise(options: &Options) -> Result<()> {
    let settings = settings(options)?;
    let token = options.token_file.as_deref().map(token).transpose()?;
    if settings == personal::Personal::default() && token.is_none() {
        bail!("nothing to write: name --hostname, --static-ip, --wifi or --token-file");
    }
    let image = options.image.display();
    let esp = prepare(options, settings, token.as_deref())
        .with_context(|| format!("{image} was left as it was"))?;
    esp.put_back()
        .with_context(|| format!("cannot personalise {image}"))?;
    eprintln!("{image} has the settings of its box");
    Ok(())
}

/// The partition with everything on it, while the image is as it was.
fn prepare(options: &Options, settings: personal::Personal, token: Option<&str>) -> Result<Esp> {
    let esp = Esp::of(&options.image)?;
    if settings != personal::Personal::default() {
        let there = esp.settings()?;
        let settings = personal::Personal {
            hostname: settings.hostname.or(there.hostname),
            network: settings.network.or(there.network),
            wifi: settings.wifi.or(there.wifi),
        };
        esp.write(personal::FILE, settings.to_toml().as_bytes())?;
    }
    if let Some(token) = token {
        esp.write(personal::TOKEN_FILE, token.as_bytes())?;
    }
    Ok(esp)
}

/// Which option has what the box has under a key.
const OPTIONS: [(&str, &str); 8] = [
    ("hostname", "--hostname"),
    ("network.interface", "--interface"),
    ("network.address", "--static-ip"),
    ("network.gateway", "--gateway"),
    ("network.dns", "--dns"),
    ("wifi.ssid", "--wifi"),
    ("wifi.passphrase", "the passphrase of --wifi-passphrase-file"),
    ("wifi.country", "--wifi-country"),
];

/// A problem of a value, by the name of its option: whoever gave that has no file with keys before them.
fn refused(problem: &Problem) -> anyhow::Error {
    let reason = problem.message.split_once(" of the box's personal settings ");
    let named = reason.and_then(|(key, reason)| {
        let (_, option) = OPTIONS.iter().find(|(known, _)| *known == key)?;
        let reason = OPTIONS
            .iter()
            .filter(|(known, _)| known.contains('.'))
            .fold(reason.to_owned(), |reason, (known, option)| {
                reason.replace(known, option)
            });
        Some(format!("{option} {reason}"))
    });
    anyhow!(named.unwrap_or_else(|| format!("{}; {}", problem.message, problem.action)))
}

/// What the options say, checked as the box checks it.
fn settings(options: &Options) -> Result<personal::Personal> {
    let mut settings = personal::Personal::default();
    if let Some(name) = &options.hostname {
        settings.hostname = Some(personal::hostname(name).map_err(|problem| refused(&problem))?);
    }
    if let Some(address) = &options.static_ip {
        let dns: Vec<&str> = options.dns.iter().map(String::as_str).collect();
        settings.network = Some(
            personal::network(
                options.interface.as_deref(),
                address,
                options.gateway.as_deref(),
                &dns,
            )
            .map_err(|problem| refused(&problem))?,
        );
    }
    if let Some(ssid) = &options.wifi {
        let passphrase = options
            .wifi_passphrase_file
            .as_deref()
            .map(|path| line("--wifi-passphrase-file", path))
            .transpose()?;
        if let Some(code) = &options.wifi_country {
            country::check(code)?;
        }
        settings.wifi = Some(
            personal::wifi(ssid, passphrase.as_deref(), options.wifi_country.as_deref())
                .map_err(|problem| refused(&problem))?,
        );
    }
    Ok(settings)
}

/// A file's only line. What has no end is not waited for, nor read.
fn line(option: &str, path: &Path) -> Result<String> {
    read(path).with_context(|| format!("{option}: cannot read {}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    // Opening a named pipe waits for its writer otherwise, for ever.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        bail!("it is no regular file");
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        bail!("it has more than {MAX_BYTES} bytes: no token and no passphrase is that long");
    }
    let text = String::from_utf8(text).context("it is no text")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The token, if it is one.
fn token(path: &Path) -> Result<String> {
    const OPTION: &str = "--token-file";
    let text = line(OPTION, path)?;
    text.parse::<EnrolmentToken>().map_err(|error| {
        anyhow!(
            "{OPTION}: {} holds no enrolment token: {error}; write it with: holdfastctl token create --quiet > FILE",
            path.display()
        )
    })?;
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests write plain files")]
mod tests;
