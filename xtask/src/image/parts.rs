//! What the image holds beside Debian's packages: the node, its units and settings, trust in the builder's key, and on request a k3s, a seed
//! release and artifacts.
//!
//! In: files of the repository and of the builder. Out: a directory tree that mkosi copies over the root of the image. Guarantees: nothing
//! of it is left from an earlier build; whatever lies in `systemd/` is installed by the kind that its name shows.

use super::{keys::Keys, secure_boot};
use crate::{k3s::pinned::Fetched, shell};
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// Where the node looks for artifacts of the image.
const ARTIFACTS: &str = "usr/share/holdfast/artifacts";

/// What may be put into an image besides the node.
#[derive(Default)]
pub struct Extras<'a> {
    /// A program that is `/usr/bin/k3s`.
    pub k3s: Option<&'a Path>,
    /// The k3s that a lock file pins: the artifacts that documents name, and the program in `PATH` among them.
    pub pinned: Option<&'a Fetched>,
    /// A directory with a release, rendered.
    pub seed: Option<&'a Path>,
    /// A directory with artifacts in `sha256/<hex>`.
    pub artifacts: Option<&'a Path>,
}

/// Fills `tree` anew.
pub fn assemble(tree: &Path, binary: &Path, keys: &Keys, extras: &Extras<'_>) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    }
    install(binary, &tree.join("usr/bin/holdfast"), 0o755)?;
    install(&keys.trust(), &tree.join("usr/lib/holdfast/os-keys.json"), 0o644)?;
    units(&shell::root().join("systemd"), tree)?;
    secure_boot::enrolment(keys, &tree.join("efi/loader/keys/auto"))?;
    if let Some(k3s) = extras.k3s {
        install(k3s, &tree.join("usr/bin/k3s"), 0o755)?;
    }
    if let Some(pinned) = extras.pinned {
        bake(pinned, tree)?;
    }
    if let Some(seed) = extras.seed {
        directory(seed, &tree.join("usr/share/holdfast/seed"))?;
    }
    if let Some(artifacts) = extras.artifacts {
        directory(artifacts, &tree.join(ARTIFACTS))?;
    }
    Ok(())
}

/// Puts the files of a pinned k3s where the node looks for artifacts. The program is there once: `/usr/bin/k3s` is a link.
fn bake(pinned: &Fetched, tree: &Path) -> Result<()> {
    let place = |file: &Path, mode| {
        let name = file
            .file_name()
            .with_context(|| format!("{} has no name", file.display()))?;
        let relative = Path::new(ARTIFACTS).join("sha256").join(name);
        install(file, &tree.join(&relative), mode)?;
        anyhow::Ok(relative)
    };
    for images in &pinned.images {
        place(images, 0o644)?;
    }
    let program = Path::new("/").join(place(&pinned.binary, 0o755)?);
    symlink(program, tree.join("usr/bin/k3s")).context("cannot make /usr/bin/k3s")
}

/// Installs the files of `systemd/` as systemd/README.md says. Of the drop-ins of `holdfast.service`, the one for Kubernetes as a
/// unit is left out: a box has one of them.
fn units(from: &Path, tree: &Path) -> Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(from)
        .with_context(|| format!("cannot list {}", from.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .with_context(|| format!("{} has no name", path.display()))?;
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        if path.is_dir() {
            if path.extension().is_none_or(|extension| extension != "d") {
                continue;
            }
            for drop_in in fs::read_dir(&path)? {
                let drop_in = drop_in?;
                if drop_in.file_name() != "20-kubernetes-unit.conf" {
                    let to = tree
                        .join("usr/lib/systemd/system")
                        .join(name)
                        .join(drop_in.file_name());
                    install(&drop_in.path(), &to, 0o644)?;
                }
            }
            continue;
        }
        let to = match path.extension().and_then(|extension| extension.to_str()) {
            Some("service" | "target" | "path" | "timer" | "socket" | "mount") => {
                format!("systemd/system/{name}")
            }
            Some("sysusers") => format!("sysusers.d/{stem}.conf"),
            Some("tmpfiles") => format!("tmpfiles.d/{stem}.conf"),
            Some("preset") => format!("systemd/system-preset/80-{name}"),
            Some("toml") => format!("holdfast/{name}"),
            Some("rules") => format!("udev/rules.d/{name}"),
            _ => continue,
        };
        install(&path, &tree.join("usr/lib").join(to), 0o644)?;
    }
    Ok(())
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn directory(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        bail!("{} is not a directory", from.display());
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            directory(&entry.path(), &target)?;
        } else {
            install(&entry.path(), &target, 0o644)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests write plain files")]
mod tests {
    use super::*;
    use crate::k3s::{
        lock,
        pinned::Pinned,
        server::{Release, VERSION},
    };
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn units_are_installed_by_their_kind_and_nothing_is_left_of_an_earlier_build() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::in_directory(Some(&directory.path().join("keys")));
        keys.make_missing().unwrap();
        let tree = directory.path().join("tree");
        let binary = directory.path().join("holdfast");
        fs::write(&binary, "program").unwrap();
        assemble(
            &tree,
            &binary,
            &keys,
            &Extras {
                k3s: Some(&binary),
                ..Extras::default()
            },
        )
        .unwrap();
        for installed in [
            "usr/bin/holdfast",
            "usr/bin/k3s",
            "usr/lib/holdfast/10-systemd.toml",
            "usr/lib/holdfast/os-keys.json",
            "usr/lib/systemd/system/holdfast.service",
            "usr/lib/systemd/system/holdfast.service.d/10-kubernetes-child.conf",
            "usr/lib/sysusers.d/holdfast.conf",
            "usr/lib/systemd/system-preset/80-holdfast.preset",
        ] {
            assert!(tree.join(installed).is_file(), "{installed} is missing");
        }
        assert!(
            !tree
                .join("usr/lib/systemd/system/holdfast.service.d/20-kubernetes-unit.conf")
                .exists()
        );
        assemble(&tree, &binary, &keys, &Extras::default()).unwrap();
        assert!(!tree.join("usr/bin/k3s").exists());
    }

    #[test]
    fn what_a_lock_file_pins_lies_where_documents_find_it_and_in_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::in_directory(Some(&directory.path().join("keys")));
        keys.make_missing().unwrap();
        let file = directory.path().join("k3s.lock");
        let url = Release::of(b"program", b"images").serve(false);
        lock(VERSION, &url, &file).unwrap();
        let cache = directory.path().join("cache");
        let pinned = Pinned::read(&file, "amd64").unwrap().fetch(&cache).unwrap();
        let tree = directory.path().join("tree");
        let binary = directory.path().join("holdfast");
        fs::write(&binary, "node").unwrap();
        let extras = Extras {
            pinned: Some(&pinned),
            ..Extras::default()
        };
        assemble(&tree, &binary, &keys, &extras).unwrap();
        let baked = |path: &Path| {
            tree.join(ARTIFACTS)
                .join("sha256")
                .join(path.file_name().unwrap())
        };
        assert_eq!(fs::read(baked(&pinned.images[0])).unwrap(), b"images");
        let program = fs::read_link(tree.join("usr/bin/k3s")).unwrap();
        let program = tree.join(program.strip_prefix("/").unwrap());
        assert_eq!(program, baked(&pinned.binary));
        assert_eq!(fs::read(&program).unwrap(), b"program");
        assert_eq!(
            fs::metadata(&program).unwrap().permissions().mode() & 0o111,
            0o111
        );
    }
}
