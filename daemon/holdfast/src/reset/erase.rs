//! Removes what a box must not keep.
//!
//! In: files and directories. Out: their absence, on the disk. Guarantees: a key's bytes are overwritten in place before the file is
//! removed; nothing on another file system is touched, and no symbolic link is followed; what is gone already is no error, so everything may be done twice.
//!
//! What flash memory can promise: a device that moves its blocks about may keep an old copy of an overwritten one until it reuses it.
//! TRIM tells it that all free blocks may be erased; most do that soon, none says when it did.

use crate::failpoint;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The most bytes that are overwritten: keys are small.
const MAX_KEY_BYTES: u64 = 1 << 20;

/// Overwrites a file with random bytes in place, writes that to the disk, and removes it.
pub(super) fn key(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(facts) if facts.is_file() => {}
        // A link may lead to a file that is no key, and a named pipe waits for a reader for ever: they only go.
        Ok(facts) if !facts.is_dir() => {
            fs::remove_file(path)?;
            return sync_parent(path);
        }
        Ok(_) => return Err(io::ErrorKind::IsADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)?;
    let length = file.metadata()?.len().min(MAX_KEY_BYTES);
    let mut noise = vec![0; usize::try_from(length).unwrap_or(0)];
    // Without randomness, zeros do.
    let _ = SystemRandom::new().fill(&mut noise);
    file.write_all(&noise)?;
    file.sync_all()?;
    failpoint::reach("reset-keys-half");
    fs::remove_file(path)?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes all that is in `directory`, but the entries of its own that `keep` names, and what is on other file systems: where those are mounted is added to
/// `left`, and the directories above them stay.
///
/// Goes on after a failure; gives the first.
pub(super) fn content(directory: &Path, keep: &[&str], left: &mut Vec<PathBuf>) -> io::Result<()> {
    let device = match fs::symlink_metadata(directory) {
        Ok(facts) if facts.is_dir() => facts.dev(),
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut first = Ok(true);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if keep.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let removed = tree(&entry.path(), device, left);
        first = first.and(removed);
    }
    first.and_then(|_| File::open(directory)?.sync_all())
}

/// Gives whether it is gone: a place where something is mounted stays.
fn tree(path: &Path, device: u64, left: &mut Vec<PathBuf>) -> io::Result<bool> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let facts = match fs::symlink_metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(named(error)),
    };
    if facts.dev() != device {
        if !left.iter().any(|known| known == path) {
            left.push(path.to_owned());
        }
        return Ok(false);
    }
    if !facts.is_dir() {
        return fs::remove_file(path).map(|()| true).map_err(named);
    }
    let mut all = Ok(true);
    for entry in fs::read_dir(path).map_err(named)? {
        let removed = tree(&entry?.path(), device, left);
        all = all.and_then(|all| removed.map(|gone| all && gone));
    }
    if !all? {
        return Ok(false);
    }
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        // A place of the same file system is mounted here.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        Err(error) => Err(named(error)),
    }
}

/// Tells the device below `path` that the free blocks of its file system may be erased. Gives what `fstrim` says.
pub(super) fn trim(path: &Path) -> Result<String, String> {
    let done = Command::new("fstrim")
        .arg("--verbose")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("fstrim cannot be run: {error}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() {
        Ok(said(&done.stdout))
    } else {
        Err(said(&done.stderr))
    }
}
