//! The state directory and its modes: made private, and refused if someone made it wider.

use super::IdentityError;
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::Path,
};

/// Makes `state_dir` and `identity/` below it with mode 0700 where they are missing, and refuses them if they are wider or another's.
pub fn prepare(state_dir: &Path) -> Result<(), IdentityError> {
    for path in [state_dir.to_owned(), state_dir.join("identity")] {
        match DirBuilder::new().recursive(false).mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && path == state_dir => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).map_err(IdentityError::io("make", parent))?;
                }
                DirBuilder::new()
                    .mode(0o700)
                    .create(&path)
                    .map_err(IdentityError::io("make", &path))?;
            }
            Err(error) => return Err(IdentityError::io("make", &path)(error)),
        }
        check(&path, 0o700)?;
    }
    Ok(())
}

/// Checks what there is of the state directory, its `identity/` and the keys in it, without making anything.
pub fn check_state_dir(state_dir: &Path) -> Result<(), IdentityError> {
    let identity = state_dir.join("identity");
    for (path, wanted) in [
        (state_dir.to_owned(), 0o700),
        (identity.clone(), 0o700),
        (identity.join(super::key::FILE), 0o600),
        (identity.join(super::sealing::FILE), 0o600),
    ] {
        match check(&path, wanted) {
            Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Checks that nobody but the owner has any right on `path`, and that the owner is the user of this process.
pub(crate) fn check(path: &Path, wanted: u32) -> Result<(), IdentityError> {
    let metadata = fs::metadata(path).map_err(IdentityError::io("read", path))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::ModeTooWide {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    let user = nix::unistd::geteuid();
    if !user.is_root() && metadata.uid() != user.as_raw() {
        return Err(IdentityError::OwnerWrong {
            path: path.to_owned(),
            owner: metadata.uid(),
            user: user.as_raw(),
        });
    }
    Ok(())
}
