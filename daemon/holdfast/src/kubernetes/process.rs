//! A process that outlives this one: found again by its process id and start time, awaited through a process descriptor.
//!
//! In: a program and its arguments, or the file that a former Holdfast left. Out: a handle that can be awaited and ended. It
//! guarantees that a process id which the kernel gave to somebody else since is never taken for ours.

use super::KubernetesError;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tokio::io::unix::AsyncFd;

/// What identifies a process for good: an id alone is given again after its process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessRecord {
    /// Process id.
    pub pid: i32,
    /// Start in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
    /// Which boot, from `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Digest of the configuration that it was started with.
    pub config: holdfast_protocol::Digest,
}

/// A running process that may have been started by a former Holdfast.
#[derive(Debug)]
pub struct Process {
    record: ProcessRecord,
    descriptor: AsyncFd<OwnedFd>,
    /// Present where it is a child of this process, which then has to collect its exit status.
    child: Option<std::process::Child>,
}

/// What to start, and with what.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Path, or name in PATH.
    pub binary: PathBuf,
    /// All arguments.
    pub arguments: Vec<String>,
    /// Takes standard output and error; those of this process where absent.
    pub log: Option<PathBuf>,
    /// Digest of the configuration.
    pub config: holdfast_protocol::Digest,
}

impl Process {
    /// Starts the program in a session of its own, so that no terminal's end and no signal to Holdfast's group ever reaches it.
    ///
    /// Standard input is closed; the output goes to a file and never to a pipe, which would end with this process.
    pub fn start(launch: &Launch) -> Result<Self, KubernetesError> {
        let mut command = Command::new(&launch.binary);
        command.args(&launch.arguments).stdin(Stdio::null());
        holdfast_memory::in_own_session(&mut command);
        // What Holdfast was told by its own service manager is not meant for k3s.
        for name in [
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "WATCHDOG_PID",
            "LISTEN_FDS",
            "LISTEN_PID",
        ] {
            command.env_remove(name);
        }
        if let Some(path) = &launch.log {
            let file = open_log(path).map_err(|error| file_error(path, &error))?;
            let second = file.try_clone().map_err(|error| file_error(path, &error))?;
            command.stdout(file).stderr(second);
        } else {
            let error = io::stderr();
            if let Ok(copy) = rustix::io::dup(&error) {
                command.stdout(copy);
            }
        }
        let missing = |error: &io::Error| KubernetesError::BinaryMissing {
            binary: launch.binary.clone(),
            reason: error.to_string(),
        };
        let child = command.spawn().map_err(|error| missing(&error))?;
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        let record = ProcessRecord {
            pid,
            // A child that has ended already still has its entry, since nobody has collected its status.
            start_ticks: start_ticks(pid).unwrap_or_default(),
            boot_id: boot_id(),
            config: launch.config,
        };
        let descriptor = open_descriptor(pid).map_err(|error| missing(&error))?;
        Ok(Self {
            record,
            descriptor,
            child: Some(child),
        })
    }

    /// Takes over the process of a record, where it still runs.
    pub fn adopt(record: ProcessRecord) -> Option<Self> {
        if record.boot_id != boot_id() {
            return None;
        }
        // The descriptor is opened first: from then on the id cannot be given to another process unseen.
        let descriptor = open_descriptor(record.pid).ok()?;
        (start_ticks(record.pid)? == record.start_ticks && !is_zombie(record.pid)).then_some(Self {
            record,
            descriptor,
            child: None,
        })
    }

    /// What to write down, to find it again.
    pub const fn record(&self) -> &ProcessRecord {
        &self.record
    }

    /// Waits for its end; the answer says how it ended, as far as that can be known. Cancel safe.
    pub async fn ended(&mut self) -> String {
        // An error here would mean that the descriptor is not pollable, which every kernel since 5.3 supports.
        if let Err(error) = self.descriptor.readable().await {
            tracing::warn!(%error, "cannot wait for the process");
        }
        match self.child.as_mut().map(std::process::Child::wait) {
            Some(Ok(status)) => status.to_string(),
            _ => "exit status unknown: it was started by a former holdfast".into(),
        }
    }

    /// Ends it: asks first, and after `patience` no longer asks.
    pub async fn stop(&mut self, patience: Duration) {
        let signal = |signal| {
            if let Err(error) = pidfd_send_signal(self.descriptor.get_ref(), signal) {
                tracing::debug!(%error, pid = self.record.pid, "no signal can be sent; it has ended");
            }
        };
        signal(Signal::TERM);
        if tokio::time::timeout(patience, self.descriptor.readable())
            .await
            .is_err()
        {
            tracing::warn!(
                pid = self.record.pid,
                "still runs after being asked to end; it is killed"
            );
            signal(Signal::KILL);
        }
        self.ended().await;
    }
}

fn open_descriptor(pid: i32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let descriptor = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for the sake of types that may change their descriptor; this one cannot"
    )]
    AsyncFd::with_interest(descriptor, tokio::io::Interest::READABLE)
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// The fields of `/proc/PID/stat` after the name, which itself may hold spaces and brackets: the first one is field 3.
fn stat_fields(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.rsplit_once(')')?.1;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn start_ticks(pid: i32) -> Option<u64> {
    stat_fields(pid)?.get(19)?.parse().ok()
}

fn is_zombie(pid: i32) -> bool {
    stat_fields(pid).is_some_and(|fields| fields.first().is_some_and(|state| state == "Z"))
}

/// A log above this size, in bytes, loses its older half the next time it is looked at.
const LOG_LIMIT: u64 = 8 * 1024 * 1024;

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    bound_log(path)?;
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// Cuts the older part off a log that has grown too large. The writer appends, so it goes on after the cut without noticing.
pub fn bound_log(path: &Path) -> io::Result<()> {
    let Ok(size) = fs::metadata(path).map(|metadata| metadata.len()) else {
        return Ok(());
    };
    if size <= LOG_LIMIT {
        return Ok(());
    }
    let kept = read_tail(path, LOG_LIMIT / 2)?;
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.set_len(0)?;
    file.write_all(&kept)
}

fn read_tail(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(bytes)))?;
    let mut tail = Vec::new();
    file.take(bytes).read_to_end(&mut tail)?;
    Ok(tail)
}

/// The line of a log that most likely says why the program ended: its last fatal one, else its last one.
pub fn last_word(path: &Path) -> String {
    let tail = read_tail(path, 16 * 1024).unwrap_or_default();
    let text = String::from_utf8_lossy(&tail);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines()
        .rev()
        .find(|line| line.to_ascii_lowercase().contains("fatal"))
        .or_else(|| lines().next_back())
        .unwrap_or("it said nothing")
        .chars()
        .take(400)
        .collect()
}

pub(super) fn file_error(path: &Path, error: &io::Error) -> KubernetesError {
    KubernetesError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Launch {
        Launch {
            binary: "sleep".into(),
            arguments: vec!["600".into()],
            log: None,
            config: holdfast_protocol::Digest::of(b"any"),
        }
    }

    #[tokio::test]
    async fn a_process_is_adopted_by_its_record_and_only_by_a_true_one() {
        let mut process = Process::start(&sleeper()).unwrap();
        let record = process.record().clone();
        let mut adopted = Process::adopt(record.clone()).unwrap();
        assert_eq!(adopted.record(), &record);

        let other_start = ProcessRecord {
            start_ticks: record.start_ticks + 1,
            ..record.clone()
        };
        assert!(Process::adopt(other_start).is_none());
        let other_boot = ProcessRecord {
            boot_id: "another".into(),
            ..record.clone()
        };
        assert!(Process::adopt(other_boot).is_none());

        process.stop(Duration::from_secs(10)).await;
        adopted.ended().await;
        assert!(Process::adopt(record).is_none());
    }

    #[tokio::test]
    async fn a_process_that_does_not_listen_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let launch = Launch {
            binary: "sh".into(),
            arguments: vec![
                "-c".into(),
                "trap '' TERM; echo ready; while :; do sleep 1; done".into(),
            ],
            log: Some(log.clone()),
            ..sleeper()
        };
        let mut process = Process::start(&launch).unwrap();
        while last_word(&log) != "ready" {
            tokio::task::yield_now().await;
        }
        process.stop(Duration::from_millis(50)).await;
        assert!(Process::adopt(process.record().clone()).is_none());
    }

    #[test]
    fn a_missing_program_is_named() {
        let launch = Launch {
            binary: "/nowhere/k3s".into(),
            ..sleeper()
        };
        let error = Process::start(&launch).unwrap_err();
        assert_eq!(error.problem().code, crate::codes::KUBERNETES_BINARY_MISSING);
    }

    #[test]
    fn the_log_stays_bounded_and_keeps_its_newest_part() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut file = File::create(&log).unwrap();
        let line = [b'x'; 1023];
        for _ in 0..=LOG_LIMIT / 1024 {
            file.write_all(&line).unwrap();
            file.write_all(b"\n").unwrap();
        }
        file.write_all(b"level=fatal msg=\"the end\"\nbye\n").unwrap();
        bound_log(&log).unwrap();
        assert_eq!(fs::metadata(&log).unwrap().len(), LOG_LIMIT / 2);
        assert_eq!(last_word(&log), "level=fatal msg=\"the end\"");
    }
}
