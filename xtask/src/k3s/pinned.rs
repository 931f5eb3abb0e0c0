//! The files of the pinned k3s, for an image of a box.
//!
//! In: a lock file, an architecture, a directory that is kept between builds. Out: the binary and the archives of its images in that directory, below
//! `sha256/<hex>`. It guarantees that a file has its name only when its content is what the lock file pins, and that a download that was cut goes on
//! where it ended.

use crate::{files, shell};
use anyhow::{Context as _, Result, bail};
use holdfast_protocol::document::{Artifact, ArtifactSource, K3sSection};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How often a download that ends early is taken up again before it is given up.
const ATTEMPTS: u32 = 5;
/// What curl ends with where the server has no ranges.
const NO_RANGES: i32 = 33;

/// The pinned k3s of one architecture.
#[derive(Debug)]
pub struct Pinned {
    version: String,
    binary: Artifact,
    images: Vec<Artifact>,
}

/// Its files on this machine.
pub struct Fetched {
    pub version: String,
    pub binary: PathBuf,
    pub images: Vec<PathBuf>,
}

impl Pinned {
    /// Reads a lock file; `architecture` as k3s names it.
    pub fn read(lock: &Path, architecture: &str) -> Result<Self> {
        let text = fs::read_to_string(lock).with_context(|| format!("cannot read {}", lock.display()))?;
        let mut section: K3sSection =
            serde_json::from_str(&text).with_context(|| format!("{} is no lock file", lock.display()))?;
        let (Some(version), Some(binary)) = (section.version, section.binaries.remove(architecture)) else {
            bail!(
                "{} pins no k3s for {architecture}: write it with `cargo xtask k3s lock`",
                lock.display()
            );
        };
        Ok(Self {
            version,
            binary,
            images: section.images.remove(architecture).unwrap_or_default(),
        })
    }

    /// Has all files below `directory`.
    pub fn fetch(self, directory: &Path) -> Result<Fetched> {
        Ok(Fetched {
            binary: fetch(&self.binary, directory)?,
            images: self
                .images
                .iter()
                .map(|image| fetch(image, directory))
                .collect::<Result<_>>()?,
            version: self.version,
        })
    }
}

fn fetch(artifact: &Artifact, directory: &Path) -> Result<PathBuf> {
    let path = directory.join("sha256").join(artifact.digest.hex());
    if path.is_file() && is(artifact, &path)? {
        return Ok(path);
    }
    fs::create_dir_all(directory.join("sha256"))?;
    let part = path.with_extension("part");
    let addresses: Vec<&str> = artifact
        .sources
        .iter()
        .filter_map(|source| match source {
            ArtifactSource::Url(url) => Some(url.as_str()),
            ArtifactSource::Oci(_) => None,
        })
        .collect();
    for url in &addresses {
        if !download(url, artifact.size, &part)? {
            continue;
        }
        if is(artifact, &part)? {
            fs::rename(&part, &path).with_context(|| format!("cannot write {}", path.display()))?;
            return Ok(path);
        }
        fs::remove_file(&part)?;
        eprintln!("k3s: {url} is not what the lock file pins");
    }
    bail!(
        "{} ({}) cannot be had from {addresses:?}",
        artifact.name,
        artifact.digest
    );
}

/// Downloads to `part`, from where it ends. Whether it came in whole.
fn download(url: &str, size: u64, part: &Path) -> Result<bool> {
    for _ in 0..ATTEMPTS {
        let has = fs::metadata(part).map_or(0, |found| found.len());
        if has == size {
            return Ok(true);
        }
        if has > size {
            fs::remove_file(part)?;
        }
        let mut curl = shell::command("curl");
        curl.args(["-fSL", "--no-progress-meter", "--continue-at", "-", "--output"])
            .arg(part)
            .arg(url);
        eprintln!("k3s: {url}, {has} of {size} bytes are here");
        match curl.status().context("cannot start curl")?.code() {
            Some(NO_RANGES) => fs::remove_file(part)?,
            // 22: an answer such as 404. Asking again gives it again.
            Some(22) => return Ok(false),
            _ => {}
        }
    }
    Ok(fs::metadata(part).is_ok_and(|found| found.len() == size))
}

fn is(artifact: &Artifact, path: &Path) -> Result<bool> {
    Ok(fs::metadata(path)?.len() == artifact.size && files::sha256(path)? == artifact.digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k3s::{
        lock,
        server::{Release, VERSION},
    };

    #[test]
    fn what_a_lock_file_pins_is_fetched_once_and_goes_on_where_it_was_cut() {
        let place = tempfile::tempdir().unwrap();
        let release = Release::of(b"program", &vec![7; 300_000]);
        // The first answer of each address ends in its middle.
        let url = release.serve(true);
        let file = place.path().join("k3s.lock");
        lock(VERSION, &url, &file).unwrap();
        let cache = place.path().join("cache");
        let fetched = Pinned::read(&file, "amd64").unwrap().fetch(&cache).unwrap();
        assert_eq!(fetched.version, VERSION);
        assert_eq!(fs::read(&fetched.binary).unwrap(), b"program");
        assert_eq!(fs::read(&fetched.images[0]).unwrap(), vec![7; 300_000]);
        assert!(fetched.binary.starts_with(cache.join("sha256")));
        // Nobody is asked again.
        let gone = Pinned {
            version: VERSION.to_owned(),
            binary: Artifact {
                sources: Vec::new(),
                ..Pinned::read(&file, "amd64").unwrap().binary
            },
            images: Vec::new(),
        };
        assert_eq!(gone.fetch(&cache).unwrap().binary, fetched.binary);
    }

    #[test]
    fn a_file_that_was_replaced_after_it_was_pinned_is_refused_and_not_kept() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("k3s.lock");
        let good = Release::of(b"program", b"images");
        lock(VERSION, &good.serve(false), &file).unwrap();
        let other = Release::of(b"PROGRAM", b"images").serve(false);
        let mut pinned = Pinned::read(&file, "arm64").unwrap();
        pinned.binary.sources = vec![ArtifactSource::Url(format!("{other}/v1.36.3%2Bk3s1/k3s-arm64"))];
        let cache = place.path().join("cache");
        let error = pinned.fetch(&cache).map(drop).unwrap_err();
        assert!(error.to_string().contains("k3s-arm64"), "{error}");
        assert_eq!(fs::read_dir(cache.join("sha256")).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_file_that_pins_nothing_for_the_architecture_says_how_to_write_it() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("k3s.lock");
        files::replace(
            &file,
            r#"{"version": "v1.36.3+k3s1", "binaries": {}, "images": {}}"#,
        )
        .unwrap();
        let error = Pinned::read(&file, "amd64").unwrap_err().to_string();
        assert!(error.contains("cargo xtask k3s lock"), "{error}");
    }
}
