//! What a machine knows of its own starts: the kernel's id, the system that runs, crash dumps, the watchdog, the last kernel lines.
//!
//! In: `/proc`, `/sys`, `os-release`, below a root so that tests can have their own. Out: facts; what cannot be read is absent.

use super::entry::{BootId, MAX_KERNEL_LINES, System};
use jiff::{SignedDuration, Timestamp};
use std::{fs, io::Read as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

/// Bit of a watchdog's `bootstatus`: it reset the machine (`WDIOF_CARDRESET` of `linux/watchdog.h`).
const WATCHDOG_RESET: u32 = 0x20;
/// The most crash dumps that are looked at; firmware has room for few.
const MAX_DUMPS: usize = 64;
/// The most bytes that are read of one of them.
const MAX_DUMP_BYTES: u64 = 128 * 1024;
/// The most records that are read of the kernel's log.
const MAX_KERNEL_RECORDS: usize = 100_000;

/// Where the facts are read.
#[derive(Clone, Debug)]
pub struct Evidence {
    root: PathBuf,
}

/// A crash dump of the kernel, kept by the firmware or in memory over a restart.
pub(super) struct Dump {
    pub(super) name: String,
    path: PathBuf,
}

impl Evidence {
    /// The facts below `root`; those of this machine are below `/`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path))
            .ok()
            .map(|text| text.trim().to_owned())
    }

    /// Id of this start of the machine; empty where the kernel does not say.
    pub fn boot(&self) -> BootId {
        BootId(self.text("proc/sys/kernel/random/boot_id").unwrap_or_default())
    }

    /// Seconds since the machine started.
    pub fn up(&self) -> u64 {
        self.text("proc/uptime")
            .and_then(|text| text.split('.').next()?.parse().ok())
            .unwrap_or(0)
    }

    /// When the machine started, by the clock of now.
    pub fn started_at(&self) -> Timestamp {
        let up = SignedDuration::from_secs(i64::try_from(self.up()).unwrap_or(0));
        let now = Timestamp::now();
        now.checked_sub(up).unwrap_or(now)
    }

    /// The system that runs.
    pub fn system(&self) -> System {
        let release = ["etc/os-release", "usr/lib/os-release"]
            .iter()
            .find_map(|path| self.text(path))
            .unwrap_or_default();
        let version = release
            .lines()
            .find_map(|line| line.strip_prefix("IMAGE_VERSION="))
            .map(|value| value.trim_matches(['"', '\'']).to_owned());
        let usr_hash = self.text("proc/cmdline").and_then(|line| {
            line.split_ascii_whitespace()
                .find_map(|word| word.strip_prefix("usrhash="))
                .filter(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .map(str::to_ascii_lowercase)
        });
        System {
            version,
            slot: usr_hash.as_deref().and_then(|hash| self.partition(hash)),
            usr: usr_hash.map(|mut hash| {
                hash.truncate(16);
                hash
            }),
            kernel: self.text("proc/sys/kernel/osrelease").unwrap_or_default(),
        }
    }

    /// The partition whose unique id is the first half of the digest, as verity partitions are named.
    fn partition(&self, usr_hash: &str) -> Option<String> {
        let part = |from: usize, to: usize| usr_hash.get(from..to);
        let id = format!(
            "{}-{}-{}-{}-{}",
            part(0, 8)?,
            part(8, 12)?,
            part(12, 16)?,
            part(16, 20)?,
            part(20, 32)?
        );
        let link = fs::read_link(self.root.join("dev/disk/by-partuuid").join(id)).ok()?;
        Some(link.file_name()?.to_str()?.to_owned())
    }

    /// Whether a watchdog says that it reset the machine.
    pub(super) fn watchdog_reset(&self) -> bool {
        fs::read_dir(self.root.join("sys/class/watchdog"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path().join("bootstatus")).ok())
            .filter_map(|text| text.trim().parse::<u32>().ok())
            .any(|status| status & WATCHDOG_RESET != 0)
    }

    /// The crash dumps that are there, where the firmware keeps them and where systemd-pstore moves them to.
    pub(super) fn dumps(&self) -> Vec<Dump> {
        let mut dumps = Vec::new();
        let mut directories = vec![
            (self.root.join("sys/fs/pstore"), 0),
            (self.root.join("var/lib/systemd/pstore"), 2),
        ];
        while let Some((directory, depth)) = directories.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if depth > 0 {
                        directories.push((entry.path(), depth - 1));
                    }
                } else if name.starts_with("dmesg-") {
                    dumps.push(Dump {
                        name,
                        path: entry.path(),
                    });
                }
            }
        }
        dumps.sort_by(|one, other| other.name.cmp(&one.name));
        dumps.dedup_by(|one, other| one.name == other.name);
        dumps.truncate(MAX_DUMPS);
        dumps
    }

    /// The last lines of the running kernel's log that are warnings or worse, oldest first; empty where it cannot be read.
    pub fn kernel_lines(&self) -> Vec<String> {
        let opened = fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
            .open(self.root.join("dev/kmsg"));
        let Ok(mut device) = opened else {
            return Vec::new();
        };
        let mut lines = std::collections::VecDeque::new();
        let mut buffer = vec![0; 8192];
        for _ in 0..MAX_KERNEL_RECORDS {
            // One record a read. A record that was overwritten meanwhile (EPIPE) is passed over; after the newest there is EAGAIN.
            match device.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    let record =
                        String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                    lines.extend(kernel_line(&record));
                    if lines.len() > MAX_KERNEL_LINES {
                        lines.pop_front();
                    }
                }
                Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
                Err(_) => break,
            }
        }
        lines.into()
    }
}

/// The text of a record of `/dev/kmsg` (`priority,sequence,time,flags;text`) that is a warning or worse, from the kernel itself.
fn kernel_line(record: &str) -> Option<String> {
    let (head, text) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    let (facility, level) = (priority >> 3, priority & 7);
    (facility == 0 && level <= 4).then(|| text.lines().next().unwrap_or_default().to_owned())
}

impl Dump {
    /// Its file, where the firmware still keeps it.
    pub(super) fn in_firmware(&self) -> Option<PathBuf> {
        let parent = self.path.parent()?;
        parent.ends_with("sys/fs/pstore").then(|| self.path.clone())
    }

    /// Whether it tells of a panic, and then its last lines, the one that says why first. An oops alone did not end the machine.
    pub(super) fn panic(&self) -> Option<Vec<String>> {
        let mut bytes = Vec::new();
        fs::File::open(&self.path)
            .ok()?
            .take(MAX_DUMP_BYTES)
            .read_to_end(&mut bytes)
            .ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().map(without_head).collect();
        let why = lines.iter().position(|line| line.contains("Kernel panic"));
        // The firmware's first part of a dump says in its first line what it is of: `Panic#1 Part1`.
        let why = why.or_else(|| lines.first()?.starts_with("Panic#").then_some(0))?;
        let before = lines
            .get(why.saturating_sub(MAX_KERNEL_LINES - 1)..why)
            .unwrap_or_default();
        let said = lines.get(why).into_iter().chain(before.iter());
        Some(said.map(|line| (*line).to_owned()).collect())
    }
}

/// A line of the kernel's log without its level and time: `<0>[    1.234567] Kernel panic …`.
fn without_head(line: &str) -> &str {
    let line = line
        .strip_prefix('<')
        .and_then(|rest| rest.split_once('>'))
        .map_or(line, |(_, rest)| rest);
    line.strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .map_or(line, |(_, rest)| rest)
}
