//! Tools that no distribution packages in the version needed; they go below `target/tools`.

use super::Purpose;
use crate::{cluster, shell};
use anyhow::{Context as _, Result, bail};
use std::{fs, path::Path};

/// Pinned, so that a build of today can be repeated.
const CARGO_DENY: &str = "0.20.2";
/// The Go that the test cluster's `go.mod` asks for, as the module in which Go distributes itself.
const GO_TOOLCHAIN: &str = "golang.org/toolchain@v0.0.1-go1.26.8.linux-";

/// A tool and how it is installed.
pub struct Tool {
    pub name: &'static str,
    pub why: &'static str,
    purpose: Purpose,
    present: fn() -> bool,
    pub install: fn() -> Result<()>,
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "mkosi",
        why: "makes images; this version, whatever the machine's own is",
        purpose: Purpose::Image,
        present: || shell::tools_directory().join("bin/mkosi").is_file(),
        install: install_mkosi,
    },
    Tool {
        name: "Go 1.26",
        why: "the distribution's Go is older than 1.21 and cannot fetch the version it needs by itself",
        purpose: Purpose::Demo,
        present: || cluster::is_given() || go_minor().is_none_or(|minor| minor >= 21),
        install: install_go,
    },
    Tool {
        name: "cargo-zigbuild and zig",
        why: "compiler and linker for static binaries of every architecture",
        purpose: Purpose::Cross,
        present: has_zigbuild,
        install: install_zigbuild,
    },
    Tool {
        name: "cargo-deny",
        why: "checks licences, sources and banned crates",
        purpose: Purpose::Ci,
        present: || shell::find("cargo-deny").is_some(),
        install: install_cargo_deny,
    },
];

/// The tools that one of the purposes needs and that are not here.
pub fn missing(purposes: &[Purpose]) -> Vec<&'static Tool> {
    let wanted = |tool: &&Tool| {
        (purposes.contains(&Purpose::Ci) && tool.purpose != Purpose::Image)
            || purposes.contains(&tool.purpose)
            || (tool.purpose == Purpose::Demo && purposes.contains(&Purpose::Test))
    };
    TOOLS
        .iter()
        .filter(wanted)
        .filter(|tool| !(tool.present)())
        .collect()
}

/// The minor version of the Go in `PATH`; `None` without one.
fn go_minor() -> Option<u32> {
    let version = shell::output(shell::command(shell::find("go")?).arg("version")).ok()?;
    // "go version go1.26.8 linux/amd64"
    version
        .split_once("go1.")?
        .1
        .split(['.', ' '])
        .next()?
        .parse()
        .ok()
}

/// An older Go can still fetch the toolchain as a module, checked against Go's checksum database like any other. It only
/// does not mark the programs in it executable.
fn install_go() -> Result<()> {
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let described = shell::output(
        shell::command("go")
            .current_dir(std::env::temp_dir())
            .args(["mod", "download", "-json"])
            .arg(format!("{GO_TOOLCHAIN}{architecture}")),
    )?;
    let described: serde_json::Value = serde_json::from_str(&described).context("`go mod download -json`")?;
    let Some(directory) = described["Dir"].as_str() else {
        bail!("`go mod download -json` named no directory");
    };
    let target = shell::tools_directory().join("go");
    fs::create_dir_all(shell::tools_directory())?;
    shell::run(
        shell::command("cp")
            .args(["-r", "--no-preserve=mode", directory])
            .arg(&target),
    )?;
    for programs in ["bin", "pkg/tool"] {
        shell::run(
            shell::command("chmod")
                .args(["-R", "a+x"])
                .arg(target.join(programs)),
        )?;
    }
    Ok(())
}

/// mkosi is a program in Python, the same for every machine: its package is unpacked, not installed.
fn install_mkosi() -> Result<()> {
    let tools = shell::tools_directory();
    fs::create_dir_all(&tools)?;
    shell::run(shell::command("bash").arg("image/fetch-mkosi.sh").arg(&tools))
}

pub fn has_zigbuild() -> bool {
    let own = shell::tools_directory().join("venv/bin/cargo-zigbuild");
    own.is_file() || shell::find("cargo-zigbuild").is_some()
}

pub fn has_venv() -> bool {
    shell::command("python3")
        .args(["-c", "import venv, ensurepip"])
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn install_zigbuild() -> Result<()> {
    let venv = shell::tools_directory().join("venv");
    shell::run(shell::command("python3").args(["-m", "venv"]).arg(&venv))?;
    shell::run(shell::command(venv.join("bin/pip")).args([
        "install",
        "--quiet",
        "-r",
        "cross/requirements.txt",
    ]))
}

/// Not optimised: it is built once and runs for a second.
fn install_cargo_deny() -> Result<()> {
    shell::run(
        shell::cargo()
            .args([
                "install",
                "--locked",
                "--debug",
                "--version",
                CARGO_DENY,
                "--root",
            ])
            .arg(shell::tools_directory())
            .arg("cargo-deny"),
    )
}

/// Whether the toolchain in `PATH` has the standard library of both targets.
pub fn has_rustup_targets() -> bool {
    let Ok(sysroot) = shell::output(shell::command("rustc").args(["--print", "sysroot"])) else {
        return false;
    };
    ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"]
        .iter()
        .all(|target| {
            Path::new(sysroot.trim())
                .join("lib/rustlib")
                .join(target)
                .join("lib")
                .is_dir()
        })
}

/// Whether the distribution's own compiler is here with the source of its standard library.
pub fn has_distribution_rust() -> bool {
    Path::new("/usr/bin/cargo").is_file()
        && Path::new("/usr/bin/rustc").is_file()
        && Path::new("/usr/lib/rustlib/src/rust/library/std/Cargo.toml").is_file()
}
