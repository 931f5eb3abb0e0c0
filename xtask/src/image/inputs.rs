//! What a builder gives to an image, looked at before the build begins.
//!
//! In: the node's program, k3s, seed and artifacts, as the options name them. Out: nothing, or what is wrong with one of them. Guarantees:
//! what a box would find unusable at its first start, when nobody is near, is told here: a program of another architecture, a directory
//! that is no seed, an artifact whose content is not that of its name.

use super::Architecture;
use crate::files;
use anyhow::{Context as _, Result, bail};
use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

/// Where a program for Linux says what it is for, and what its first bytes are (ELF specification, "ELF Header").
const MACHINE: usize = 18;
const MAGIC: &[u8] = b"\x7fELF";

/// Looks at each input that is given.
pub fn check(
    architecture: Architecture,
    binary: Option<&Path>,
    k3s: Option<&Path>,
    seed: Option<&Path>,
    artifacts: Option<&Path>,
) -> Result<()> {
    if let Some(binary) = binary {
        program(binary, architecture, false)?;
    }
    if let Some(k3s) = k3s {
        // What stands for k3s may be a script.
        program(k3s, architecture, true)?;
    }
    if let Some(seed) = seed
        && !seed.join("release.json").is_file()
    {
        bail!(
            "{} is no seed: it has no release.json; write one with `holdfastctl release render -f RELEASE --seed DIR`",
            seed.display()
        );
    }
    artifacts.map_or(Ok(()), baked)
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
            check(Architecture::X86_64, binary, k3s, None, None)
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
        let seed = || check(Architecture::X86_64, None, None, Some(given), None);
        assert!(seed().unwrap_err().to_string().contains("no seed"));
        fs::write(given.join("release.json"), "{}").unwrap();
        seed().unwrap();
        let artifacts = || check(Architecture::X86_64, None, None, None, Some(given));
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
}
