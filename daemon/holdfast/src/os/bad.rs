//! Memory of images that were tried and did not come up, by the digest of their manifest.
//!
//! It survives everything but a factory reset, is bounded, and is written in whole or not at all.

use super::error::Fault;
use holdfast_protocol::{Digest, Problem};
use holdfast_store::fs::{PUBLIC_FILE, create_private_directory, write_atomic};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// The most images that are remembered; the oldest go first. One that is forgotten would be tried once more.
const MAX_REMEMBERED: usize = 32;

/// An image that did not come up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bad {
    /// Digest of its manifest, as documents name it.
    pub digest: Digest,
    /// Its version.
    pub version: String,
    /// What was wrong.
    pub problem: Problem,
}

fn file(state: &Path) -> PathBuf {
    state.join("bad.json")
}

/// All that are remembered, the oldest first.
pub fn read(state: &Path) -> Result<Vec<Bad>, Fault> {
    let path = file(state);
    match fs::read(&path) {
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_else(|error| {
            // One more try of a bad version costs three restarts; refusing all versions for ever costs a visit.
            tracing::warn!(%error, path = %path.display(), "the memory of bad images is damaged and begins anew");
            Vec::new()
        })),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Fault::at(&path)(error)),
    }
}

/// Remembers one more; one that is known keeps what was said of it first.
pub fn remember(state: &Path, bad: Bad) -> Result<(), Fault> {
    let mut known = read(state)?;
    if known.iter().any(|other| other.digest == bad.digest) {
        return Ok(());
    }
    known.push(bad);
    let excess = known.len().saturating_sub(MAX_REMEMBERED);
    known.drain(..excess);
    create_private_directory(state)?;
    let text = serde_json::to_vec(&known).map_err(|error| Fault::Internal(error.to_string()))?;
    Ok(write_atomic(&file(state), &text, PUBLIC_FILE)?)
}
