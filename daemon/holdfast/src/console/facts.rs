//! What the console shows: the daemon's answer, and what the machine says by itself where no daemon does.

use crate::{
    boots::{BootLog, Evidence, System},
    enrol::hardware,
    identity::DeviceKey,
    local_api::{client::ask, view::LocalStatus},
    personal, reset,
    settings::Settings,
};
use holdfast_protocol::Problem;
use http::Method;
use jiff::Timestamp;
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use std::{fs, net::IpAddr, time::Duration};
use tokio::{process::Command, time::timeout};

/// How long the daemon may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// Beginnings of the names of interfaces that are not the box's own, but of its pods and their networks.
const OF_PODS: &[&str] = &[
    "lo",
    "cni",
    "veth",
    "flannel",
    "docker",
    "kube",
    "cali",
    "holdfast0",
    "dummy",
];
/// Lines of the log that are fetched.
const LOG_LINES: &str = "200";

/// What is known at one moment.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) now: Timestamp,
    /// The daemon's answer, or why there is none.
    pub(super) status: Result<LocalStatus, Problem>,
    pub(super) system: System,
    pub(super) hostname: String,
    pub(super) serial: Option<String>,
    /// SHA-256 of the public key of the box, in hexadecimal; it has one from its first enrolment on.
    pub(super) key: Option<String>,
    /// Interface and address.
    pub(super) addresses: Vec<(String, String)>,
    /// Router and its interface.
    pub(super) routers: Vec<String>,
    pub(super) name_servers: Vec<String>,
    /// A factory reset that waits for a restart.
    pub(super) reset: Option<Problem>,
    /// What was wrong with the personal settings.
    pub(super) personal: Vec<Problem>,
}

/// Looks at everything.
pub(super) async fn look(settings: &Settings) -> Facts {
    let asked = timeout(
        PATIENCE,
        ask(&settings.socket, Method::GET, "/v1/status", Vec::new()),
    )
    .await;
    let status = match asked {
        Ok(Ok(body)) => serde_json::from_slice(&body).map_err(|error| unreadable(&error.to_string())),
        Ok(Err(error)) => Err(Problem::from(&error)),
        Err(_) => Err(unreadable("nothing within 5 s")),
    };
    let key = DeviceKey::load(&settings.identity_dir()).ok().flatten();
    Facts {
        now: Timestamp::now(),
        status,
        system: Evidence::below("/").system(),
        hostname: hardware::hostname().unwrap_or_default(),
        serial: hardware::facts().serial,
        key: key.map(|key| key.pin().hex()),
        addresses: addresses(),
        routers: routers(),
        name_servers: name_servers(),
        reset: reset::pending(&settings.state_dir, &BootLog::new(&settings.state_dir)),
        personal: fs::read_to_string(personal::PROBLEMS)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default(),
    }
}

fn unreadable(reason: &str) -> Problem {
    Problem::new(
        crate::codes::DAEMON_UNREACHABLE,
        format!("the daemon does not say how it is: {reason}"),
        "look at the log (l); the box starts the daemon again by itself",
    )
}

fn addresses() -> Vec<(String, String)> {
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    let mut addresses = Vec::new();
    for interface in interfaces {
        let name = interface.interface_name;
        if OF_PODS.iter().any(|start| name.starts_with(start))
            || !interface.flags.contains(InterfaceFlags::IFF_UP)
        {
            continue;
        }
        let Some(address) = interface.address else {
            continue;
        };
        let ip = address
            .as_sockaddr_in()
            .map(|address| IpAddr::V4(address.ip()))
            .or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())));
        match ip {
            Some(IpAddr::V6(ip))
                if ip
                    .segments()
                    .first()
                    .is_some_and(|first| first & 0xffc0 == 0xfe80) => {}
            Some(ip) => addresses.push((name, ip.to_string())),
            None => {}
        }
    }
    addresses
}

/// Default routes, from the kernel's table: interface, destination and router as little-endian hexadecimal.
fn routers() -> Vec<String> {
    let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let router = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (name, destination, router) = (fields.next()?, fields.next()?, fields.next()?);
        let router = u32::from_str_radix(router, 16)
            .ok()
            .filter(|_| destination == "00000000")?;
        Some(format!("{} on {name}", IpAddr::from(router.to_le_bytes())))
    };
    table.lines().skip(1).filter_map(router).collect()
}

fn name_servers() -> Vec<String> {
    // Behind the local resolver's own address are these.
    ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver "))
        .map(|server| server.trim().to_owned())
        .collect()
}

/// The last lines of the log of the node and of Kubernetes.
pub(super) async fn log() -> Vec<String> {
    let asked = Command::new("journalctl")
        .args([
            "--quiet",
            "--no-pager",
            "--boot",
            "--output=short",
            "--lines",
            LOG_LINES,
        ])
        .args(["--unit=holdfast*", "--unit=k3s*"])
        .kill_on_drop(true)
        .output();
    match timeout(PATIENCE, asked).await {
        Ok(Ok(done)) if done.status.success() => String::from_utf8_lossy(&done.stdout)
            .lines()
            .map(str::to_owned)
            .collect(),
        Ok(Ok(done)) => vec![String::from_utf8_lossy(&done.stderr).trim().to_owned()],
        Ok(Err(error)) => vec![format!("the journal cannot be read: {error}")],
        Err(_) => vec!["the journal does not answer".to_owned()],
    }
}
