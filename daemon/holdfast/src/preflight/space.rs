//! Whether the disk has room for what the document unpacks. What is fetched is here already.

use super::refused;
use crate::codes;
use holdfast_core::{failure::Failure, reconcile::DocumentRef};
use holdfast_protocol::Digest;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Room that an archive of images takes once it is imported, in multiples of its size: containerd keeps the layers as they come and unpacked,
/// and layers are about half as large compressed.
const UNPACKED: u64 = 3;
/// Room that is left free for everything else, in bytes: logs, and what pods write.
const SPARE: u64 = 64 * 1024 * 1024;

/// Checks the room on the file system of `data_dir`.
pub(super) fn check(
    data_dir: &Path,
    document: &DocumentRef,
    unpacked: &BTreeSet<Digest>,
    changes_kubernetes: bool,
) -> Result<(), Box<Failure>> {
    let archives: u64 = document
        .artifacts
        .iter()
        .filter(|artifact| !unpacked.contains(&artifact.digest))
        .map(|artifact| artifact.size)
        .sum();
    // A snapshot of the datastore is kept for the way back.
    let snapshot = if changes_kubernetes {
        datastore(data_dir)
    } else {
        0
    };
    let needed = archives.saturating_mul(UNPACKED).saturating_add(snapshot);
    if needed == 0 {
        return Ok(());
    }
    let Some((place, free)) = free(data_dir) else {
        return Ok(());
    };
    let needed = needed.saturating_add(SPARE);
    if free >= needed {
        return Ok(());
    }
    Err(Box::new(refused(
        codes::SPACE_INSUFFICIENT,
        format!(
            "document {} needs {} MiB in {}, and {} MiB are free",
            document.generation,
            needed.div_ceil(1 << 20),
            place.display(),
            free >> 20
        ),
        "make room on the box, or use smaller images; then publish the release again",
    )))
}

/// Bytes of the SQLite datastore with its log.
fn datastore(data_dir: &Path) -> u64 {
    fs::read_dir(data_dir.join("server/db"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}

/// Free bytes where `path` is or will be.
fn free(path: &Path) -> Option<(PathBuf, u64)> {
    let place = path.ancestors().find(|place| place.exists())?;
    let found = nix::sys::statvfs::statvfs(place).ok()?;
    let free = found.blocks_available().saturating_mul(found.fragment_size());
    Some((place.to_owned(), free))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::{
        Generation,
        document::{Artifact, DriftPolicy, FailurePolicy},
    };
    use serde_json::Map;

    fn document(size: u64) -> DocumentRef {
        DocumentRef {
            generation: Generation { epoch: 1, counter: 1 },
            digest: Digest::of(b"document"),
            blobs: Vec::new(),
            ready_deadline_seconds: 600,
            drift: DriftPolicy::Correct,
            stability_seconds: 0,
            on_failure: FailurePolicy::RollBack,
            artifacts: vec![Artifact {
                digest: Digest::of(b"archive"),
                size,
                name: "images".into(),
                sources: Vec::new(),
                extra: Map::new(),
            }],
            isolated: BTreeSet::new(),
            os: None,
        }
    }

    #[test]
    fn images_that_do_not_fit_are_refused_before_anything_is_touched() {
        let directory = Path::new("/tmp/not/there/yet");
        let huge = document(u64::MAX / 8);
        let failure = check(directory, &huge, &BTreeSet::new(), false).unwrap_err();
        assert_eq!(failure.problem.code, codes::SPACE_INSUFFICIENT);
        assert!(!failure.retryable);
        let unpacked = BTreeSet::from([Digest::of(b"archive")]);
        assert_eq!(check(directory, &huge, &unpacked, false), Ok(()));
        assert_eq!(check(directory, &document(1), &BTreeSet::new(), true), Ok(()));
    }
}
