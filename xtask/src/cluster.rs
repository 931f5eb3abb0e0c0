//! Which Kubernetes the tests use: a real k3s where one is given, else the one built from `tests/cluster/`.

use crate::shell;
use anyhow::{Result, bail};
use std::{env, path::PathBuf};

/// Builds the test cluster (nothing is done when it is up to date) and gives its path.
pub fn build() -> Result<PathBuf> {
    let path = shell::root().join("target/testcluster/k3s");
    shell::run(shell::command("sh").arg("tests/cluster/build.sh").arg(&path))?;
    Ok(path)
}

/// The k3s to test with: `HOLDFAST_K3S`, else a `k3s` in `PATH`, else the test cluster, built when needed.
pub fn choose() -> Result<PathBuf> {
    if let Some(path) = env::var_os("HOLDFAST_K3S").map(PathBuf::from) {
        if !path.is_file() {
            bail!("HOLDFAST_K3S names {}, which is not a file", path.display());
        }
        return Ok(path);
    }
    match given() {
        Some(path) => Ok(path),
        None => build(),
    }
}

/// Whether a real k3s is given, so that none has to be built.
pub fn is_given() -> bool {
    env::var_os("HOLDFAST_K3S").is_some() || given().is_some()
}

fn given() -> Option<PathBuf> {
    shell::find("k3s")
}
