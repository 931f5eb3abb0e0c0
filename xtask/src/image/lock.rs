//! The lock file of packages: which versions of which packages an image is made of, and the SHA-256 of each package file.
//!
//! In: mkosi's manifests, its cache of package files, `image/packages.<architecture>.lock`. Out: the list; an error that says what differs.
//! Guarantees: an image of other packages than the lock file names is refused, until the lock file is written anew on purpose.

use super::{Architecture, mirror::Chosen};
use crate::{files, shell};
use anyhow::{Context as _, Result, bail};
use holdfast_protocol::Digest;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// A package of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    pub version: String,
    pub architecture: String,
    /// SHA-256 of the package file, hexadecimal.
    pub sha256: String,
}

/// Packages by name.
pub type Packages = BTreeMap<String, Package>;

/// The packages that mkosi's manifests name, with the digests of the files they came from.
pub fn installed(manifests: &[PathBuf], archives: &Path) -> Result<Packages> {
    let mut packages = Packages::new();
    for path in manifests {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest: Value = serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
        for package in manifest["packages"].as_array().into_iter().flatten() {
            let field = |key: &str| {
                package[key]
                    .as_str()
                    .map(ToOwned::to_owned)
                    .with_context(|| format!("{}: a package without {key}", path.display()))
            };
            let (name, version, architecture) = (field("name")?, field("version")?, field("architecture")?);
            if packages.contains_key(&name) {
                continue;
            }
            // Archives of apt are named with the colon of an epoch escaped.
            let file = archives.join(format!(
                "{name}_{}_{architecture}.deb",
                version.replace(':', "%3a")
            ));
            let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            packages.insert(
                name,
                Package {
                    version,
                    architecture,
                    sha256: Digest::of(&content).hex(),
                },
            );
        }
    }
    Ok(packages)
}

/// Checks `packages` against the lock file, or writes it where there is none or `update` is set. A lock file is for images without
/// the debug variant's packages, which are checked as far as the lock file names them. What was chosen is what was asked for.
pub fn check(
    architecture: Architecture,
    packages: &Packages,
    snapshot: u64,
    update: bool,
    debug: bool,
    chosen: &[Chosen],
) -> Result<()> {
    let path = format!("image/packages.{}.lock", architecture.name());
    if (update || !shell::root().join(&path).exists()) && !debug {
        eprintln!("image: {} packages are pinned in {path}", packages.len());
        return files::replace(&path, to_text(packages, snapshot));
    }
    if !shell::root().join(&path).exists() {
        return Ok(());
    }
    let mut locked = pinned(architecture)?;
    for Chosen { name, .. } in chosen {
        if let (Some(pinned), Some(package)) = (locked.get_mut(name), packages.get(name)) {
            pinned.clone_from(package);
        }
    }
    let differences = differences(&locked, packages, debug);
    if differences.is_empty() {
        return Ok(());
    }
    bail!(
        "the mirror has other packages than {path} pins:\n{differences}give a mirror of the snapshot with --mirror, or take these with --update-lock"
    )
}

/// The packages that the lock file of an architecture pins.
pub fn pinned(architecture: Architecture) -> Result<Packages> {
    let path = format!("image/packages.{}.lock", architecture.name());
    from_text(&files::read(&path)?).with_context(|| path.clone())
}

fn differences(locked: &Packages, found: &Packages, debug: bool) -> String {
    let mut text = String::new();
    for (name, package) in found {
        match locked.get(name) {
            Some(pinned) if pinned == package => {}
            Some(pinned) if pinned.version == package.version => {
                let _ = writeln!(text, "  {name} {}: the file has other content", package.version);
            }
            Some(pinned) => {
                let _ = writeln!(
                    text,
                    "  {name}: {} instead of {}",
                    package.version, pinned.version
                );
            }
            None if debug => {}
            None => {
                let _ = writeln!(text, "  {name} {} is new", package.version);
            }
        }
    }
    for name in locked.keys().filter(|name| !found.contains_key(*name)) {
        let _ = writeln!(text, "  {name} is missing");
    }
    text
}

fn to_text(packages: &Packages, snapshot: u64) -> String {
    let mut text = format!(
        "# Packages of the image: name, version, architecture, SHA-256 of the package file.\n\
         # Written by `cargo xtask image --update-lock`; checked by every other build.\n\
         # Date of the package lists, in seconds since 1970:\nsnapshot {snapshot}\n"
    );
    for (name, package) in packages {
        let _ = writeln!(
            text,
            "{name} {} {} {}",
            package.version, package.architecture, package.sha256
        );
    }
    text
}

fn from_text(text: &str) -> Result<Packages> {
    let mut packages = Packages::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("snapshot "))
    {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, version, architecture, sha256] = words[..] else {
            bail!("not a package: {line:?}");
        };
        packages.insert(
            name.to_owned(),
            Package {
                version: version.to_owned(),
                architecture: architecture.to_owned(),
                sha256: sha256.to_owned(),
            },
        );
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(version: &str, sha256: &str) -> Packages {
        Packages::from([(
            "udev".to_owned(),
            Package {
                version: version.to_owned(),
                architecture: "amd64".to_owned(),
                sha256: sha256.to_owned(),
            },
        )])
    }

    #[test]
    fn a_lock_file_reads_as_it_was_written() {
        let written = packages("1:257-1", "ab");
        assert_eq!(from_text(&to_text(&written, 17)).unwrap(), written);
    }

    #[test]
    fn a_package_with_the_same_version_and_other_content_is_refused() {
        let text = differences(&packages("1", "ab"), &packages("1", "cd"), false);
        assert!(text.contains("other content"), "{text}");
    }

    #[test]
    fn a_new_a_missing_and_another_version_are_told() {
        assert!(differences(&packages("1", "ab"), &packages("2", "ab"), false).contains("2 instead of 1"));
        assert!(differences(&Packages::new(), &packages("1", "ab"), false).contains("is new"));
        assert!(differences(&packages("1", "ab"), &Packages::new(), false).contains("is missing"));
        assert_eq!(differences(&packages("1", "ab"), &packages("1", "ab"), false), "");
    }
}
