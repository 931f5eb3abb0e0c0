//! The factory reset: the box forgets what it was told, and is enrolled anew.
//!
//! ```text
//! holdfast factory-reset ──▶ factory-reset.json ──▶ restart ──▶ holdfast-factory-reset.service ──▶ keys, Kubernetes, store, settings ──▶ TRIM
//!                            (the order)                       (before everything else)           (each may be done twice)          the order goes
//! ```
//!
//! In: an order, left in the state directory. Out: a box as it left the factory, with its operating system slots as they are; with
//! `keep_identity`, one that is who it was and gets its state again. Guarantees: nothing happens before the machine was restarted, so
//! nothing that runs loses its files; a cut at any point is gone on from at the next start, because the order goes last; with the identity
//! kept, the highest generation survives, so no older document can be played to the box; an order can be taken back until the restart.

mod erase;

use crate::{
    boots::{BootId, BootLog, Note},
    codes, failpoint,
    settings::Settings,
};
use holdfast_protocol::Problem;
use holdfast_store::{StateLock, StoreError, fs as store_fs};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

/// Name of the order in the state directory.
pub const FILE: &str = "factory-reset.json";
/// Name of the file that keeps room for it.
const ROOM: &str = ".room-for-factory-reset";
/// More than any order has, in bytes.
const ROOM_BYTES: usize = 1024;
/// The most bytes of an order that are read.
const MAX_BYTES: u64 = 64 * 1024;
/// Where the kubelet of k3s keeps volumes of pods.
const KUBELET: &str = "/var/lib/kubelet";
/// Where k3s is, and with it the password of its node.
const RANCHER: &str = "/var/lib/rancher";

/// An order to set the box back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Whether the box stays who it is.
    pub keep_identity: bool,
    /// When it was ordered, by the machine's clock.
    pub ordered_at: Timestamp,
    /// In which boot; it is carried out in a later one.
    pub boot: BootId,
}

/// What became of an order.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is none.
    None,
    /// There is one, and the machine was not restarted since.
    NotYet,
    /// It was carried out; the lines say what was done.
    Done(Vec<String>),
}

/// Has room for an order, so that it can be left on a full disk too. Writes once in the life of a box.
pub fn reserve(state_dir: &Path) -> Result<(), StoreError> {
    let path = state_dir.join(ROOM);
    if path.exists() {
        return Ok(());
    }
    store_fs::write_atomic(&path, &[b' '; ROOM_BYTES], store_fs::PRIVATE_FILE)
}

/// Leaves an order. It is on the disk when this returns.
pub fn order(state_dir: &Path, order: &Order) -> Result<(), StoreError> {
    // A struct of a flag and two texts always serialises.
    let json = serde_json::to_vec(order).unwrap_or_default();
    match store_fs::write_atomic(&state_dir.join(FILE), &json, store_fs::PRIVATE_FILE) {
        Err(full @ StoreError::DiskFull { .. }) => in_reserve(state_dir, &json).map_err(|_| full),
        written => written,
    }
}

/// Writes into the blocks that are there, and gives them the order's name: neither needs room.
fn in_reserve(state_dir: &Path, json: &[u8]) -> io::Result<()> {
    let path = state_dir.join(ROOM);
    let mut content = [b' '; ROOM_BYTES];
    content
        .get_mut(..json.len())
        .ok_or(io::ErrorKind::StorageFull)?
        .copy_from_slice(json);
    let mut file = store_fs::open_regular(fs::OpenOptions::new().write(true), &path)?;
    file.write_all(&content)?;
    file.sync_all()?;
    fs::rename(&path, state_dir.join(FILE))?;
    fs::File::open(state_dir)?.sync_all()
}

/// The order that was left.
pub fn ordered(state_dir: &Path) -> Result<Option<Order>, Problem> {
    let path = state_dir.join(FILE);
    let damaged = |reason: &dyn fmt::Display| {
        Problem::new(
            codes::RESET_ORDER_DAMAGED,
            format!("{} is no order of a factory reset: {reason}", path.display()),
            "nothing was erased; take the order back (holdfast factory-reset --cancel), and order it again where it is wanted",
        )
    };
    let mut bytes = Vec::new();
    let read = store_fs::open_regular(fs::OpenOptions::new().read(true), &path)
        .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| damaged(&error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // What the system says of a disk is told as that; what is no file is no order.
        Err(error) if error.raw_os_error().is_none() => Err(damaged(&error)),
        Err(error) => Err(StoreError::from_io(&path, &error).problem()),
    }
}

/// Refuses a machine where there is nothing to reset.
pub fn require_state(state_dir: &Path) -> Result<(), Problem> {
    match fs::metadata(state_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Problem::new(
            codes::STATE_MISSING,
            format!(
                "there is no state directory {}: this machine is no box, or its disk is not mounted",
                state_dir.display()
            ),
            "on a box, mount the disk, or name the box's settings with --config; elsewhere there is nothing to erase",
        )),
        _ => Ok(()),
    }
}

/// What whoever is at the box should know of an order that was left.
pub fn pending(state_dir: &Path, boots: &BootLog) -> Option<Problem> {
    let order = match not_begun(state_dir, boots) {
        Ok(order) => order?,
        Err(problem) => return Some(problem),
    };
    Some(Problem::new(
        codes::RESET_ORDERED,
        format!(
            "a factory reset was ordered at {}; the next start of the machine erases this box",
            order.ordered_at.strftime("%Y-%m-%d %H:%M:%S UTC")
        ),
        "restart the machine, or take the order back: holdfast factory-reset --cancel, or f on the box's screen",
    ))
}

/// The order that was left, where nothing can be erased yet.
///
/// # Errors
/// It cannot be read; or the machine was restarted since, so that some of the box may be erased already.
pub fn not_begun(state_dir: &Path, boots: &BootLog) -> Result<Option<Order>, Problem> {
    match ordered(state_dir)? {
        Some(order) if order.boot != *boots.boot() => Err(Problem::new(
            codes::RESET_BEGUN,
            "the machine was restarted since the factory reset was ordered: some of this box may be erased already",
            "restart the machine: it goes on with the reset",
        )),
        order => Ok(order),
    }
}

/// Takes the order back. Gives whether there was one.
///
/// # Errors
/// The machine was restarted since: some of the box may be erased already.
pub fn cancel(state_dir: &Path, boots: &BootLog) -> Result<bool, Problem> {
    match not_begun(state_dir, boots) {
        Ok(None) => return Ok(false),
        // Nothing is erased by an order that cannot be read.
        Err(problem) if problem.code != codes::RESET_ORDER_DAMAGED => return Err(problem),
        _ => {}
    }
    let path = state_dir.join(FILE);
    if fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_dir()) {
        fs::remove_dir_all(&path).map_err(|error| StoreError::from_io(&path, &error).problem())?;
    }
    store_fs::remove(&path).map_err(|error| error.problem())?;
    Ok(true)
}

/// Carries out the order, where there is one and the machine was restarted since. The lock says that no daemon uses the files.
///
/// # Errors
/// Something could not be erased: all else is, the order stays, and the next start tries again.
pub fn carry_out(
    settings: &Settings,
    personal: &Path,
    boots: &BootLog,
    _lock: &StateLock,
) -> Result<Outcome, Problem> {
    let state_dir = resolved(&settings.state_dir);
    let state_dir = state_dir.as_path();
    let Some(order) = ordered(state_dir)? else {
        return Ok(Outcome::None);
    };
    if order.boot == *boots.boot() {
        return Ok(Outcome::NotYet);
    }
    failpoint::reach("reset-marked");
    let mut done = Vec::new();
    let mut left = Vec::new();
    // What cannot be erased is no reason to keep what can be.
    let mut first = Ok(());
    let mut step = |erased: Result<(), Problem>, what: &str| {
        if erased.is_ok() {
            done.push(what.to_owned());
        }
        if first.is_ok() {
            first = erased;
        }
    };
    let mut keep: &[&str] = &[FILE, "lock"];
    if !order.keep_identity {
        let erased = erase_keys(&settings.identity_dir());
        if erased.is_err() {
            // A key is removed only once it was overwritten: the next start tries that again.
            keep = &[FILE, "lock", "identity"];
        }
        step(erased, "the keys of the box were overwritten and removed");
    }
    failpoint::reach("reset-keys");
    step(
        erase_kubernetes(settings, &mut left),
        "Kubernetes, its datastore, images and volumes were removed",
    );
    failpoint::reach("reset-kubernetes");
    step(
        if order.keep_identity {
            erase_but_identity(settings, state_dir, &mut left)
        } else {
            erase::content(state_dir, keep, &mut left).map_err(failed(state_dir))
        },
        "the store was removed",
    );
    failpoint::reach("reset-store");
    if !order.keep_identity {
        step(
            erase::key(personal).map_err(failed(personal)),
            "the personal settings were overwritten and removed",
        );
    }
    failpoint::reach("reset-personal");
    first?;
    for place in left {
        done.push(format!(
            "{} was kept: it is another file system; erase it by hand where it must go too",
            place.display()
        ));
    }
    match erase::trim(state_dir) {
        Ok(said) => done.push(format!("the device was told to erase free blocks: {said}")),
        Err(reason) => done.push(format!(
            "the device cannot be told to erase free blocks: {reason}"
        )),
    }
    failpoint::reach("reset-trimmed");
    boots.note_or_log(Note::FactoryReset {
        kept_identity: order.keep_identity,
    });
    failpoint::reach("reset-done");
    store_fs::remove(&state_dir.join(FILE)).map_err(|error| error.problem())?;
    Ok(Outcome::Done(done))
}

/// Goes on after a failure; gives the first.
fn erase_kubernetes(settings: &Settings, left: &mut Vec<PathBuf>) -> Result<(), Problem> {
    let mut first = Ok(());
    for directory in kubernetes_directories(settings) {
        let directory = resolved(&directory);
        first = first.and(erase::content(&directory, &[], left).map_err(failed(&directory)));
    }
    first
}

fn erase_but_identity(settings: &Settings, state_dir: &Path, left: &mut Vec<PathBuf>) -> Result<(), Problem> {
    let rest = erase::content(state_dir, &[FILE, "lock", "identity", "boots", "store"], left);
    // The floor knows the highest generation, and sequences that must not be given out twice.
    let store = resolved(&settings.store_dir());
    let stored = erase::content(&store, &["floor.json"], left);
    rest.map_err(failed(state_dir))
        .and(stored.map_err(failed(&store)))
}

fn erase_keys(identity: &Path) -> Result<(), Problem> {
    // Behind a link are files that nobody said were keys of this box; the link goes with all else.
    if fs::symlink_metadata(identity).is_ok_and(|facts| facts.is_symlink()) {
        return Ok(());
    }
    let entries = match fs::read_dir(identity) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(identity)(error)),
    };
    let mut first = Ok(());
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            first = first.and(erase::key(&entry.path()).map_err(failed(&entry.path())));
        }
    }
    first
}

fn kubernetes_directories(settings: &Settings) -> Vec<PathBuf> {
    let kubernetes = &settings.kubernetes;
    let mut directories = vec![kubernetes.data_dir.clone(), kubernetes.cni_state_dir.clone()];
    if kubernetes.data_dir.starts_with(RANCHER) {
        directories.extend([KUBELET.into(), RANCHER.into()]);
    }
    directories
}

/// Where a directory of the settings is. One that was moved to another disk, with a link in its place, is erased where it went.
fn resolved(directory: &Path) -> PathBuf {
    fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned())
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Problem {
    let path = path.to_owned();
    move |error| {
        Problem::new(
            codes::RESET_FAILED,
            format!("{} cannot be erased: {error}", path.display()),
            "all else was erased; restart the box to try again; if it fails again, clear what the error names, and destroy the disk where that is what fails",
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by it")]

    use super::*;
    use std::os::unix::fs::symlink;

    fn put(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        store_fs::write_atomic(path, b"secret", store_fs::PRIVATE_FILE).unwrap();
    }

    /// A box whose state and Kubernetes were moved to another place, with links where they were.
    #[test]
    fn directories_behind_links_are_erased_and_links_within_them_lead_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for file in [
            "moved/state/identity/device.key",
            "moved/state/store/node.db",
            "moved/k3s/server/db/state.db",
            "elsewhere/of-another",
        ] {
            put(&at(file));
        }
        fs::create_dir_all(at("esp")).unwrap();
        for (target, link) in [
            ("moved/state", "state"),
            ("moved/k3s", "k3s"),
            ("elsewhere/of-another", "moved/state/identity/linked.key"),
            ("elsewhere", "moved/state/store/linked"),
            ("elsewhere", "moved/k3s/linked"),
        ] {
            symlink(at(target), at(link)).unwrap();
        }
        for pipe in ["moved/state/identity/pipe.key", "esp/personal.toml"] {
            nix::unistd::mkfifo(&at(pipe), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        let mut settings = Settings {
            state_dir: at("state"),
            ..Settings::default()
        };
        settings.kubernetes.data_dir = at("k3s");
        settings.kubernetes.cni_state_dir = at("cni");
        let earlier = Order {
            keep_identity: false,
            ordered_at: Timestamp::now(),
            boot: BootId("the boot before".into()),
        };
        order(&settings.state_dir, &earlier).unwrap();
        let lock = StateLock::acquire(&settings.state_dir).unwrap();
        let boots = BootLog::new(&settings.state_dir);

        let outcome = carry_out(&settings, &at("esp/personal.toml"), &boots, &lock).unwrap();

        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        for gone in ["moved/state/identity", "moved/state/store", "moved/k3s/server"] {
            assert!(!at(gone).exists(), "{gone} is still there");
        }
        assert!(fs::symlink_metadata(at("esp/personal.toml")).is_err());
        assert_eq!(fs::read(at("elsewhere/of-another")).unwrap(), b"secret");
        assert_eq!(ordered(&settings.state_dir).unwrap(), None);
    }
}
