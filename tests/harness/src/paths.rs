//! Where the built binaries, the repository and the Kubernetes for tests are.

use anyhow::{Context as _, Result, bail};
use std::{
    env,
    path::{Path, PathBuf},
};

/// The repository's root.
pub fn repository() -> PathBuf {
    // tests/harness → the root is two levels up.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// A binary of this workspace: from `HOLDFAST_BIN_DIR`, or built beside the running executable.
pub fn binary(name: &str) -> Result<PathBuf> {
    if let Some(directory) = env::var_os("HOLDFAST_BIN_DIR") {
        let path = Path::new(&directory).join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    let executable = env::current_exe().context("where this program is")?;
    executable
        .ancestors()
        .skip(1)
        .take(3)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("{name} is not built: run `cargo build --bins`, or `cargo xtask test`, which does it")
        })
}

/// The k3s to use: `HOLDFAST_K3S`, else `k3s` in `PATH`, else the test cluster that `cargo xtask cluster` builds.
pub fn k3s() -> Result<PathBuf> {
    if let Some(path) = env::var_os("HOLDFAST_K3S") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("HOLDFAST_K3S names {}, which is not a file", path.display());
        }
        return Ok(path);
    }
    let in_path = env::var_os("PATH").and_then(|path| {
        env::split_paths(&path)
            .map(|directory| directory.join("k3s"))
            .find(|path| path.is_file())
    });
    let built = repository().join("target/testcluster/k3s");
    in_path
        .or_else(|| built.is_file().then_some(built))
        .context("no Kubernetes for tests: run `cargo xtask cluster`, or name a k3s in HOLDFAST_K3S")
}
