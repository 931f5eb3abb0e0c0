//! What a builder gives to an image, looked at before the build begins.
//!
//! In: the node's program, k3s or its lock file, seed, artifacts and a tree to copy, as the options name them. Out: nothing, or what is wrong with one of
//! them, by the name of its option. Guarantees: what would end the build after minutes, or what a box would find unusable at its first start, when nobody
//! is near, is told here: a file that is not there, a program of another architecture, a directory that is no seed, an artifact whose content is not that
//! of its name.

use super::Architecture;
use crate::{files, k3s::pinned::Pinned};
use anyhow::{Context as _, Result, anyhow, bail};
use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

/// Where a program for Linux says what it is for, and what its first bytes are (ELF specification, "ELF Header").
const MACHINE: usize = 18;
const MAGIC: &[u8] = b"\x7fELF";

/// What is given, each by the option of its name.
#[derive(Default)]
pub struct Inputs<'a> {
    pub binary: Option<&'a Path>,
    pub k3s: Option<&'a Path>,
    pub k3s_lock: Option<&'a Path>,
    pub seed: Option<&'a Path>,
    pub artifacts: Option<&'a Path>,
    pub extra_tree: Option<&'a Path>,
}

/// Looks at each input that is given.
pub fn check(architecture: Architecture, inputs: &Inputs<'_>) -> Result<()> {
    let look = |option: &str, given: Option<&Path>, check: &dyn Fn(&Path) -> Result<()>| {
        let outcome = given.map_or(Ok(()), check);
        outcome.map_err(|error| anyhow!("{option}: {error:#}"))
    };
    look("--binary", inputs.binary, &|path| {
        program(path, architecture, false)
    })?;
    // What stands for k3s may be a script.
    look("--k3s", inputs.k3s, &|path| program(path, architecture, true))?;
    look("--k3s-lock", inputs.k3s_lock, &|path| {
        Pinned::read(path, architecture.debian()).map(drop)
    })?;
    look("--seed", inputs.seed, &seed)?;
    look("--artifacts", inputs.artifacts, &baked)?;
    look("--extra-tree", inputs.extra_tree, &tree)
}

fn seed(directory: &Path) -> Result<()> {
    if !directory.join("release.json").is_file() {
        bail!(
            "{} is no seed: it has no release.json; write one with `holdfastctl release render -f RELEASE --seed DIR`",
            directory.display()
        );
    }
    Ok(())
}

/// A directory, of which the image gets what is in it.
fn tree(directory: &Path) -> Result<()> {
    fs::read_dir(directory).map(drop).with_context(|| {
        format!(
            "{} is no directory that can be read, to be copied over the root of the image",
            directory.display()
        )
    })
}

fn program(path: &Path, architecture: Architecture, may_be_script: bool) -> Result<()> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(64).read_to_end(&mut start))
        .with_context(|| format!("cannot read {}", path.display()))?;
    if may_be_script && start.starts_with(b"#!") {
        return Ok(());
    }
    let machine = start
        .get(MACHINE..MACHINE + 2)
        .filter(|_| start.starts_with(MAGIC))
        .with_context(|| format!("{} is no program for Linux", path.display()))?;
    let wanted: u16 = match architecture {
        Architecture::X86_64 => 62,
        Architecture::Aarch64 => 183,
    };
    if machine != wanted.to_le_bytes() {
        bail!(
            "{} is a program for another architecture than {}, which the image is for",
            path.display(),
            architecture.name()
        );
    }
    Ok(())
}

/// Artifacts lie in `sha256/HEX`, as the node looks them up, and are what their names say.
fn baked(directory: &Path) -> Result<()> {
    let below = directory.join("sha256");
    let entries = fs::read_dir(&below).with_context(|| {
        format!(
            "{} holds no artifacts: they lie in {}, each named after its SHA-256",
            directory.display(),
            below.display()
        )
    })?;
    for entry in entries {
        let path = entry?.path();
        let hash = files::sha256(&path)?;
        if path.file_name().and_then(|name| name.to_str()) != Some(hash.as_str()) {
            bail!(
                "{} is not what its name says: its SHA-256 is {hash}",
                path.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests write plain files")]
mod tests {
    use super::*;

    fn program_for(machine: u16) -> Vec<u8> {
        let mut start = vec![0; 64];
        start[..4].copy_from_slice(MAGIC);
        start[MACHINE..MACHINE + 2].copy_from_slice(&machine.to_le_bytes());
        start
    }

    #[test]
    fn a_program_that_the_box_cannot_start_is_refused_before_the_build() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let told = |content: &[u8], k3s: bool| {
            fs::write(&path, content).unwrap();
            let given = Some(path.as_path());
            let (binary, k3s) = if k3s { (None, given) } else { (given, None) };
            let inputs = Inputs {
                binary,
                k3s,
                ..Inputs::default()
            };
            check(Architecture::X86_64, &inputs)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert_eq!(told(&program_for(62), false), "");
        assert_eq!(told(&program_for(62), true), "");
        assert_eq!(told(b"#!/bin/sh\n", true), "");
        assert!(told(&program_for(183), false).contains("another architecture"));
        assert!(told(&program_for(183), true).contains("another architecture"));
        assert!(told(b"#!/bin/sh\n", false).contains("no program"));
        assert!(told(b"", true).contains("no program"));
    }

    #[test]
    fn a_directory_that_is_no_seed_and_an_artifact_under_a_wrong_name_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let given = directory.path();
        let seed = || {
            let inputs = Inputs {
                seed: Some(given),
                ..Inputs::default()
            };
            check(Architecture::X86_64, &inputs)
        };
        assert!(seed().unwrap_err().to_string().contains("no seed"));
        fs::write(given.join("release.json"), "{}").unwrap();
        seed().unwrap();
        let artifacts = || {
            let inputs = Inputs {
                artifacts: Some(given),
                ..Inputs::default()
            };
            check(Architecture::X86_64, &inputs)
        };
        assert!(artifacts().unwrap_err().to_string().contains("no artifacts"));
        let below = given.join("sha256");
        fs::create_dir(&below).unwrap();
        // SHA-256 of "abc" (FIPS 180-4).
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        fs::write(below.join(right), "abc").unwrap();
        artifacts().unwrap();
        fs::write(below.join("0".repeat(64)), "abc").unwrap();
        assert!(artifacts().unwrap_err().to_string().contains(right));
    }

    #[test]
    fn a_tree_that_is_no_directory_and_a_lock_file_that_is_none_are_refused_by_the_name_of_their_option() {
        let directory = tempfile::tempdir().unwrap();
        let (file, nowhere) = (directory.path().join("file"), directory.path().join("nowhere"));
        fs::write(&file, "no lock").unwrap();
        let told = |inputs: Inputs<'_>| {
            let outcome = check(Architecture::X86_64, &inputs);
            outcome.err().map(|error| error.to_string()).unwrap_or_default()
        };
        let tree = |path: &Path| {
            told(Inputs {
                extra_tree: Some(path),
                ..Inputs::default()
            })
        };
        assert_eq!(tree(directory.path()), "");
        for path in [&file, &nowhere] {
            let told = tree(path);
            let expected = format!("--extra-tree: {} is no directory", path.display());
            assert!(told.starts_with(&expected), "{told}");
        }
        let lock = |path: &Path| {
            told(Inputs {
                k3s_lock: Some(path),
                ..Inputs::default()
            })
        };
        let expect = |path: &Path, words: &str| {
            let told = lock(path);
            assert!(told.starts_with("--k3s-lock: ") && told.contains(words), "{told}");
        };
        expect(&nowhere, "cannot read");
        expect(directory.path(), "cannot read");
        expect(&file, "is no lock file");
        fs::write(&file, "{}").unwrap();
        expect(&file, "pins no k3s for amd64");
        let binary = format!(
            r#"{{"digest": "sha256:{}", "size": 1, "name": "k3s"}}"#,
            "0".repeat(64)
        );
        fs::write(
            &file,
            format!(r#"{{"version": "v1.36.3+k3s1", "binaries": {{"amd64": {binary}}}}}"#),
        )
        .unwrap();
        assert_eq!(lock(&file), "");
    }
}
