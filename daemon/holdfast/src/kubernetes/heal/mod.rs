//! Repairs what a power cut or a dying disk leaves of Kubernetes, without a person and without a network.
//!
//! In: the words of k3s and containerd since the last start, while k3s stands still. Out: damaged files set aside, so that they are made
//! anew from snapshots, from the local images and by the cache of the desired state. It guarantees that damage is proven before anything is
//! touched, that nothing is deleted, and that each part is set aside no more than a few times a day: after that somebody is told, and k3s
//! is started as it is.
//!
//! | damage | proven by | set aside | comes back from |
//! |---|---|---|---|
//! | datastore | SQLite's own check of all pages | the log alone where that suffices, else database and log | snapshot, else the cache |
//! | datastore behind the files | k3s's words | k3s's own record of its certificates in it | the certificates on the disk |
//! | containerd metadata | containerd's words | `meta.db` | local image archives |
//! | containerd snapshots | containerd's words | the snapshotter's directory and `meta.db` | local image archives |
//! | network results | files that are no JSON | those files | the next start of the pod |
//! | network addresses | plugin's words, and no result of their owner | those reservations | the next start of the pod |

pub mod logs;
pub mod network;
pub mod quarantine;
pub mod signs;

use super::datastore::{DatastoreError, Place, database, place::with_suffix};
use jiff::Timestamp;
use logs::Log;
use quarantine::{Aside, set_aside};
use signs::{Damage, Sign, signs};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Files of the pod network that are kept after they were set aside.
const KEPT_NETWORK_FILES: usize = 64;

/// What became of a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Set aside; the paths are where it is now, and the words say where it comes back from.
    Healed {
        /// Where the damaged files are.
        aside: Vec<PathBuf>,
        /// Where it comes back from.
        rebuilt_from: &'static str,
    },
    /// It is sound after all, or nothing is there.
    Sound,
    /// Set aside this often within a day: left as it is.
    TooOften(usize),
    /// It cannot be set aside.
    Failed(String),
}

/// What the healer needs to know.
#[derive(Clone, Debug)]
pub struct Paths {
    /// k3s's data directory.
    pub data_dir: PathBuf,
    /// State of the network plugins.
    pub network: PathBuf,
    /// k3s's own log, where it has a file.
    pub log: Option<PathBuf>,
}

/// Finds and repairs damage.
#[derive(Debug)]
pub struct Healer {
    paths: Paths,
    place: Place,
    limit: usize,
    logs: Vec<Log>,
    /// Signs that were seen while k3s ran, for the next start.
    pending: Vec<Sign>,
    /// Times that k3s's record in the datastore was removed: it leaves no file behind that could be counted.
    forgotten: Vec<Timestamp>,
}

impl Healer {
    /// A healer that sets each part aside at most `limit` times a day.
    pub fn new(paths: Paths, place: Place, limit: usize) -> Self {
        let containerd = paths.data_dir.join("agent/containerd/containerd.log");
        let logs = paths
            .log
            .iter()
            .cloned()
            .chain([containerd])
            .map(Log::from_now)
            .collect();
        Self {
            paths,
            place,
            limit,
            logs,
            pending: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    /// Looks at what was written since the last look, and says whether k3s must be started anew to repair what it tells of.
    pub fn look(&mut self) -> bool {
        for sign in self.logs.iter_mut().flat_map(|log| signs(&log.read())) {
            if self.pending.iter().all(|known| known.damage != sign.damage) {
                self.pending.push(sign);
            }
        }
        // The others end k3s by themselves, or can be repaired beside it.
        self.pending.iter().any(|sign| {
            matches!(
                sign.damage,
                Damage::ContainerdMetadata | Damage::ContainerdSnapshots | Damage::NetworkAddresses
            )
        })
    }

    /// Takes words that are in no file.
    pub fn hear(&mut self, words: &str) {
        for sign in signs(words) {
            if self.pending.iter().all(|known| known.damage != sign.damage) {
                self.pending.push(sign);
            }
        }
    }

    /// Takes all signs so far.
    pub fn take(&mut self) -> Vec<Sign> {
        self.look();
        std::mem::take(&mut self.pending)
    }

    /// What is in the logs by now is dealt with.
    pub fn begun(&mut self) {
        self.logs.iter_mut().for_each(Log::skip);
        self.pending.clear();
    }

    /// Repairs one damage. k3s must not run.
    pub fn heal(&mut self, damage: Damage, now: Timestamp) -> Outcome {
        match damage {
            Damage::Datastore => self.datastore(now),
            Damage::DatastoreBehindFiles => self.forget_bootstrap(now),
            Damage::ContainerdMetadata => {
                let metadata = self.containerd().join("io.containerd.metadata.v1.bolt/meta.db");
                self.containerd_part(vec![metadata], now)
            }
            Damage::ContainerdSnapshots => {
                let mut parts = self.snapshotters();
                // Its records name snapshots that are no more.
                parts.push(self.containerd().join("io.containerd.metadata.v1.bolt/meta.db"));
                self.containerd_part(parts, now)
            }
            Damage::NetworkResults => {
                let files = network::damaged_results(&self.paths.network);
                self.network_files(&files, now)
            }
            Damage::NetworkAddresses => {
                let files = network::orphaned_addresses(&self.paths.network);
                self.network_files(&files, now)
            }
        }
    }

    fn datastore(&self, now: Timestamp) -> Outcome {
        let database = self.place.real_database();
        match database::check(&database) {
            Ok(()) => return Outcome::Sound,
            Err(DatastoreError::Damaged { reason, .. }) => {
                tracing::error!(path = %database.display(), reason, "the datastore is damaged");
            }
            Err(_) if !database.exists() => return Outcome::Sound,
            Err(error) => return Outcome::Failed(error.to_string()),
        }
        let beside = ["-wal", "-shm"].map(|suffix| with_suffix(&database, suffix));
        let mut aside = Vec::new();
        // What was written back to the database before may be whole; then only the newest writes are lost.
        match set_aside(&beside, self.limit, now) {
            Ok(Aside::Moved(path)) => aside.push(path),
            Ok(Aside::Nothing | Aside::TooOften(_)) => {}
            Err(error) => return Outcome::Failed(error.to_string()),
        }
        if database::check(&database).is_ok() {
            return Outcome::Healed {
                aside,
                rebuilt_from: "the database without its log",
            };
        }
        let all = [std::slice::from_ref(&database), &beside].concat();
        match set_aside(&all, self.limit, now) {
            Ok(Aside::Moved(path)) => {
                aside.push(path);
                Outcome::Healed {
                    aside,
                    rebuilt_from: "its newest snapshot, else the cache of the desired state",
                }
            }
            other => outcome(other, ""),
        }
    }

    fn forget_bootstrap(&mut self, now: Timestamp) -> Outcome {
        self.forgotten
            .retain(|at| now.duration_since(*at) < jiff::SignedDuration::from_hours(24));
        if self.forgotten.len() >= self.limit {
            return Outcome::TooOften(self.forgotten.len());
        }
        match database::forget_bootstrap(&self.place.real_database()) {
            Ok(0) => Outcome::Sound,
            Ok(_) => {
                self.forgotten.push(now);
                Outcome::Healed {
                    aside: Vec::new(),
                    rebuilt_from: "the certificates on the disk",
                }
            }
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    fn containerd(&self) -> PathBuf {
        self.paths.data_dir.join("agent/containerd")
    }

    /// Directories of snapshotters that hold something.
    fn snapshotters(&self) -> Vec<PathBuf> {
        let mut found: Vec<_> = fs::read_dir(self.containerd())
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name().is_some_and(|name| {
                    let name = name.to_string_lossy();
                    name.starts_with("io.containerd.snapshotter.v1.") && !name.contains(".damaged-")
                })
            })
            .filter(|path| path.join("metadata.db").exists())
            .collect();
        found.sort();
        found
    }

    fn containerd_part(&self, mut parts: Vec<PathBuf>, now: Timestamp) -> Outcome {
        // k3s's note of which archives it has imported: they must be imported again.
        parts.push(self.paths.data_dir.join("agent/images/.cache.json"));
        outcome(
            set_aside(&parts, self.limit, now),
            "the image archives on the box",
        )
    }

    fn network_files(&self, files: &[PathBuf], now: Timestamp) -> Outcome {
        if files.is_empty() {
            return Outcome::Sound;
        }
        let aside = self.paths.network.join("damaged");
        match move_into(&aside, files, now) {
            Ok(()) => Outcome::Healed {
                aside: vec![aside],
                rebuilt_from: "the next start of the pods",
            },
            Err(error) => Outcome::Failed(format!("{}: {error}", aside.display())),
        }
    }
}

fn outcome(aside: io::Result<Aside>, rebuilt_from: &'static str) -> Outcome {
    match aside {
        Ok(Aside::Moved(path)) => Outcome::Healed {
            aside: vec![path],
            rebuilt_from,
        },
        Ok(Aside::Nothing) => Outcome::Sound,
        Ok(Aside::TooOften(count)) => Outcome::TooOften(count),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// The plugins take every file beside their own for one of theirs, so these go to a directory of their own.
fn move_into(directory: &Path, files: &[PathBuf], now: Timestamp) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let stamp = now.strftime("%Y%m%dT%H%M%S").to_string();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        fs::rename(file, directory.join(format!("{stamp}-{name}")))?;
    }
    let mut kept: Vec<_> = fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    kept.sort();
    for old in kept.iter().rev().skip(KEPT_NETWORK_FILES) {
        fs::remove_file(old)?;
    }
    Ok(())
}
