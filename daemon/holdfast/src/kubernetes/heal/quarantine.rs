//! Sets damaged files aside, next to where they were, with the time in their names.
//!
//! In: files and directories that belong together. Out: where they are now. It guarantees that nothing is deleted that is younger than a day,
//! and that there are never more than a few: whoever asks too often within a day is refused, so that a loop of damage cannot destroy more
//! than that. The names are the only record, and survive everything that the files survive.

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Stands between a file's own name and the time.
const MARK: &str = ".damaged-";
/// Form of the time: sorts by itself, and any file system takes it.
const STAMP: &str = "%Y%m%dT%H%M%S";

/// Where what was set aside is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aside {
    /// Set aside to here.
    Moved(PathBuf),
    /// There was nothing.
    Nothing,
    /// Not touched: it was set aside this often within the last day.
    TooOften(usize),
}

/// Sets `paths` aside, the first of which names them all, where that happened less than `limit` times within the last day.
///
/// # Errors
/// What the operating system says; what was moved by then stays so, and the next call takes the rest.
pub fn set_aside(paths: &[PathBuf], limit: usize, now: Timestamp) -> io::Result<Aside> {
    let Some(first) = paths.first() else {
        return Ok(Aside::Nothing);
    };
    if paths.iter().all(|path| fs::symlink_metadata(path).is_err()) {
        return Ok(Aside::Nothing);
    }
    let recent = recent(first, now);
    if recent >= limit {
        return Ok(Aside::TooOften(recent));
    }
    let stamp = now.strftime(STAMP).to_string();
    for path in paths {
        let mut target = path.clone().into_os_string();
        target.push(MARK);
        target.push(&stamp);
        match fs::rename(path, &target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        forget_old(path, limit, now)?;
        if let Some(directory) = path.parent() {
            fs::File::open(directory)?.sync_all()?;
        }
    }
    let mut target = first.clone().into_os_string();
    target.push(MARK);
    target.push(&stamp);
    Ok(Aside::Moved(target.into()))
}

/// How often `path` was set aside within the last day. A time in the future counts: the clock was wrong then or is now.
fn recent(path: &Path, now: Timestamp) -> usize {
    let day = SignedDuration::from_hours(24);
    all(path)
        .iter()
        .filter(|(stamp, _)| now.duration_since(*stamp) < day)
        .count()
}

/// Everything of `path` that was set aside, the oldest first.
pub fn all(path: &Path) -> Vec<(Timestamp, PathBuf)> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let prefix = format!("{}{MARK}", name.to_string_lossy());
    let mut found: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let stamp = name.to_str()?.strip_prefix(&prefix)?;
            let stamp = DateTime::strptime(STAMP, stamp).ok()?;
            Some((stamp.to_zoned(TimeZone::UTC).ok()?.timestamp(), entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// Deletes what is older than a day, as far as more than `kept` are there.
fn forget_old(path: &Path, kept: usize, now: Timestamp) -> io::Result<()> {
    let all = all(path);
    let day = SignedDuration::from_hours(24);
    let surplus = all.len().saturating_sub(kept);
    for (stamp, old) in all.into_iter().take(surplus) {
        if now.duration_since(stamp) >= day {
            delete(&old)?;
        }
    }
    Ok(())
}

/// Deletes a file, or a directory with all that is in it.
pub fn delete(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}
