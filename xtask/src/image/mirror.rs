//! Where packages come from: the mirror that this machine's own apt uses, unless another is given.
//!
//! In: apt's list of indexes, or addresses. Out: a tree of apt's configuration for mkosi. Guarantees: no address stands in the recipe;
//! packages are verified with Debian's keys whatever the mirror.

use super::{Architecture, lock::Packages};
use crate::{files, shell};
use anyhow::{Context as _, Result, bail};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// The release of Debian that images are made from.
pub const RELEASE: &str = "trixie";
/// Keys of the Debian archive.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Addresses of Debian's packages and of its security updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub packages: String,
    pub security: String,
    /// What is taken of it in another version than the newest.
    chosen: Vec<Chosen>,
}

/// A package in a version that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub name: String,
    pub version: String,
}

impl Chosen {
    /// From `NAME=VERSION`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, version) = text.split_once('=').ok_or("NAME=VERSION is expected")?;
        let is = |text: &str, more: &str| {
            text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && text
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter))
        };
        if !is(name, "+-.") || !is(version, "+-.:~") {
            return Err("the name or the version is none of a Debian package".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            version: version.to_owned(),
        })
    }
}

/// Fails unless the packages that were chosen are in the image, in the versions that were chosen.
pub fn are_chosen(chosen: &[Chosen], packages: &Packages) -> Result<()> {
    for Chosen { name, version } in chosen {
        match packages.get(name) {
            Some(package) if package.version == *version => {}
            Some(package) => bail!(
                "{name} is in the image in version {}, not {version}: the mirror has that no more, or another package wants a newer one",
                package.version
            ),
            None => bail!("the image has no package {name}"),
        }
    }
    Ok(())
}

impl Mirror {
    /// The mirror given, else that of this machine's apt.
    pub fn choose(packages: Option<&str>, security: Option<&str>) -> Result<Self> {
        if let Some(packages) = packages {
            let security = match security {
                Some(security) => security.to_owned(),
                None => security_of(packages).with_context(|| {
                    format!("{packages} does not show where its security updates are: say so with --security-mirror")
                })?,
            };
            return Ok(Self {
                packages: packages.trim_end_matches('/').to_owned(),
                security: security.trim_end_matches('/').to_owned(),
                chosen: Vec::new(),
            });
        }
        let indexes = shell::output(shell::command("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(ORIGIN)",
            "Created-By: Packages",
        ]))?;
        let mut found = from_indexes(&indexes)
            .context("apt on this machine uses no mirror of Debian: give one with --mirror")?;
        if let Some(security) = security {
            security.trim_end_matches('/').clone_into(&mut found.security);
        }
        Ok(found)
    }

    /// The same, with these packages in these versions.
    pub fn preferring(self, chosen: Vec<Chosen>) -> Self {
        Self { chosen, ..self }
    }

    /// apt's preferences: the versions that were chosen, also where others are newer.
    fn preferences(&self) -> String {
        let mut text = String::new();
        for Chosen { name, version } in &self.chosen {
            let _ = write!(
                text,
                "Package: {name}\nPin: version {version}\nPin-Priority: 1001\n\n"
            );
        }
        text
    }

    /// apt's source entries for `suites` of the release, in deb822 form.
    fn sources(&self) -> String {
        format!(
            "Types: deb\nURIs: {}\nSuites: {RELEASE} {RELEASE}-updates\nComponents: main\nSigned-By: {KEYRING}\n\n\
             Types: deb\nURIs: {}\nSuites: {RELEASE}-security\nComponents: main\nSigned-By: {KEYRING}\n",
            self.packages, self.security
        )
    }

    /// Writes apt's configuration to `directory`, for `mkosi --package-manager-tree`.
    pub fn write_tree(&self, directory: &Path) -> Result<PathBuf> {
        let sources = directory.join("etc/apt/sources.list.d");
        let settings = directory.join("etc/apt/apt.conf.d");
        let preferences = directory.join("etc/apt/preferences.d");
        for part in [&sources, &settings, &preferences] {
            fs::create_dir_all(part)?;
        }
        // The name that mkosi gives its own list: where it is there, mkosi adds none, and with it no address of its own.
        files::replace(sources.join("mkosi.sources"), self.sources())?;
        files::replace(preferences.join("10-holdfast.pref"), self.preferences())?;
        files::replace(
            settings.join("10-holdfast.conf"),
            "Acquire::Languages \"none\";\nAcquire::Retries \"3\";\n",
        )?;
        Ok(directory.to_owned())
    }
}

/// `…/debian` and `…/debian/20260101T000000Z` have their security updates beside them.
fn security_of(packages: &str) -> Option<String> {
    let mut parts: Vec<&str> = packages.trim_end_matches('/').split('/').collect();
    let name = parts.iter_mut().rev().find(|part| **part == "debian")?;
    *name = "debian-security";
    Some(parts.join("/"))
}

/// The first address of a release of Debian, and that of its security updates.
fn from_indexes(indexes: &str) -> Option<Mirror> {
    let rows: Vec<(&str, &str)> = indexes
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (address, suite) = (words.next()?, words.next()?);
            (words.next() == Some("Debian")).then_some((address.trim_end_matches('/'), suite))
        })
        .collect();
    let packages = rows.iter().find(|(_, suite)| !suite.contains('-'))?.0.to_owned();
    let security = rows
        .iter()
        .find(|(_, suite)| suite.ends_with("-security"))
        .map(|(address, _)| (*address).to_owned())
        .or_else(|| security_of(&packages))?;
    Some(Mirror {
        packages,
        security,
        chosen: Vec::new(),
    })
}

/// The newest date of the signed package lists that a build used, as seconds since 1970: the snapshot that it is of.
pub fn snapshot(package_cache: &Path, architecture: Architecture) -> Result<u64> {
    let lists = package_cache.join("lib/apt/lists");
    let mut newest = 0;
    let entries = fs::read_dir(&lists).with_context(|| format!("cannot list {}", lists.display()))?;
    for entry in entries {
        let path = entry?.path();
        if !path.to_string_lossy().ends_with("_InRelease") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let Some(date) = text.lines().find_map(|line| line.strip_prefix("Date: ")) else {
            continue;
        };
        let seconds = shell::output(shell::command("date").args(["-u", "+%s", "-d", date]))?;
        newest = newest.max(seconds.trim().parse()?);
    }
    if newest == 0 {
        bail!(
            "no package list in {} for {}",
            lists.display(),
            architecture.debian()
        );
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_this_machines_apt() {
        let indexes = "http://mirror.example/debian/ bookworm Debian\n\
                       http://mirror.example/debian-security/ bookworm-security Debian\n\
                       http://other.example/nodesource/ nodistro NodeSource\n";
        let mirror = from_indexes(indexes).unwrap();
        assert_eq!(mirror.packages, "http://mirror.example/debian");
        assert_eq!(mirror.security, "http://mirror.example/debian-security");
    }

    #[test]
    fn another_distributions_mirror_is_not_taken() {
        assert_eq!(from_indexes("http://mirror.example/ubuntu/ noble Ubuntu\n"), None);
    }

    #[test]
    fn a_package_that_was_chosen_is_taken_though_it_is_not_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let mirror = Mirror::choose(Some("http://mirror.example/debian"), None).unwrap();
        let preferences = || {
            let file = directory.path().join("etc/apt/preferences.d/10-holdfast.pref");
            fs::read_to_string(file).unwrap()
        };
        let chosen = Chosen::parse("zlib1g=1:1.3.dfsg+really1.3.1-1+b1").unwrap();
        mirror
            .clone()
            .preferring(vec![chosen])
            .write_tree(directory.path())
            .unwrap();
        assert_eq!(
            preferences(),
            "Package: zlib1g\nPin: version 1:1.3.dfsg+really1.3.1-1+b1\nPin-Priority: 1001\n\n"
        );
        mirror.write_tree(directory.path()).unwrap();
        assert_eq!(preferences(), "", "the next build has no choice of this one");
    }

    #[test]
    fn what_is_no_package_cannot_be_chosen() {
        for text in ["zlib1g", "zlib1g=", "=1", "a b=1", "a=1\nPin-Priority: 1", "*=1"] {
            assert!(Chosen::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_package_that_came_in_another_version_than_chosen_is_refused() {
        let package = crate::image::lock::Package {
            version: "2".to_owned(),
            architecture: "amd64".to_owned(),
            sha256: String::new(),
        };
        let packages = Packages::from([("udev".to_owned(), package)]);
        let are = |text| are_chosen(&[Chosen::parse(text).unwrap()], &packages);
        assert!(are("udev=2").is_ok());
        assert!(are("udev=1").unwrap_err().to_string().contains("not 1"));
        assert!(are("other=1").unwrap_err().to_string().contains("no package"));
    }

    #[test]
    fn a_snapshot_has_its_security_updates_beside_it() {
        assert_eq!(
            security_of("http://mirror.example/archive/debian/20260101T000000Z/").as_deref(),
            Some("http://mirror.example/archive/debian-security/20260101T000000Z")
        );
        assert_eq!(security_of("http://mirror.example/packages"), None);
    }
}
