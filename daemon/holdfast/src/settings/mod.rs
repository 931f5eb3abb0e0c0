//! Settings of the node: every key with its type, default and documentation, in one list.
//!
//! Fragments `/usr/lib/holdfast/*.toml`, `/run/holdfast/*.toml` and `/etc/holdfast/*.toml` are merged in this order, by file name within
//! a directory; a later value of a key replaces an earlier one. Files given with `--config` are read instead of them. Unknown
//! keys are refused. `docs/configuration.md` is generated from this list.

mod check;
mod docs;
mod load;
pub mod schema;
pub mod value;

pub use docs::markdown;
pub use load::{Fault, SettingsError, Sources};
pub use value::ByteSize;

use holdfast_protocol::document::Datastore;
use schema::settings_section;
use serde_json::{Map, Value};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

settings_section! {
    /// Keys at the top of the file.
    Settings {
        /// Directory of everything that the node must not lose: identity, store, blobs. Mode 0700; a wider one is refused.
        state_dir: PathBuf = "/var/lib/holdfast".into();
        /// Unix socket of the local API, mode 0600; `holdfast status` and the other commands talk to it.
        socket: PathBuf = "/run/holdfast/holdfast.sock".into();
        /// Room on the file system of `state_dir` that Holdfast keeps for itself and gives up when the disk is full, so that it can finish what it
        /// writes and report. With less than twice as much free, what can be done without is removed. 0 keeps none.
        disk_reserve: ByteSize = ByteSize(16 << 20);
    }
    sections {
        /// Enrolment.
        enrolment: Enrolment;
        /// Link to the hub.
        sync: Sync;
        /// Where blobs, k3s binaries and archives of images come from.
        artifacts: Artifacts;
        /// Container images of the box.
        images: Images;
        /// Kubernetes of the box.
        kubernetes: Kubernetes;
        /// Writing of objects.
        apply: Apply;
        /// Reports to the hub.
        report: Report;
        /// System clock.
        clock: Clock;
        /// Log.
        log: Log;
        /// Metrics.
        metrics: Metrics;
    }
}

settings_section! {
    /// Where a box that is not enrolled yet finds its token, and how it keeps its certificate fresh.
    Enrolment {
        /// File that holds the token; looked for until the box is enrolled, and removed after that. Often on the EFI system partition.
        token_file: Option<PathBuf> = None;
        /// Name of the systemd credential (`LoadCredential=`, `SetCredential=`) that holds the token.
        credential: String = "holdfast.token".into();
        /// Kernel command line that may hold the token as `holdfast.token=hf1.…`. An empty file disables this way.
        kernel_command_line: PathBuf = "/proc/cmdline".into();
        /// Name that the box asks for; the host name where absent. The token may say another.
        name: Option<String> = None;
        /// Longest time of one request to the hub, from connecting to the last byte of the answer.
        request_timeout: Duration = Duration::from_secs(30);
        /// Shortest wait before a failed enrolment or renewal is tried again; it doubles with each failure, with full jitter.
        retry_min: Duration = Duration::from_secs(5);
        /// Longest wait before a failed enrolment or renewal is tried again. A token that the hub refused is tried again after four times as long.
        retry_max: Duration = Duration::from_mins(15);
    }
}

settings_section! {
    /// The MQTT session with the hub.
    Sync {
        /// Whether the node connects to the hub at all. Without it, whatever is stored keeps running.
        enabled: bool = true;
        /// Longest silence on the link before a ping. The hub notices a dead link after one and a half of it.
        keep_alive: Duration = MINUTE;
        /// How long the broker keeps the session, and with it unsent documents, after the link is gone.
        session_expiry: Duration = 7 * 24 * HOUR;
        /// Shortest wait before connecting again; it doubles with each failure, with full jitter.
        backoff_min: Duration = Duration::from_secs(1);
        /// Longest wait before connecting again.
        backoff_max: Duration = Duration::from_mins(5);
        /// Longest time for connecting, from the name lookup to the broker's welcome.
        connect_timeout: Duration = Duration::from_secs(30);
    }
}

settings_section! {
    /// Where blobs, k3s binaries and archives of images come from: the store, the image of the box, the hub, and then the registries and
    /// addresses that a document names.
    Artifacts {
        /// Directory of artifacts that came with the image of the box, in files `sha256/HEX`. They are used in place.
        baked: PathBuf = "/usr/share/holdfast/artifacts".into();
        /// Directory of the release that came with the image of the box, as `holdfastctl release render --seed` writes it. A box that never had
        /// a document runs it until its hub sends one. Whoever can write there decides what runs; it must belong to root or to the user of Holdfast.
        seed: PathBuf = "/usr/share/holdfast/seed".into();
        /// Most bytes per second over all fetches; 0 is no limit.
        bandwidth: ByteSize = ByteSize(0);
        /// Longest time for connecting to a registry or address, and again for the head of its answer.
        request_timeout: Duration = Duration::from_secs(30);
        /// Proxy for registries and addresses, as `http://[user:password@]host[:port]`. The hub is reached without it.
        proxy: Option<String> = None;
        /// Hosts and domains that are reached without the proxy.
        no_proxy: Vec<String> = Vec::new();
        /// File with CA certificates (PEM) that registries and addresses may have beside those that the system trusts.
        ca_file: Option<PathBuf> = None;
        /// Access to registries, by host as documents name them: `"harbor.example.com" = { username = "robot$edge", password_file = "/…", ca_file = "/…" }`.
        /// `http = true` asks a registry without TLS, and never sends it a password.
        registries: Map<String, Value> = Map::new();
    }
}

settings_section! {
    /// How images that documents bring as archives get into containerd, and stay there.
    Images {
        /// Command that takes the arguments of containerd's `ctr`; the program of `kubernetes.binary` with `ctr` where empty.
        ctr: Vec<String> = Vec::new();
        /// Socket of containerd. Where nothing listens, images are left alone.
        containerd: PathBuf = "/run/k3s/containerd/containerd.sock".into();
    }
}

settings_section! {
    /// The Kubernetes of the box: k3s, or whatever takes `server --config FILE` as k3s does.
    Kubernetes {
        /// Whether Holdfast starts Kubernetes and starts it again when it ends. If false, it uses what answers at `kubeconfig`.
        supervise: bool = true;
        /// What keeps Kubernetes running: `child` (a process that Holdfast starts) or `systemd` (the unit below, over D-Bus).
        supervisor: String = "child".into();
        /// Unit of systemd that is Kubernetes, where `supervisor` is `systemd`.
        unit: String = "k3s.service".into();
        /// D-Bus address of the bus that systemd is on, `unix:path=…`; the system bus where absent.
        systemd_bus: Option<String> = None;
        /// Program to start: a path, or a name that is looked up in PATH. A real k3s needs root.
        binary: String = "k3s".into();
        /// Directory of Kubernetes's own data.
        data_dir: PathBuf = "/var/lib/rancher/k3s".into();
        /// File that Holdfast writes the configuration of Kubernetes to; `kubernetes/config.yaml` below `state_dir` where absent.
        config_file: Option<PathBuf> = None;
        /// File that Kubernetes writes the administrator's access to.
        kubeconfig: PathBuf = "/etc/rancher/k3s/k3s.yaml".into();
        /// Port of the Kubernetes API on this box.
        https_port: u16 = 6443;
        /// Name of the box as a Kubernetes node; the name given at enrolment where absent.
        node_name: Option<String> = None;
        /// Further arguments of the program.
        extra_args: Vec<String> = Vec::new();
        /// Further keys of the k3s configuration; over those of Holdfast, under those of the desired state.
        config: Map<String, Value> = Map::new();
        /// Address of the node that no network can take away: Holdfast puts it on an interface of its own, `holdfast0`. With one, Kubernetes
        /// starts without a default route, and goes on when the addresses of the box change. The document may say another.
        node_address: Option<IpAddr> = None;
        /// Mirrors and access to registries for Kubernetes, as k3s's `registries.yaml` has them: tables `mirrors` and `configs`. Those of the document win.
        registries: Map<String, Value> = Map::new();
        /// Fields of a `KubeletConfiguration`, such as `imageGCHighThresholdPercent = 80`; under those of the document.
        kubelet: Map<String, Value> = Map::new();
        /// An audit policy (`audit.k8s.io/v1`), where the document has none. The log is in `server/logs/audit.log` below `data_dir`, at most 30 MB in all.
        audit_policy: Map<String, Value> = Map::new();
        /// Directory for files with secrets that k3s is started with. It should be on a tmpfs.
        secrets_dir: PathBuf = "/run/holdfast/k3s-secrets".into();
        /// File that takes the output of the program; where absent, the output goes where the daemon's log goes.
        log_file: Option<PathBuf> = None;
        /// How often the API is asked whether it is ready while Kubernetes starts. Once it is ready, nothing is polled.
        ready_poll: Duration = Duration::from_millis(500);
        /// Shortest wait before Kubernetes is started again; it doubles with each short life, with full jitter. Starts are never given up.
        restart_min: Duration = Duration::from_secs(1);
        /// Longest wait before Kubernetes is started again.
        restart_max: Duration = Duration::from_mins(2);
        /// Where the datastore of Kubernetes is, where the document does not say: `persistent` (on the disk) or `ram` (in memory, with snapshots on the disk; spares the flash).
        datastore: String = "persistent".into();
        /// Directory for a datastore in memory. It must be on a tmpfs.
        datastore_ram_dir: PathBuf = "/run/holdfast/k3s-db".into();
        /// Shortest time between two snapshots of a datastore in memory. Without a change of an object, none is taken; leases, events and
        /// heartbeats of the node are no changes. After a document was applied and when Holdfast ends, one is taken without waiting.
        snapshot_interval: Duration = 10 * MINUTE;
        /// Size of the datastore above which it is compacted, and somebody is told where that does not help.
        datastore_limit: ByteSize = ByteSize(1 << 30);
        /// Size of the datastore's log above which it is written back, and somebody is told where that does not help.
        datastore_log_limit: ByteSize = ByteSize(128 << 20);
        /// Directory of the network plugins' own state: reserved addresses and results.
        cni_state_dir: PathBuf = "/var/lib/cni".into();
        /// How often a damaged part of Kubernetes (datastore, containerd, network state) is set aside and rebuilt within a day, each. More damage than that is told and left to a person. 0 never heals.
        heals_per_day: u64 = 3;
    }
}

settings_section! {
    /// How objects are written to Kubernetes.
    Apply {
        /// Objects written at the same time, 1 to 64.
        concurrency: usize = 16;
        /// Longest time of one request to the Kubernetes API.
        request_timeout: Duration = Duration::from_secs(30);
        /// Shortest wait before a failed object is tried again; it doubles with each failure, with full jitter.
        retry_min: Duration = Duration::from_millis(500);
        /// Longest wait before a failed object is tried again.
        retry_max: Duration = Duration::from_mins(1);
    }
}

settings_section! {
    /// What the node tells the hub, and how often.
    Report {
        /// Shortest time between two status reports; changes in between are summed up in the next one.
        min_interval: Duration = Duration::from_secs(1);
        /// Longest time without a status report, when nothing changes. "0s" sends none without a change.
        heartbeat: Duration = 6 * HOUR;
        /// Most events that wait for the link; the oldest go first, and the hub is told how many went.
        outbox_max_events: u64 = 10_000;
        /// Most bytes of events that wait for the link.
        outbox_max_bytes: ByteSize = ByteSize(16 << 20);
    }
}

settings_section! {
    /// The system clock of boxes without a battery.
    Clock {
        /// Whether a system clock that is behind the newest signed time of the hub is set to that time. Needs the capability
        /// `CAP_SYS_TIME`. Without it, Holdfast only uses the newer time itself, and `doctor` warns.
        set_system: bool = false;
    }
}

settings_section! {
    /// The log, on standard error.
    Log {
        /// `error`, `warn`, `info`, `debug` or `trace`; for single parts as in `info,holdfast::sync=debug`.
        level: String = "info".into();
        /// `human`, `journal` (as `human`, without time, with the priority prefix that the journal reads) or `json`.
        format: String = "human".into();
    }
}

settings_section! {
    /// Prometheus metrics beside `/v1/metrics` of the socket.
    Metrics {
        /// TCP address that answers `GET /metrics`; none where absent.
        listen: Option<SocketAddr> = None;
        /// Whether `listen` may be an address that other machines reach. The metrics are readable by everyone who does.
        allow_remote: bool = false;
    }
}

impl Settings {
    /// Directory of the node's identity; see [`crate::identity`].
    pub fn identity_dir(&self) -> PathBuf {
        self.state_dir.join("identity")
    }

    /// Directory of the SQLite store and the blobs.
    pub fn store_dir(&self) -> PathBuf {
        self.state_dir.join("store")
    }

    /// File that the configuration of Kubernetes is written to.
    pub fn kubernetes_config_file(&self) -> PathBuf {
        self.kubernetes
            .config_file
            .clone()
            .unwrap_or_else(|| self.state_dir.join("kubernetes/config.yaml"))
    }

    /// File that holds process id and start time of the Kubernetes that Holdfast started.
    pub fn kubernetes_pid_file(&self) -> PathBuf {
        self.state_dir.join("kubernetes/pid")
    }

    /// Where the datastore is, where the document does not say.
    pub fn kubernetes_datastore(&self) -> Datastore {
        if self.kubernetes.datastore == "ram" {
            Datastore::Ram
        } else {
            Datastore::Persistent
        }
    }

    /// Checks what no single key can hold; the error is the key and the reason.
    fn validate(&self) -> Result<(), (&'static str, String)> {
        let order = [
            ("sync.backoff_max", self.sync.backoff_min, self.sync.backoff_max),
            (
                "enrolment.retry_max",
                self.enrolment.retry_min,
                self.enrolment.retry_max,
            ),
            (
                "kubernetes.restart_max",
                self.kubernetes.restart_min,
                self.kubernetes.restart_max,
            ),
            ("apply.retry_max", self.apply.retry_min, self.apply.retry_max),
        ];
        for (key, min, max) in order {
            if min.is_zero() || min > max {
                let (min, max) = (value::format_duration(min), value::format_duration(max));
                return Err((
                    key,
                    format!("the shortest wait, {min}, must be above zero and not above the longest, {max}"),
                ));
            }
        }
        if !(1..=64).contains(&self.apply.concurrency) {
            return Err((
                "apply.concurrency",
                format!("{} is not within 1 and 64", self.apply.concurrency),
            ));
        }
        // MQTT carries the keep-alive in 16 bits of seconds; 0 would turn it off, and a dead link would never be noticed.
        if !(1..=65_535).contains(&self.sync.keep_alive.as_secs()) {
            return Err(("sync.keep_alive", "must be within 1s and 65535s".into()));
        }
        if let Some(name) = &self.enrolment.name {
            name.parse::<holdfast_protocol::NodeId>()
                .map_err(|error| ("enrolment.name", error.to_string()))?;
        }
        crate::artifacts::registry::check(&self.artifacts.registries)
            .map_err(|reason| ("artifacts.registries", reason))?;
        if let Some(proxy) = &self.artifacts.proxy {
            crate::artifacts::check_proxy(proxy).map_err(|reason| ("artifacts.proxy", reason))?;
        }
        check::log_level(&self.log.level).map_err(|reason| ("log.level", reason))?;
        check::program(&self.kubernetes.binary).map_err(|reason| ("kubernetes.binary", reason))?;
        if let Some(name) = &self.kubernetes.node_name {
            check::node_name(name).map_err(|reason| ("kubernetes.node_name", reason))?;
        }
        if !["child", "systemd"].contains(&self.kubernetes.supervisor.as_str()) {
            return Err((
                "kubernetes.supervisor",
                format!("{:?} is not child or systemd", self.kubernetes.supervisor),
            ));
        }
        if !["persistent", "ram"].contains(&self.kubernetes.datastore.as_str()) {
            return Err((
                "kubernetes.datastore",
                format!("{:?} is not persistent or ram", self.kubernetes.datastore),
            ));
        }
        if !["human", "journal", "json"].contains(&self.log.format.as_str()) {
            return Err((
                "log.format",
                format!("{:?} is not human, journal or json", self.log.format),
            ));
        }
        if let Some(address) = self.metrics.listen
            && !address.ip().is_loopback()
            && !self.metrics.allow_remote
        {
            return Err((
                "metrics.listen",
                format!(
                    "{address} can be reached by other machines; use 127.0.0.1 or set metrics.allow_remote = true"
                ),
            ));
        }
        for (key, path) in [("state_dir", &self.state_dir), ("socket", &self.socket)] {
            if !Path::is_absolute(path) {
                return Err((key, format!("{} is not an absolute path", path.display())));
            }
        }
        Ok(())
    }
}
