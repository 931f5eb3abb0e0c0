//! Runs other programs in the repository's root: prints each command line, turns a failure into an error that names it.

use anyhow::{Context as _, Result, bail};
use std::{
    env,
    ffi::OsStr,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// A path as the caller's shell means it. Programs that [`command`] starts run in the root, where a relative path leads elsewhere.
pub fn given(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Where cargo builds: `CARGO_TARGET_DIR`, else `target` in the root.
pub fn target_directory() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Where tools are installed that no distribution packages: `HOLDFAST_TOOLS`, else `target/tools`.
pub fn tools_directory() -> PathBuf {
    root().join(env::var_os("HOLDFAST_TOOLS").unwrap_or_else(|| "target/tools".into()))
}

/// A command that starts in the repository's root and finds our own tools last in `PATH`. What the cargo that runs us says of our own package is
/// taken away: a cargo that is started would take it for a change, and build again all that depends on such a variable.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).env("PATH", search_path());
    for (name, _) in env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|of_package| name.as_encoded_bytes().starts_with(of_package.as_bytes()))
        {
            command.env_remove(name);
        }
    }
    command
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A Go of our own (it is there only where the system's is too old), `PATH`, where root's programs and Go are usually found,
/// our other tools.
fn search_path() -> std::ffi::OsString {
    let given = env::var_os("PATH").unwrap_or_default();
    let tools = tools_directory();
    let more = ["/usr/sbin", "/usr/local/go/bin"]
        .map(PathBuf::from)
        .into_iter()
        .chain(["bin", "venv/bin"].map(|directory| tools.join(directory)));
    let directories = std::iter::once(tools.join("go/bin"))
        .chain(env::split_paths(&given))
        .chain(more);
    // A directory with a colon in its name cannot be in PATH at all.
    env::join_paths(directories).unwrap_or(given)
}

/// The program's path, if it can be found as [`command`] finds it.
pub fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path())
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Runs the command to its end; anything but success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let line = display(command);
    eprintln!("+ {line}");
    let status = command
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Runs the command quietly and gives what it wrote on standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let line = display(command);
    String::from_utf8(bytes(command)?).with_context(|| format!("`{line}` wrote something that is not UTF-8"))
}

/// As [`output`], for what is not text.
pub fn bytes(command: &mut Command) -> Result<Vec<u8>> {
    let line = display(command);
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}", output.status);
    }
    Ok(output.stdout)
}

fn display(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(line, " {}", argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_our_own_package_reaches_a_cargo_that_we_start() {
        // Tests are run by a cargo that sets them.
        assert!(
            env::var_os("CARGO_PKG_NAME").is_some(),
            "the test is to be run by cargo"
        );
        let seen = output(&mut command("env")).unwrap();
        for name in ["CARGO_PKG_", "CARGO_MANIFEST_"] {
            assert!(!seen.lines().any(|line| line.starts_with(name)), "{seen}");
        }
    }
}
