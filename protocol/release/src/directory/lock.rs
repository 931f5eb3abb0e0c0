//! `image/k3s.lock`: the binary and the images of one k3s release, by architecture, with their digests.

use super::{files, invalid};
use crate::Result;
use serde_json::{Map, Value};
use std::path::Path;

/// Puts what the lock file pins below what `release.yaml` says of k3s.
pub(super) fn merge(path: &Path, k3s: &mut Map<String, Value>) -> Result<()> {
    let text = files::read(path)?;
    let place = path.display().to_string();
    let lock: Map<String, Value> = serde_json::from_str(&text).map_err(|error| {
        invalid(
            &format!("{place}:{}:{}", error.line(), error.column()),
            &error.to_string(),
            "make it anew: cargo xtask k3s lock VERSION",
        )
    })?;
    for key in ["version", "binaries", "images"] {
        if let Some(value) = lock.get(key) {
            k3s.entry(key).or_insert_with(|| value.clone());
        }
    }
    Ok(())
}
