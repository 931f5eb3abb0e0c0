//! Whether anyone can log in to an image: read from the finished `/usr`, not from what it was made of.
//!
//! In: the erofs of the slot, the tree of tools. Out: an error that names the ways in of an image that must have none, or that a debug variant lacks.

use super::Architecture;
use crate::shell;
use anyhow::{Result, bail};
use std::path::Path;

/// In every image. Where it is not found, nothing of the image was read.
const ALWAYS: &str = "/bin/holdfast";
/// What a developer comes in by.
const DEBUG: [&str; 4] = [
    "/bin/bash",
    "/sbin/sshd",
    "/lib/systemd/system/root-shell@.service",
    "/lib/systemd/system/multi-user.target.wants/root-shell@console.service",
];
/// What nobody comes in by, in no variant, nor changes the system with.
const NEVER: [&str; 9] = [
    "/bin/apt-get",
    "/bin/dpkg",
    "/bin/login",
    "/bin/su",
    "/sbin/agetty",
    "/sbin/sulogin",
    "/lib/systemd/system/debug-shell.service",
    "/lib/systemd/system/getty@.service",
    "/lib/systemd/system/serial-getty@.service",
];

/// Checks the image of `/usr`.
pub fn check(usr: &Path, tools: &Path, debug: bool) -> Result<()> {
    judge(debug, |path| has(usr, tools, path))
}

fn judge(debug: bool, has: impl Fn(&str) -> Result<bool>) -> Result<()> {
    if !has(ALWAYS)? {
        bail!("the image has no {ALWAYS}");
    }
    for path in NEVER {
        if has(path)? {
            bail!("the image has {path}");
        }
    }
    for path in DEBUG {
        match (debug, has(path)?) {
            (false, true) => bail!("the image has {path}, which is for the debug variant alone"),
            (true, false) => bail!("the debug variant has no {path}"),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a path is in the image. The program that looks is that of the tools, with their libraries: this machine's may be older than the image.
fn has(usr: &Path, tools: &Path, path: &str) -> Result<bool> {
    let (loader, libraries) = match Architecture::own() {
        Architecture::X86_64 => ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"),
        Architecture::Aarch64 => ("usr/lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu"),
    };
    let output = shell::command(tools.join(loader))
        .arg("--library-path")
        .arg(tools.join(libraries))
        .arg(tools.join("usr/bin/dump.erofs"))
        .arg(format!("--path={path}"))
        .arg(usr)
        .output()?;
    // It ends well either way, and shows what it found.
    Ok(String::from_utf8_lossy(&output.stdout).contains("NID: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_in_is_for_the_debug_variant_alone_and_some_are_for_none() {
        let plain = |path: &str| Ok(path == ALWAYS);
        let developers = |path: &str| Ok(path == ALWAYS || DEBUG.contains(&path));
        assert!(judge(false, plain).is_ok());
        assert!(judge(true, developers).is_ok());
        assert!(
            judge(true, plain)
                .unwrap_err()
                .to_string()
                .contains("no /bin/bash")
        );
        for path in DEBUG.into_iter().chain(NEVER) {
            let with = |wanted: &str| Ok(wanted == ALWAYS || wanted == path);
            assert!(
                judge(false, with).unwrap_err().to_string().contains(path),
                "{path}"
            );
        }
        for path in NEVER {
            let with = |wanted: &str| Ok(developers(wanted)? || wanted == path);
            assert!(judge(true, with).is_err(), "{path}");
        }
        assert!(
            judge(false, |_| Ok(false)).is_err(),
            "an image that cannot be read"
        );
    }
}
