//! Programs of k3s that came as artifacts, each in a directory of its own.
//!
//! In: an artifact whose content is in the store. Out: `<state>/k3s/versions/<digest>/k3s`, verified and executable, and the links
//! `current` and `previous` beside `versions`. It guarantees that a program under its name is whole and has that digest, that the links
//! change in one step, and that a program takes no room twice where the file system can link.

use super::switch::SwitchError;
use holdfast_protocol::{Digest, document::Artifact};
use holdfast_store::{Blobs, fs as durable};
use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

/// Mode of a program.
const PROGRAM: u32 = 0o755;

/// The installed programs.
#[derive(Clone, Debug)]
pub struct Versions {
    home: PathBuf,
}

impl Versions {
    /// Those below `home`, `<state>/k3s`.
    pub const fn new(home: PathBuf) -> Self {
        Self { home }
    }

    fn root(&self) -> PathBuf {
        self.home.join("versions")
    }

    /// Where the program of this digest is, or would be.
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.root().join(digest.hex()).join("k3s")
    }

    /// Whether it is installed. Its content was verified then, and is once more by the kernel's file system, not by this.
    pub fn has(&self, digest: Digest) -> bool {
        fs::metadata(self.path(digest)).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
    }

    /// Installs a program out of the store; does nothing where it is installed. Blocks for as long as reading the file takes.
    ///
    /// # Errors
    /// [`SwitchError::ArtifactMissing`], [`SwitchError::ArtifactDamaged`], or the disk's.
    pub fn install(&self, blobs: &Blobs, artifact: &Artifact) -> Result<PathBuf, SwitchError> {
        let digest = artifact.digest;
        let target = self.path(digest);
        if self.has(digest) {
            return Ok(target);
        }
        let directory = self.root().join(digest.hex());
        durable::create_private_directory(&directory).map_err(|error| SwitchError::store(&error))?;
        let beside = directory.join(".k3s.new");
        let failed = |error: &io::Error| SwitchError::io(&beside, error);
        remove(&beside)?;
        let source = blobs.path(digest);
        if !blobs.contains(digest, artifact.size) {
            return Err(SwitchError::ArtifactMissing { digest });
        }
        // The link keeps the content when the store lets go of it. Where there can be none, it is copied.
        if fs::hard_link(&source, &beside).is_err() {
            fs::copy(&source, &beside).map_err(|error| failed(&error))?;
        }
        let found = digest_of(&beside)?;
        if found != digest {
            remove(&beside)?;
            return Err(SwitchError::ArtifactDamaged { digest, found });
        }
        fs::set_permissions(&beside, Permissions::from_mode(PROGRAM))
            .and_then(|()| File::open(&beside))
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&beside, &target))
            .map_err(|error| failed(&error))?;
        for path in [&target, &directory, &self.root()] {
            durable::sync_directory_of(path).map_err(|error| SwitchError::store(&error))?;
        }
        Ok(target)
    }

    /// Lets the links lead to these programs. They are for people and for units; what counts is written down elsewhere.
    pub fn point(&self, current: &Path, previous: Option<&Path>) -> Result<(), SwitchError> {
        self.link("current", Some(current))?;
        self.link("previous", previous)
    }

    fn link(&self, name: &str, to: Option<&Path>) -> Result<(), SwitchError> {
        let link = self.home.join(name);
        let Some(to) = to else { return remove(&link) };
        if fs::read_link(&link).is_ok_and(|found| found == to) {
            return Ok(());
        }
        let beside = self.home.join(format!(".{name}.new"));
        remove(&beside)?;
        symlink(to, &beside)
            .and_then(|()| fs::rename(&beside, &link))
            .map_err(|error| SwitchError::io(&link, &error))?;
        durable::sync_directory_of(&link).map_err(|error| SwitchError::store(&error))
    }

    /// Removes all programs but these.
    pub fn keep_only(&self, kept: &[Digest]) {
        let kept: Vec<_> = kept.iter().map(Digest::hex).collect();
        for entry in fs::read_dir(self.root()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name
                .to_str()
                .is_some_and(|name| kept.iter().any(|hex| hex == name))
            {
                continue;
            }
            match fs::remove_dir_all(entry.path()) {
                Ok(()) => tracing::info!(path = %entry.path().display(), "removed a k3s that nothing needs"),
                Err(error) => {
                    tracing::warn!(%error, path = %entry.path().display(), "a k3s that nothing needs cannot be removed");
                }
            }
        }
    }
}

/// The program, as the operating system would find it: a path as it is, a name in PATH.
pub fn find(program: &str) -> PathBuf {
    let named = PathBuf::from(program);
    if program.contains('/') {
        return named;
    }
    std::env::var_os("PATH")
        .and_then(|path| {
            std::env::split_paths(&path)
                .map(|directory| directory.join(program))
                .find(|candidate| {
                    fs::metadata(candidate).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
                })
        })
        .unwrap_or(named)
}

/// Tells whether a file is another one than it was: the image of the box has been updated, or a package.
pub fn file_identity(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    Some(format!(
        "{}:{}:{}:{}.{:09}",
        found.dev(),
        found.ino(),
        found.size(),
        found.mtime(),
        found.mtime_nsec()
    ))
}

/// SHA-256 of a file, without holding it in memory.
pub fn digest_of(path: &Path) -> Result<Digest, SwitchError> {
    let (digest, _) = File::open(path)
        .and_then(Digest::of_reader)
        .map_err(|error| SwitchError::io(path, &error))?;
    Ok(digest)
}

fn remove(path: &Path) -> Result<(), SwitchError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SwitchError::io(path, &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(content: &[u8]) -> Artifact {
        serde_json::from_value(serde_json::json!({
            "digest": Digest::of(content), "size": content.len(), "name": "k3s"
        }))
        .unwrap()
    }

    #[test]
    fn a_program_is_installed_once_whole_and_executable() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(directory.path()).unwrap();
        let versions = Versions::new(directory.path().join("k3s"));
        let content = b"#!/bin/sh\necho 'k3s version v1.36.3+k3s1 (x)'\n";
        let artifact = artifact(content);

        let error = versions.install(&blobs, &artifact).unwrap_err();
        assert!(matches!(error, SwitchError::ArtifactMissing { .. }), "{error}");
        blobs.put(content).unwrap();
        let path = versions.install(&blobs, &artifact).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o755);
        let inode = fs::metadata(&path).unwrap().ino();
        assert_eq!(
            fs::metadata(blobs.path(artifact.digest)).unwrap().ino(),
            inode,
            "it takes room twice"
        );

        // The store lets go of it; the program stays.
        blobs.collect_garbage(&std::collections::BTreeSet::new()).unwrap();
        assert_eq!(versions.install(&blobs, &artifact).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);

        versions.keep_only(&[artifact.digest]);
        assert!(versions.has(artifact.digest));
        versions.keep_only(&[]);
        assert!(!versions.has(artifact.digest));
    }

    #[test]
    fn a_damaged_artifact_is_never_installed() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(directory.path()).unwrap();
        let versions = Versions::new(directory.path().join("k3s"));
        let artifact = artifact(b"content");
        blobs.put(b"content").unwrap();
        let mut stored = File::create(blobs.path(artifact.digest)).unwrap();
        io::Write::write_all(&mut stored, b"CONTENT").unwrap();
        let error = versions.install(&blobs, &artifact).unwrap_err();
        assert!(matches!(error, SwitchError::ArtifactDamaged { .. }), "{error}");
        assert!(!versions.has(artifact.digest));
    }

    #[test]
    fn the_links_lead_to_what_is_current_and_what_was_before() {
        let directory = tempfile::tempdir().unwrap();
        let versions = Versions::new(directory.path().to_owned());
        versions.point(Path::new("/usr/bin/k3s"), None).unwrap();
        versions
            .point(Path::new("/new/k3s"), Some(Path::new("/usr/bin/k3s")))
            .unwrap();
        let link = |name: &str| fs::read_link(directory.path().join(name)).unwrap();
        assert_eq!(link("current"), Path::new("/new/k3s"));
        assert_eq!(link("previous"), Path::new("/usr/bin/k3s"));
        versions.point(Path::new("/new/k3s"), None).unwrap();
        assert!(!directory.path().join("previous").exists());
        assert_eq!(find("/usr/bin/k3s"), Path::new("/usr/bin/k3s"));
        assert!(find("sh").is_absolute());
        assert_eq!(find("no-such-program"), Path::new("no-such-program"));
    }
}
