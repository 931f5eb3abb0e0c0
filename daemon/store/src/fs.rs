//! The one way in which Holdfast writes files and makes directories.
//!
//! In: a path and its content. Out: the file, whole. Guarantees: after [`write_atomic`] returned, the content is on the disk;
//! if power fails before, the former file is there unharmed; a file with a secret is never readable by others, at no moment.

use crate::StoreError;
use nix::fcntl::OFlag;
use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Mode of files that only their owner may read.
pub const PRIVATE_FILE: u32 = 0o600;
/// Mode of files that everyone may read.
pub const PUBLIC_FILE: u32 = 0o644;
/// Mode of directories that only their owner may enter.
pub const PRIVATE_DIRECTORY: u32 = 0o700;

/// Writes a file in whole: temporary file, fsync, rename, fsync of the directory.
///
/// `mode` holds whatever the umask says. The temporary file has a fixed name, so that one left by a crash is taken over by the
/// next write; two writers of one file must exclude each other.
///
/// # Errors
/// [`StoreError`]; the former file, if there was one, is unharmed.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<(), StoreError> {
    let temporary = temporary_path(path);
    let write = || {
        // A leftover may have a wider mode than this file must have.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    if let Err(error) = write() {
        // On a full disk, the unfinished file must not take up what little is left.
        let _ = std::fs::remove_file(&temporary);
        return Err(StoreError::from_io(path, &error));
    }
    sync_directory_of(path)
}

/// Opens a regular file, and nothing else: whoever opens or reads a named pipe waits for its other end for ever, a device has no end, and a symbolic link leads
/// whoever runs as root to a file that another user chose.
///
/// # Errors
/// Those of opening; and one that says so where something else has that name.
pub fn open_regular(options: &mut OpenOptions, path: &Path) -> std::io::Result<File> {
    let file = options
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits())
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(nix::libc::ELOOP) => std::io::Error::other("it is a symbolic link, and no file"),
            _ => error,
        })?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(std::io::Error::other("it is no file"))
    }
}

/// Removes a file for good: after it returned, not even a power cut brings it back. A file that is not there is no error.
pub fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_directory_of(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::from_io(path, &error)),
    }
}

/// Makes a directory with all its parents, for the owner alone; leaves the mode of one that exists.
pub fn create_private_directory(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIRECTORY)
        .create(path)
        .map_err(|error| StoreError::from_io(path, &error))
}

/// Writes the directory entry of `path` to the disk.
pub fn sync_directory_of(path: &Path) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| StoreError::from_io(directory, &error))
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}
