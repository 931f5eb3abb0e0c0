//! Damage, recognised by the words of those who found it: k3s, kine's SQLite, containerd and its bbolt, the network plugins.
//!
//! In: the part of a log that was written since the last start. Out: what it says is damaged. It guarantees that only words which nothing
//! but damage leads to count: an end for an unknown reason, however often, is no sign of anything.

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// kine's database.
    Datastore,
    /// kine's database holds older certificates of k3s than the disk: it came back from a snapshot of before.
    DatastoreBehindFiles,
    /// containerd's record of images and containers.
    ContainerdMetadata,
    /// containerd's record of unpacked image layers.
    ContainerdSnapshots,
    /// A cached result of a network plugin.
    NetworkResults,
    /// Addresses that are reserved for pods which are no more.
    NetworkAddresses,
}

impl Damage {
    /// How it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Datastore => "the datastore",
            Self::DatastoreBehindFiles => "the datastore's copy of k3s's certificates",
            Self::ContainerdMetadata => "containerd's metadata",
            Self::ContainerdSnapshots => "containerd's snapshots",
            Self::NetworkResults => "a cached result of the pod network",
            Self::NetworkAddresses => "the address reservations of the pod network",
        }
    }
}

/// A sign and where it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// What is damaged.
    pub damage: Damage,
    /// The line that says so.
    pub line: String,
}

/// Words that a single line says. Sources: SQLite `sqlite3ErrStr` (codes 11 and 26) as kine passes them on; k3s `pkg/cluster/bootstrap.go`;
/// containernetworking/cni `libcni/api.go`; plugins `plugins/ipam/host-local/backend/allocator/allocator.go`; containerd
/// `snapshots/storage/metastore.go`.
const WORDS: [(&[&str], Damage); 7] = [
    (&["database disk image is malformed"], Damage::Datastore),
    (&["file is not a database"], Damage::Datastore),
    (&["malformed database schema"], Damage::Datastore),
    (
        &["newer than datastore and could cause a cluster outage"],
        Damage::DatastoreBehindFiles,
    ),
    (
        &["cached result", "unexpected end of JSON input"],
        Damage::NetworkResults,
    ),
    (
        &["no IP addresses available in range set"],
        Damage::NetworkAddresses,
    ),
    (
        &["failed to open database file: ", "BBOLT"],
        Damage::ContainerdSnapshots,
    ),
];

/// Errors of bbolt that only damage leads to: `bbolt/errors/errors.go`.
const BBOLT_ERRORS: [&str; 4] = [
    "invalid database",
    "file size too small",
    "checksum error",
    "version mismatch",
];

/// How a Go program ends by a panic or a fault: a page that is not there is a bus error.
const GO_ENDS: [&str; 4] = [
    "panic: ",
    "fatal error: fault",
    "unexpected fault address",
    "signal SIGBUS",
];

/// Lines of a stack that are looked at. A goroutine of containerd has some thirty frames of two lines.
const STACK_LINES: usize = 200;

/// All signs in a text, each damage once, by its first line.
pub fn signs(text: &str) -> Vec<Sign> {
    let mut found: Vec<Sign> = Vec::new();
    let mut note = |damage, line: &str| {
        if found.iter().all(|sign| sign.damage != damage) {
            let line = line.trim().chars().take(400).collect();
            found.push(Sign { damage, line });
        }
    };
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        for (words, damage) in WORDS {
            let says = |word: &&str| {
                if *word == "BBOLT" {
                    says_bbolt(line)
                } else {
                    line.contains(*word)
                }
            };
            if words.iter().all(says) {
                note(damage, line);
            }
        }
        // containerd goes on without the plugin, and serves nothing.
        if line.contains("io.containerd.metadata.v1.bolt") && says_bbolt(line) {
            note(Damage::ContainerdMetadata, line);
        }
        if GO_ENDS.iter().any(|words| line.starts_with(words)) {
            let stack = lines.iter().skip(index + 1).take(STACK_LINES);
            if let Some(damage) = blame(stack.copied()) {
                note(damage, line);
            }
        }
    }
    found.sort_by_key(|sign| sign.damage);
    found
}

fn says_bbolt(line: &str) -> bool {
    BBOLT_ERRORS.iter().any(|error| line.contains(error))
}

/// Whose database a panicking goroutine was reading: that of the snapshots is told by its frames, and there is only one other.
fn blame<'a>(stack: impl Iterator<Item = &'a str>) -> Option<Damage> {
    let mut bbolt = false;
    let mut goroutines = 0;
    for line in stack {
        if line.starts_with("goroutine ") {
            goroutines += 1;
            if goroutines > 1 {
                break;
            }
        }
        bbolt |= line.contains("go.etcd.io/bbolt.") || line.contains("go.etcd.io/bbolt/internal/");
        if bbolt && line.contains("snapshots/storage.") {
            return Some(Damage::ContainerdSnapshots);
        }
    }
    // An etcd of k3s's own uses bbolt too; it is not healed by setting a file aside.
    bbolt.then_some(Damage::ContainerdMetadata)
}
