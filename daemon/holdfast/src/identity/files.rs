//! Atomic replacement of small private files: temporary file, fsync, rename, fsync of the directory.

use super::IdentityError;
use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Replaces `path` with `content`, mode 0600. After a crash there is either the old or the new content, never a mixture.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = directory.join(name);
    let failed = || IdentityError::io("write", path);
    // A leftover of a crash may have any mode; it is made anew instead of used.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed()(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed())?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(|error| {
            // The old file is untouched; the temporary one only wastes space.
            let _ = fs::remove_file(&temporary);
            failed()(error)
        })
}
