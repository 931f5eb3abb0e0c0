//! Room on the disk: some is kept for bad days, and when the disk fills up, what can be done without goes first.
//!
//! In: the free space of the state directory's file system, and the news that a write found none. Out: room, and a condition for as long as
//! there is little. It guarantees that Holdfast can finish what it writes and report that the disk is full, and that nothing goes which the
//! present document or one that can be gone back to needs.
//!
//! The order: downloads that are not finished, blobs that no kept document names, what was set aside as damaged (the oldest first), and all
//! snapshots of a datastore in memory but the newest.

use crate::{codes, kubernetes::datastore::Snapshots, report::Recorder, telemetry::metrics::METRICS};
use holdfast_protocol::{Digest, Problem, codes as protocol_codes, envelope::Envelope};
use holdfast_store::{Blobs, Store};
use nix::{
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs::statvfs,
};
use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::sleep;

/// How often the free space is looked at while there is enough: one question to the file system.
const LOOK: Duration = Duration::from_mins(10);
/// How often while there is little.
const CLOSE_LOOK: Duration = Duration::from_secs(20);
/// Finder of conditions.
const SPACE: &str = "disk-space";

/// Keeps room.
pub struct Space {
    /// Directory of everything that Holdfast writes.
    pub state_directory: PathBuf,
    /// k3s's data, where damaged parts are set aside.
    pub data_directory: PathBuf,
    /// Bytes that are kept for bad days. 0 keeps none.
    pub reserve: u64,
    /// Whose kept documents say what is needed.
    pub store: Arc<Store>,
    /// Blobs by content.
    pub blobs: Blobs,
    /// Snapshots of a datastore in memory.
    pub snapshots: Snapshots,
    /// Where it is told.
    pub recorder: Recorder,
}

impl Space {
    /// Keeps room for as long as the daemon runs.
    pub async fn run(self: Arc<Self>) {
        let mut conditions = self.recorder.conditions.subscribe();
        loop {
            let space = self.clone();
            let is_low = tokio::task::spawn_blocking(move || space.check())
                .await
                .unwrap_or(false);
            let news = async {
                let says_full =
                    |present: &std::collections::BTreeMap<_, holdfast_protocol::report::Condition>| {
                        present.iter().any(|(finder, condition)| {
                            *finder != SPACE && condition.problem.code == protocol_codes::DISK_FULL
                        })
                    };
                if is_low || conditions.wait_for(says_full).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = news => {}
                () = sleep(if is_low { CLOSE_LOOK } else { LOOK }) => {}
            }
        }
    }

    /// Makes room where there is little, and keeps some where there is enough. Answers whether there is little.
    pub fn check(&self) -> bool {
        let Some(free) = free(&self.state_directory) else {
            return false;
        };
        METRICS.disk_free.set(i64::try_from(free).unwrap_or(i64::MAX));
        let kept = fs::metadata(self.file()).map_or(0, |metadata| metadata.len());
        // With the reserve in place, less than half as much beside it; without, less than what would leave as much beside it.
        let is_low = if kept >= self.reserve {
            free < self.reserve / 2
        } else {
            free < self.reserve.saturating_mul(2)
        };
        if !is_low {
            if kept < self.reserve
                && let Err(error) = self.keep()
            {
                tracing::warn!(%error, "no room can be kept for bad days");
            }
            self.recorder.conditions.clear(SPACE);
            return false;
        }
        if let Err(error) = holdfast_store::fs::remove(&self.file()) {
            tracing::error!(%error, "the room that was kept cannot be given up");
        }
        let removed = self.relieve();
        if !removed.is_empty() {
            tracing::warn!(removed = removed.join(", "), "the disk is nearly full");
        }
        let now = free_mebibytes(&self.state_directory);
        // What was removed is in the log: a condition that changes with each look would be told anew each time.
        let problem = Problem::new(
            codes::DISK_LOW,
            format!(
                "the disk of {} is nearly full; what could be done without was removed",
                self.state_directory.display()
            ),
            "free space on that file system: kubectl get pods -A shows what runs, du -x -h what is large; what runs keeps running",
        );
        tracing::debug!(free = now, "MiB are free now");
        self.recorder
            .conditions
            .set(SPACE, problem, self.recorder.floor.now());
        true
    }

    fn file(&self) -> PathBuf {
        self.state_directory.join("reserve")
    }

    /// Blocks are given to the file without being written.
    fn keep(&self) -> io::Result<()> {
        if self.reserve == 0 {
            return Ok(());
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.file())?;
        let length = i64::try_from(self.reserve).unwrap_or(i64::MAX);
        // The C library would write where the file system cannot do it: then rather none is kept.
        let kept = fallocate(&file, FallocateFlags::empty(), 0, length);
        if kept.is_err() {
            let _ = fs::remove_file(self.file());
        }
        Ok(kept?)
    }

    /// Removes in order, until there is room. Answers what was removed.
    fn relieve(&self) -> Vec<String> {
        let enough =
            || free(&self.state_directory).is_some_and(|free| free >= self.reserve.saturating_mul(3));
        let mut removed = Vec::new();
        let mut take = |path: &Path| {
            let gone = crate::kubernetes::heal::quarantine::delete(path);
            match gone {
                Ok(()) => removed.push(path.display().to_string()),
                Err(error) => tracing::warn!(%error, path = %path.display(), "cannot be removed"),
            }
        };
        for path in entries(&self.state_directory.join("store/blobs/partial")) {
            if enough() {
                return removed;
            }
            take(&path);
        }
        if enough() {
            return removed;
        }
        match self.needed().map(|needed| self.blobs.collect_garbage(&needed)) {
            Some(Err(error)) => tracing::warn!(%error, "blobs that nothing needs cannot be removed"),
            Some(Ok(collected)) if collected.blobs > 0 => {
                tracing::info!(blobs = collected.blobs, "removed blobs that nothing needs");
            }
            _ => {}
        }
        let old = self
            .snapshots
            .list()
            .into_iter()
            .skip(1)
            .map(|snapshot| snapshot.path);
        for path in self.set_aside().into_iter().chain(old) {
            if enough() {
                break;
            }
            take(&path);
        }
        removed
    }

    /// Digests that kept documents name, in whatever place; none where that is not known.
    fn needed(&self) -> Option<BTreeSet<Digest>> {
        let mut needed = BTreeSet::new();
        for digest in self.store.kept().ok()? {
            let document = self.store.document(digest).ok()??;
            let envelope: Envelope = serde_json::from_slice(&document.envelope).ok()?;
            let payload = String::from_utf8_lossy(&envelope.payload);
            for (start, _) in payload.match_indices("sha256:") {
                let found: Option<Digest> = payload.get(start..start + 71).and_then(|text| text.parse().ok());
                needed.extend(found);
            }
        }
        Some(needed)
    }

    /// What was set aside as damaged on this file system, the oldest first.
    fn set_aside(&self) -> Vec<PathBuf> {
        let device = |path: &Path| fs::symlink_metadata(path).ok().map(|metadata| metadata.dev());
        let own = device(&self.state_directory);
        let containerd = self.data_directory.join("agent/containerd");
        let mut found: Vec<(String, PathBuf)> = [
            self.state_directory.join("store"),
            self.data_directory.join("server/db"),
            containerd.join("io.containerd.metadata.v1.bolt"),
            containerd,
        ]
        .iter()
        .flat_map(|directory| entries(directory))
        .filter(|path| device(path) == own)
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            let stamp = name.split_once(".damaged-")?.1.to_owned();
            Some((stamp, path))
        })
        .collect();
        found.sort();
        found.into_iter().map(|(_, path)| path).collect()
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    found.sort();
    found
}

/// Bytes that are free for those who are not root.
#[allow(
    clippy::useless_conversion,
    reason = "the types of these fields differ between platforms"
)]
fn free(path: &Path) -> Option<u64> {
    let found = statvfs(path).ok()?;
    Some(u64::from(found.blocks_available()).saturating_mul(u64::from(found.fragment_size())))
}

fn free_mebibytes(path: &Path) -> u64 {
    free(path).unwrap_or_default() >> 20
}
