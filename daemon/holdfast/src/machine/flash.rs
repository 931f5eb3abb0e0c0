//! Bytes that reach the flash, by whom, and how long it lasts.
//!
//! In: `/proc` and `/sys`, the process of k3s. Out: totals and rates by day for the device, k3s and Holdfast, and what the device says of its
//! life. It guarantees that counting writes nothing: totals are those of this boot, kept in memory, and looked at when a report is made.
//!
//! Sources: `write_bytes` and `cancelled_write_bytes` of proc(5) `/proc/PID/io` (a process's own and those of its children that ended and
//! were waited for); `wbytes` of cgroup v2 `io.stat` where k3s has a control group of its own, as under systemd; sectors of 512 bytes in
//! `Documentation/block/stat.rst`; `life_time` and `pre_eol_info` of `Documentation/driver-api/mmc/mmc-dev-attrs.rst` (JEDEC eMMC 5.0).

use holdfast_protocol::report::{FlashFacts, FlashRate};
use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A rate needs this much time between its samples: what is written in bursts says nothing before.
const SHORTEST_WINDOW: Duration = Duration::from_mins(10);
/// Samples are kept this far apart, at least.
const STEP: Duration = Duration::from_hours(1);
/// Rates are of the last day.
const SAMPLES: usize = 25;
/// Bytes of a sector as the kernel counts them, whatever the device's own are.
const SECTOR: u64 = 512;
const DAY: f64 = 86_400.0;

/// Bytes written since boot, or since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// By everybody, to the device below the state directory.
    pub device: Option<u64>,
    /// By k3s and its children.
    pub kubernetes: u64,
    /// By Holdfast.
    pub holdfast: u64,
}

/// Counts what is written.
#[derive(Debug)]
pub struct Flash {
    system: PathBuf,
    processes: PathBuf,
    device: Option<PathBuf>,
    kubernetes: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    samples: VecDeque<(Instant, Written)>,
    /// What each process of k3s that is no more had written when it was seen last.
    ended: u64,
    root: Option<i32>,
    seen: BTreeMap<i32, u64>,
}

impl Flash {
    /// Counts for the disk below `state_directory` and for the k3s whose process is written down in `kubernetes`. `system` is `/sys`,
    /// `processes` is `/proc`.
    pub fn new(system: PathBuf, processes: PathBuf, state_directory: &Path, kubernetes: PathBuf) -> Self {
        let device = device_of(&system, state_directory);
        Self {
            system,
            processes,
            device,
            kubernetes,
            inner: Mutex::default(),
        }
    }

    /// What was written up to now, and how fast.
    pub fn facts(&self) -> FlashFacts {
        let now = Instant::now();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let written = Written {
            device: self
                .device
                .as_deref()
                .and_then(sectors_written)
                .map(|count| count * SECTOR),
            kubernetes: self.of_kubernetes(&mut inner),
            holdfast: self.of_process("self").unwrap_or_default(),
        };
        let oldest = inner.samples.front().copied();
        let is_due = inner
            .samples
            .back()
            .is_none_or(|(at, _)| now.duration_since(*at) >= STEP);
        if is_due {
            inner.samples.push_back((now, written));
            if inner.samples.len() > SAMPLES {
                inner.samples.pop_front();
            }
        }
        drop(inner);
        let rate = |of: fn(&Written) -> Option<u64>| {
            let since_boot = of(&written)?;
            let per_day = oldest.and_then(|(at, before)| {
                let time = now.duration_since(at);
                per_day(since_boot.saturating_sub(of(&before)?), time)
            });
            Some(FlashRate {
                bytes: since_boot,
                bytes_per_day: per_day,
            })
        };
        let life = self.device.as_deref().map(Life::read).unwrap_or_default();
        FlashFacts {
            device: self
                .device
                .as_deref()
                .and_then(Path::file_name)
                .map(|name| name.to_string_lossy().into_owned()),
            written: rate(|written| written.device),
            by_kubernetes: rate(|written| Some(written.kubernetes)),
            by_holdfast: rate(|written| Some(written.holdfast)),
            life_used_percent: life.used_percent,
            life_warning: life.warning,
            days_left: life.days_left(jiff::Timestamp::now()),
        }
    }

    /// By the control group where k3s has one of its own, else by its processes.
    fn of_kubernetes(&self, inner: &mut Inner) -> u64 {
        let Some(pid) = self.kubernetes_pid() else {
            return settle(inner, None, BTreeMap::new());
        };
        if let Some(bytes) = self.of_group(pid) {
            return bytes;
        }
        let mut now = BTreeMap::new();
        let mut open = vec![pid];
        let root = Some(pid);
        while let Some(pid) = open.pop() {
            if let Some(bytes) = self.of_process(&pid.to_string()) {
                now.insert(pid, bytes);
                open.extend(self.children(pid));
            }
        }
        settle(inner, root, now)
    }

    fn kubernetes_pid(&self) -> Option<i32> {
        let record: serde_json::Value = serde_json::from_slice(&fs::read(&self.kubernetes).ok()?).ok()?;
        i32::try_from(record.get("pid")?.as_i64()?).ok()
    }

    fn of_group(&self, pid: i32) -> Option<u64> {
        let group = |of: &str| {
            let text = fs::read_to_string(self.processes.join(of).join("cgroup")).ok()?;
            let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
            Some(path.to_owned())
        };
        let own = group(&pid.to_string()).filter(|path| !path.is_empty())?;
        if Some(&own) == group("self").as_ref() {
            return None;
        }
        let text = fs::read_to_string(self.system.join("fs/cgroup").join(own).join("io.stat")).ok()?;
        let bytes = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("wbytes=")?.parse::<u64>().ok())
            .sum();
        Some(bytes)
    }

    fn of_process(&self, pid: &str) -> Option<u64> {
        let text = fs::read_to_string(self.processes.join(pid).join("io")).ok()?;
        let value = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        let cancelled = value("cancelled_write_bytes:").unwrap_or_default();
        Some(value("write_bytes:")?.saturating_sub(cancelled))
    }

    fn children(&self, pid: i32) -> Vec<i32> {
        let tasks = self.processes.join(pid.to_string()).join("task");
        fs::read_dir(tasks)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|text| {
                text.split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<i32>>()
            })
            .collect()
    }
}

/// Takes in what each process of the k3s with this process id has written now. What a process wrote that is no more stays counted, whether
/// the kernel gave it to its parent or not.
fn settle(inner: &mut Inner, root: Option<i32>, now: BTreeMap<i32, u64>) -> u64 {
    let before = inner.ended + inner.seen.values().sum::<u64>();
    let sum: u64 = now.values().sum();
    if inner.root == root {
        inner.ended += before.saturating_sub(inner.ended + sum);
    } else {
        inner.ended = before;
    }
    inner.root = root;
    inner.seen = now;
    inner.ended + sum
}

fn per_day(bytes: u64, time: Duration) -> Option<u64> {
    if time < SHORTEST_WINDOW {
        return None;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate of at most some TiB, rounded"
    )]
    let rate = (bytes as f64 / time.as_secs_f64() * DAY) as u64;
    Some(rate)
}

/// Directory in `/sys` of the whole device that holds `path`; none for a file system without one, such as one in memory.
fn device_of(system: &Path, path: &Path) -> Option<PathBuf> {
    let number = fs::metadata(path).ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let mut device = fs::canonicalize(system.join(format!("dev/block/{major}:{minor}"))).ok()?;
    // Encrypted and composed devices stand on others.
    while let Some(below) = fs::read_dir(device.join("slaves"))
        .ok()
        .and_then(|mut slaves| slaves.next())
    {
        device = fs::canonicalize(below.ok()?.path()).ok()?;
    }
    if device.join("partition").exists() {
        device = device.parent()?.to_owned();
    }
    Some(device)
}

/// The seventh field of `stat`.
fn sectors_written(device: &Path) -> Option<u64> {
    let text = fs::read_to_string(device.join("stat")).ok()?;
    text.split_whitespace().nth(6)?.parse().ok()
}

/// What a device says of itself. eMMC does; SD cards, USB sticks and, in `/sys`, NVMe do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Life {
    /// The higher end of the step of ten that it names, of the memory that is worn more.
    used_percent: Option<u8>,
    warning: bool,
    /// Month of its making.
    made: Option<jiff::Timestamp>,
}

impl Life {
    fn read(device: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(device.join("device").join(name)).unwrap_or_default();
        let number = |word: &str| u8::from_str_radix(word.trim().trim_start_matches("0x"), 16).ok();
        let step = text("life_time")
            .split_whitespace()
            .filter_map(number)
            // 0 is "not defined", 11 "exceeded".
            .filter(|step| (1..=11).contains(step))
            .max();
        let end = number(&text("pre_eol_info")).unwrap_or_default();
        let made = text("date").trim().split_once('/').and_then(|(month, year)| {
            let date = jiff::civil::Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok()?;
            Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
        });
        Self {
            used_percent: step.map(|step| (step * 10).min(100)),
            // 2: 80 % of the reserved blocks are used; 3: 90 %.
            warning: end >= 2 || step.is_some_and(|step| step >= 9),
            made,
        }
    }

    /// Days until it is worn out, if it is used on as it was since it was made. Nothing is known of when it was taken into use, and of its
    /// steps of ten the higher end is taken: it is rather too early than too late.
    fn days_left(&self, now: jiff::Timestamp) -> Option<u32> {
        let used = i64::from(self.used_percent?);
        let age = now.duration_since(self.made?).as_hours() / 24;
        if age <= 0 {
            return None;
        }
        u32::try_from(age * (100 - used) / used).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        holdfast_store::fs::write_atomic(path, content.as_bytes(), 0o600).unwrap();
    }

    /// `/sys` with an eMMC whose second partition holds `state`, and `/proc` with k3s and a child.
    fn machine(root: &Path) -> Flash {
        let (system, processes, state) = (root.join("sys"), root.join("proc"), root.join("state"));
        fs::create_dir_all(&state).unwrap();
        let number = fs::metadata(&state).unwrap().dev();
        let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
        let device = system.join("devices/mmcblk0");
        put(&device.join("mmcblk0p2/partition"), "2\n");
        put(&device.join("stat"), "10 0 80 1 20 0 2000 5 0 6 6\n");
        put(&device.join("device/life_time"), "0x02 0x04\n");
        put(&device.join("device/pre_eol_info"), "0x01\n");
        put(&device.join("device/date"), "01/2020\n");
        fs::create_dir_all(system.join("dev/block")).unwrap();
        std::os::unix::fs::symlink(
            device.join("mmcblk0p2"),
            system.join(format!("dev/block/{major}:{minor}")),
        )
        .unwrap();
        let process = |pid: &str, written: u64, cancelled: u64, children: &str| {
            let text = format!(
                "rchar: 1\nwchar: 2\nread_bytes: 3\nwrite_bytes: {written}\ncancelled_write_bytes: {cancelled}\n"
            );
            put(&processes.join(pid).join("io"), &text);
            put(
                &processes.join(pid).join("task").join(pid).join("children"),
                children,
            );
        };
        process("self", 100, 40, "");
        process("50", 1000, 0, "51 ");
        process("51", 500, 100, "");
        put(&root.join("pid"), r#"{"pid": 50}"#);
        Flash::new(system, processes, &state, root.join("pid"))
    }

    #[test]
    fn pain_06_bytes_are_counted_by_device_k3s_and_holdfast_and_the_wear_is_told() {
        let root = tempfile::tempdir().unwrap();
        let flash = machine(root.path());
        let facts = flash.facts();
        assert_eq!(facts.device.as_deref(), Some("mmcblk0"));
        assert_eq!(facts.written.unwrap().bytes, 2000 * 512);
        assert_eq!(facts.by_kubernetes.unwrap().bytes, 1400);
        assert_eq!(facts.by_holdfast.unwrap().bytes, 60);
        assert_eq!(facts.life_used_percent, Some(40));
        assert!(!facts.life_warning);
        // Made in 2020: with 40 % used, half as long again as until now is left.
        assert!(facts.days_left.unwrap() > 3000);
        // What a child wrote is not forgotten with it.
        fs::remove_dir_all(root.path().join("proc/51")).unwrap();
        assert_eq!(flash.facts().by_kubernetes.unwrap().bytes, 1400);
        // Nor what k3s wrote, when it is started again.
        put(&root.path().join("pid"), r#"{"pid": 60}"#);
        put(
            &root.path().join("proc/60/io"),
            "write_bytes: 10\ncancelled_write_bytes: 0\n",
        );
        assert_eq!(flash.facts().by_kubernetes.unwrap().bytes, 1410);
    }

    #[test]
    fn a_control_group_of_its_own_counts_for_k3s() {
        let root = tempfile::tempdir().unwrap();
        let flash = machine(root.path());
        put(
            &root.path().join("proc/self/cgroup"),
            "0::/system.slice/holdfast.service\n",
        );
        put(
            &root.path().join("proc/50/cgroup"),
            "0::/system.slice/k3s.service\n",
        );
        put(
            &root.path().join("sys/fs/cgroup/system.slice/k3s.service/io.stat"),
            "179:0 rbytes=1 wbytes=7000 rios=1 wios=2 dbytes=0 dios=0\n253:0 rbytes=1 wbytes=30 rios=1 wios=2\n",
        );
        assert_eq!(flash.facts().by_kubernetes.unwrap().bytes, 7030);
    }

    #[test]
    fn a_rate_needs_time() {
        assert_eq!(per_day(1000, Duration::from_secs(60)), None);
        assert_eq!(per_day(1000, Duration::from_hours(24)), Some(1000));
        assert_eq!(per_day(1000, Duration::from_hours(12)), Some(2000));
    }

    #[test]
    fn a_disk_that_says_nothing_of_its_life_has_none_told() {
        let root = tempfile::tempdir().unwrap();
        let life = Life::read(root.path());
        assert_eq!(life, Life::default());
        assert_eq!(life.days_left(jiff::Timestamp::now()), None);
        put(&root.path().join("device/life_time"), "0x00 0x0b\n");
        put(&root.path().join("device/pre_eol_info"), "0x03\n");
        let life = Life::read(root.path());
        assert_eq!((life.used_percent, life.warning), (Some(100), true));
    }
}
