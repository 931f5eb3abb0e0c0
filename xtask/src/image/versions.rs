//! Versions of packages that the mirror has beside those of the image.
//!
//! In: the lock file of packages and the package lists of the last image for this machine's architecture, which apt has checked. Out: a version that
//! `cargo xtask image --package` takes.

use super::{Architecture, lock};
use crate::shell;
use anyhow::{Context as _, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Another version of a package than the lock file pins, and the one that it pins.
pub fn another(package: &str) -> Result<(String, String)> {
    let architecture = Architecture::own();
    let pinned = lock::pinned(architecture)?
        .remove(package)
        .with_context(|| format!("the image has no package {package}"))?
        .version;
    let lists = shell::root()
        .join("target/image/cache/packages")
        .join(architecture.name())
        .join("lib/apt/lists");
    for list in lists_in(&lists)? {
        let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        if let Some(other) = versions(&text, package).find(|version| *version != pinned) {
            return Ok((other.to_owned(), pinned));
        }
    }
    anyhow::bail!("the mirror has {package} in one version only")
}

fn lists_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut lists: Vec<PathBuf> = fs::read_dir(directory)
        .with_context(|| format!("cannot list {}: build an image first", directory.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    lists.retain(|list| list.to_string_lossy().ends_with("_Packages"));
    lists.sort();
    Ok(lists)
}

/// The versions of a package in a list.
fn versions<'a>(list: &'a str, package: &'a str) -> impl Iterator<Item = &'a str> {
    list.split("\n\n")
        .filter(move |paragraph| {
            let first = paragraph.trim_start().lines().next();
            first.and_then(|line| line.strip_prefix("Package: ")) == Some(package)
        })
        .filter_map(|paragraph| paragraph.lines().find_map(|line| line.strip_prefix("Version: ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_in_a_list_and_not_by_a_part_of_its_name() {
        let list = "Package: libssl\nVersion: 1\n\nPackage: libssl3\nSource: openssl\nVersion: 2\n\n";
        assert_eq!(versions(list, "libssl3").collect::<Vec<_>>(), ["2"]);
        assert_eq!(versions(list, "ssl").count(), 0);
    }
}
