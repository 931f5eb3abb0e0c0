//! Starting programs of another architecture: packages of an image are set up by their own scripts, which are programs of the box.
//!
//! In: the architecture of the image. Out: the kernel of this machine starts its programs through QEMU, or an error that says what to do.
//! Guarantees: nothing is done where it does so already; what distribution or administrator registered is never replaced.

use super::Architecture;
use crate::{prerequisites, shell};
use anyhow::{Context as _, Result, bail};
use std::{fs, io::Write as _, path::Path};

const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";

/// Makes this machine start programs of `architecture`.
pub fn allow(architecture: Architecture, no_prerequisites: bool) -> Result<()> {
    if architecture == Architecture::own() {
        return Ok(());
    }
    if !no_prerequisites {
        prerequisites::install(&[prerequisites::Purpose::ForeignImage], false)?;
    }
    let name = format!("qemu-{}", architecture.name());
    let handler = Path::new(HANDLERS).join(&name);
    if !handler.exists() {
        // Where systemd runs it has registered this at the start of the machine or of the package; containers have no systemd.
        register(&name).with_context(|| {
            format!(
                "this machine does not start programs of {}: as root, `systemctl restart systemd-binfmt`, or write the line in /usr/lib/binfmt.d/{name}.conf to {HANDLERS}/register",
                architecture.name()
            )
        })?;
    }
    let state = fs::read_to_string(&handler).with_context(|| format!("cannot read {}", handler.display()))?;
    if !starts_in_other_trees(&state) {
        bail!(
            "{} is not enabled with the flag F, which makes QEMU start in the tree of an image too: remove it (`echo -1 > {}`) and run this again",
            handler.display(),
            handler.display()
        );
    }
    Ok(())
}

fn register(name: &str) -> Result<()> {
    let settings = format!("/usr/lib/binfmt.d/{name}.conf");
    let line = fs::read_to_string(&settings).with_context(|| format!("cannot read {settings}"))?;
    let register = Path::new(HANDLERS).join("register");
    if !register.exists() {
        shell::run(shell::command("mount").args(["-t", "binfmt_misc", "binfmt_misc", HANDLERS]))?;
    }
    fs::OpenOptions::new()
        .write(true)
        .open(&register)
        .and_then(|mut file| file.write_all(line.trim().as_bytes()))
        .with_context(|| format!("cannot write {}", register.display()))
}

/// Whether a handler is enabled, and its program opened when it was registered and not looked for where it is needed.
fn starts_in_other_trees(state: &str) -> bool {
    let mut lines = state.lines();
    lines.next() == Some("enabled")
        && lines
            .find_map(|line| line.strip_prefix("flags: "))
            .is_some_and(|flags| flags.contains('F'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_must_be_enabled_and_open_its_program_at_once() {
        let state = |first: &str, flags: &str| {
            format!("{first}\ninterpreter /usr/bin/qemu-aarch64-static\nflags: {flags}\noffset 0\n")
        };
        assert!(starts_in_other_trees(&state("enabled", "POF")));
        assert!(!starts_in_other_trees(&state("enabled", "PO")));
        assert!(!starts_in_other_trees(&state("disabled", "POF")));
        assert!(!starts_in_other_trees(""));
    }
}
