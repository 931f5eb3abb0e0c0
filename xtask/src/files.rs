//! Reading and writing files of the repository, with errors that name the file.

use crate::shell;
use anyhow::{Context as _, Result};
use holdfast_protocol::Digest;
use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

/// The text of a file; `path` is relative to the root.
pub fn read(path: &str) -> Result<String> {
    fs::read_to_string(shell::root().join(path)).with_context(|| format!("cannot read {path}"))
}

/// Replaces a file as a whole, so that an interrupted run leaves the old one; a path that is not absolute is relative to the root.
pub fn replace(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
    let path = shell::root().join(path);
    let new = path.with_extension("new");
    File::create(&new)
        .and_then(|mut file| file.write_all(content.as_ref()))
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Moves a file, also to another file system: there it is copied beside its place first, holes and all, so that the place has it whole or not
/// at all.
pub fn relocate(from: &Path, to: &Path) -> Result<()> {
    let told = || format!("cannot move {} to {}", from.display(), to.display());
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {}
        done => return done.with_context(told),
    }
    let mut name = to.file_name().with_context(told)?.to_owned();
    name.push(".new");
    let new = to.with_file_name(name);
    let copied = shell::output(
        shell::command("cp")
            .args(["--sparse=always", "--preserve=mode,timestamps", "--"])
            .args([from, &new]),
    );
    if let Err(error) = copied {
        // What is there of it, where it is there at all, is of no use.
        let _ = fs::remove_file(&new);
        return Err(error).with_context(told);
    }
    fs::rename(&new, to).with_context(told)?;
    fs::remove_file(from).with_context(told)
}

/// SHA-256 of a file's content, hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    let (digest, _) = File::open(path)
        .and_then(Digest::of_reader)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(digest.hex())
}

/// All files called `name` below `directory` (relative to the root), in a stable order.
pub fn named(directory: &str, name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(&shell::root().join(directory), name, &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(directory: &Path, name: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, name, found)?;
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests write plain files")]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    #[test]
    fn a_file_is_moved_to_another_file_system_too() {
        let here = tempfile::tempdir_in(shell::target_directory()).unwrap();
        // In memory on every Linux.
        let there = tempfile::tempdir_in("/dev/shm").unwrap();
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        assert_ne!(
            device(here.path()),
            device(there.path()),
            "the test needs two file systems"
        );
        let (from, to) = (here.path().join("a.raw"), there.path().join("b.raw"));
        fs::write(&from, "content").unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&to, "of an earlier build").unwrap();
        relocate(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "content");
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o755);
        assert!(!from.exists());
        assert_eq!(fs::read_dir(there.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_move_that_fails_leaves_both_places_as_they_were() {
        let here = tempfile::tempdir_in(shell::target_directory()).unwrap();
        let (from, to) = (here.path().join("a"), here.path().join("b"));
        fs::write(&to, "of an earlier build").unwrap();
        let error = relocate(&from, &to).unwrap_err();
        assert!(format!("{error:#}").contains("cannot move"), "{error:#}");
        assert_eq!(fs::read_to_string(&to).unwrap(), "of an earlier build");
    }
}
