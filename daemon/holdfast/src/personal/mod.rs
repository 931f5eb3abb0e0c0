//! Makes an appliance its own at each start, from `personal.toml` on the EFI system partition.
//!
//! In: the file that [`holdfast_protocol::personal`] describes. Out: the host name, files for systemd-networkd and wpa_supplicant below
//! `/run`, and what could not be used. Guarantees: a bad value costs only itself; files of a setting that is gone are gone; nothing but the
//! file of wpa_supplicant, which only root reads, ever has the passphrase; all of it is below `/run` and `/etc`, which a restart empties.

use holdfast_protocol::{
    Problem, codes,
    personal::{Network, Personal, Wifi},
};
use holdfast_store::fs::{
    PRIVATE_FILE, PUBLIC_FILE, create_private_directory, open_regular, remove, write_atomic,
};
use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// The most bytes that are read of the file.
const MAX_BYTES: u64 = 64 * 1024;
/// What could not be used of the last start's settings, for `holdfast console`.
pub const PROBLEMS: &str = "/run/holdfast-personal/problems.json";
/// Where the image has the file: the EFI system partition is mounted at `/efi`.
pub const SOURCE: &str = "/efi/holdfast/personal.toml";
/// Name of the file on the partition.
const FILE: &str = "personal.toml";

/// Where the system reads its configuration.
#[derive(Clone, Debug)]
pub struct Targets {
    root: PathBuf,
}

/// What became of the settings.
#[derive(Debug, Default)]
pub struct Applied {
    /// What was set, a line each, without secrets.
    pub done: Vec<String>,
    /// What could not be used or written.
    pub problems: Vec<Problem>,
}

impl Targets {
    /// The files below `root`; only for `/` itself the running system's host name is set, too.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str, mode: u32) -> Result<(), Problem> {
        let path = self.path(path);
        if let Some(parent) = path.parent() {
            if mode == PRIVATE_FILE {
                create_private_directory(parent).map_err(|error| error.problem())?;
            } else {
                fs::create_dir_all(parent).map_err(|error| unwritable(parent, &error))?;
            }
        }
        write_atomic(&path, text.as_bytes(), mode).map_err(|error| error.problem())
    }

    fn remove(&self, path: &str) -> Result<(), Problem> {
        let path = self.path(path);
        if path.exists() {
            remove(&path).map_err(|error| error.problem())?;
        }
        Ok(())
    }
}

/// Applies `personal.toml` in `directory`. Without the file, everything is as the image has it.
pub fn apply(directory: &Path, targets: &Targets) -> Applied {
    let path = directory.join(FILE);
    let (personal, problems) = match read(&path) {
        Ok(text) => Personal::read(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Default::default(),
        Err(error) => {
            let problem = Problem::new(
                codes::PERSONAL_INVALID,
                format!("{} cannot be read: {error}", path.display()),
                "check the EFI system partition, and write the file anew: it is text in UTF-8",
            );
            (Personal::default(), vec![problem])
        }
    };
    let mut applied = Applied {
        done: Vec::new(),
        problems,
    };
    let steps = [
        set_hostname(targets, personal.hostname.as_deref()),
        set_network(targets, personal.network.as_ref()),
        set_wifi(targets, personal.wifi.as_ref()),
    ];
    for step in steps {
        match step {
            Ok(line) => applied.done.extend(line),
            Err(problem) => applied.problems.push(problem),
        }
    }
    let kept = serde_json::to_string(&applied.problems).unwrap_or_default();
    let kept = if applied.problems.is_empty() {
        targets.remove(PROBLEMS)
    } else {
        targets.write(PROBLEMS, &kept, PRIVATE_FILE)
    };
    applied.problems.extend(kept.err());
    applied
}

/// The file's text. What is no file is not waited for, and one that is too long is not read in part: settings would be missing
/// without a word.
fn read(path: &Path) -> io::Result<String> {
    let file = open_regular(OpenOptions::new().read(true), path)?;
    let facts = file.metadata()?;
    if facts.len() > MAX_BYTES {
        return Err(io::Error::other(format!(
            "it has {} bytes, and may have {MAX_BYTES}",
            facts.len()
        )));
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn set_hostname(targets: &Targets, name: Option<&str>) -> Result<Option<String>, Problem> {
    let Some(name) = name else { return Ok(None) };
    targets.write("/etc/hostname", &format!("{name}\n"), PUBLIC_FILE)?;
    if targets.root == Path::new("/") {
        nix::unistd::sethostname(name)
            .map_err(|error| unwritable(Path::new("the host name"), &error.into()))?;
    }
    Ok(Some(format!("the host name is {name}")))
}

fn set_network(targets: &Targets, network: Option<&Network>) -> Result<Option<String>, Problem> {
    const FILE: &str = "/run/systemd/network/10-holdfast-personal.network";
    let Some(network) = network else {
        targets.remove(FILE)?;
        return Ok(None);
    };
    targets.write(FILE, &networkd(network), PUBLIC_FILE)?;
    let interface = network.interface.as_deref().unwrap_or("every wired interface");
    Ok(Some(format!(
        "{interface} has the address {}/{}",
        network.address, network.prefix
    )))
}

/// The file for systemd-networkd, before that of the image which asks DHCP.
fn networkd(network: &Network) -> String {
    let mut text = String::from("# From personal.toml on the EFI system partition.\n[Match]\n");
    // Writing to a string cannot fail.
    let _ = match &network.interface {
        Some(name) => writeln!(text, "Name={name}"),
        None => writeln!(text, "Type=ether\nKind=!*"),
    };
    let _ = writeln!(
        text,
        "\n[Network]\nDHCP=no\nAddress={}/{}",
        network.address, network.prefix
    );
    if let Some(gateway) = network.gateway {
        let _ = writeln!(text, "Gateway={gateway}");
    }
    for server in &network.dns {
        let _ = writeln!(text, "DNS={server}");
    }
    text.push_str("\n[Link]\nRequiredForOnline=no\n");
    text
}

fn set_wifi(targets: &Targets, wifi: Option<&Wifi>) -> Result<Option<String>, Problem> {
    const SECRET: &str = "/run/holdfast-personal/wpa_supplicant.conf";
    const FILE: &str = "/run/systemd/network/70-holdfast-wifi.network";
    let Some(wifi) = wifi else {
        targets.remove(SECRET)?;
        targets.remove(FILE)?;
        return Ok(None);
    };
    targets.write(SECRET, &wpa_supplicant(wifi), PRIVATE_FILE)?;
    let file = "# From personal.toml on the EFI system partition.\n[Match]\nType=wlan\n\n\
                [Network]\nDHCP=yes\nIPv6AcceptRA=yes\nIgnoreCarrierLoss=3s\n\n\
                [DHCPv4]\nRouteMetric=2048\n\n[Link]\nRequiredForOnline=no\n";
    targets.write(FILE, file, PUBLIC_FILE)?;
    Ok(Some(format!("the wireless network is {}", wifi.ssid)))
}

/// The file for wpa_supplicant. The name is in hexadecimal, so that it needs no quoting; of a quoted passphrase the last quote counts.
fn wpa_supplicant(wifi: &Wifi) -> String {
    let mut text = String::from("# From personal.toml on the EFI system partition.\n");
    if let Some(country) = &wifi.country {
        let _ = writeln!(text, "country={country}");
    }
    text.push_str("network={\n    scan_ssid=1\n    ssid=");
    for byte in wifi.ssid.bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    match &wifi.passphrase {
        None => text.push_str("    key_mgmt=NONE\n"),
        Some(key) if key.len() == 64 => {
            let _ = writeln!(text, "    psk={key}\n    key_mgmt=WPA-PSK WPA-PSK-SHA256");
        }
        Some(phrase) => {
            let _ = writeln!(
                text,
                "    psk=\"{phrase}\"\n    key_mgmt=WPA-PSK WPA-PSK-SHA256 SAE\n    ieee80211w=1"
            );
        }
    }
    text.push_str("}\n");
    text
}

fn unwritable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(
        crate::codes::PERSONAL_NOT_APPLIED,
        format!("{} cannot be set: {error}", path.display()),
        "run it as root; the log of the kernel says more about a failing disk",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn esp(text: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        write_atomic(&directory.path().join(FILE), text.as_bytes(), PUBLIC_FILE).unwrap();
        directory
    }

    fn text(root: &Path, path: &str) -> String {
        fs::read_to_string(root.join(path)).unwrap_or_default()
    }

    const WHOLE: &str = "hostname = \"shop-17\"\n[network]\naddress = \"192.0.2.17/24\"\ngateway = \"192.0.2.1\"\ndns = [\"192.0.2.53\"]\n\
                         [wifi]\nssid = \"till \\\"1\\\"\"\npassphrase = \"a \\\"quoted\\\" phrase\"\ncountry = \"de\"\n";

    #[test]
    fn name_network_and_wireless_network_are_where_the_system_reads_them() {
        let (esp, root) = (esp(WHOLE), tempfile::tempdir().unwrap());
        let applied = apply(esp.path(), &Targets::below(root.path()));
        assert!(applied.problems.is_empty(), "{:?}", applied.problems);
        assert_eq!(text(root.path(), "etc/hostname"), "shop-17\n");
        let network = text(root.path(), "run/systemd/network/10-holdfast-personal.network");
        for line in [
            "Type=ether",
            "DHCP=no",
            "Address=192.0.2.17/24",
            "Gateway=192.0.2.1",
            "DNS=192.0.2.53",
        ] {
            assert!(network.lines().any(|found| found == line), "{line} in {network}");
        }
        let secret = root.path().join("run/holdfast-personal/wpa_supplicant.conf");
        let wifi = fs::read_to_string(&secret).unwrap();
        for line in [
            "country=DE",
            "    ssid=74696c6c20223122",
            "    psk=\"a \"quoted\" phrase\"",
        ] {
            assert!(wifi.lines().any(|found| found == line), "{line} in {wifi}");
        }
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!applied.done.join("\n").contains("quoted"), "{:?}", applied.done);
        assert!(text(root.path(), "run/systemd/network/70-holdfast-wifi.network").contains("Type=wlan"));
    }

    #[test]
    fn a_bad_value_is_named_and_all_others_are_applied() {
        let broken = WHOLE.replace("192.0.2.17/24", "192.0.2.17");
        let (esp, root) = (esp(&broken), tempfile::tempdir().unwrap());
        let applied = apply(esp.path(), &Targets::below(root.path()));
        assert_eq!(applied.problems.len(), 1);
        assert_eq!(applied.done.len(), 2);
        assert!(applied.problems[0].message.starts_with("network.address"));
        let kept: Vec<Problem> =
            serde_json::from_str(&text(root.path(), "run/holdfast-personal/problems.json")).unwrap();
        assert_eq!(kept, applied.problems);
        assert!(
            !root
                .path()
                .join("run/systemd/network/10-holdfast-personal.network")
                .exists()
        );
    }

    #[test]
    fn what_is_gone_from_the_file_is_gone_from_the_system() {
        let (whole, root) = (esp(WHOLE), tempfile::tempdir().unwrap());
        let targets = Targets::below(root.path());
        apply(whole.path(), &targets);
        let none = tempfile::tempdir().unwrap();
        let applied = apply(none.path(), &targets);
        assert!(
            applied.done.is_empty() && applied.problems.is_empty(),
            "{applied:?}"
        );
        assert!(
            !root
                .path()
                .join("run/holdfast-personal/wpa_supplicant.conf")
                .exists()
        );
        assert!(
            !root
                .path()
                .join("run/systemd/network/70-holdfast-wifi.network")
                .exists()
        );
    }

    #[test]
    fn a_file_that_is_no_text_is_named_and_blocks_nothing() {
        let directory = tempfile::tempdir().unwrap();
        write_atomic(&directory.path().join(FILE), &[0xff, 0xfe, 0], PUBLIC_FILE).unwrap();
        let root = tempfile::tempdir().unwrap();
        let applied = apply(directory.path(), &Targets::below(root.path()));
        assert_eq!(applied.problems.len(), 1, "{applied:?}");
        assert_eq!(applied.problems[0].code, codes::PERSONAL_INVALID);
    }

    #[test]
    fn a_pipe_a_directory_and_a_file_without_end_are_named_and_nothing_waits() {
        let (root, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = directory.path().join(FILE);
        let problem = || {
            let applied = apply(directory.path(), &Targets::below(root.path()));
            assert!(applied.done.is_empty(), "{applied:?}");
            assert_eq!(applied.problems.len(), 1, "{applied:?}");
            applied.problems[0].message.clone()
        };
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(problem().ends_with("it is no file"), "{}", problem());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(problem().ends_with("it is no file"), "{}", problem());
        fs::remove_dir(&path).unwrap();
        let long = format!("hostname = \"shop-17\"\n{}", "# \n".repeat(30_000));
        write_atomic(&path, long.as_bytes(), PUBLIC_FILE).unwrap();
        assert!(problem().contains("90021 bytes"), "{}", problem());
    }
}
