//! The few values that must outlive the database: `floor.json`.
//!
//! In: the highest accepted generation, upper bounds of sequences. Out: the same after the database was lost.
//! Guarantees: written atomically; a damaged file is noticed by its digest and never believed.

use crate::{StoreError, fs};
use holdfast_protocol::{Digest, Generation};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Sequences are reserved in blocks of this many, so that a message costs no write.
pub(crate) const SEQUENCE_BLOCK: u64 = 1_000;

/// The content of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Floor {
    /// The highest accepted generation and its digest.
    pub(crate) highest: Option<(Generation, Digest)>,
    /// No event has a higher sequence.
    pub(crate) event_sequence_bound: u64,
    /// No status report has a higher sequence.
    pub(crate) status_sequence_bound: u64,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    floor: Floor,
    /// Digest of the floor's compact JSON: tells a damaged file, not a forged one.
    digest: Digest,
}

/// As it was before: with a time that nothing read.
#[derive(Serialize, Deserialize)]
struct FloorWithTime {
    #[serde(flatten)]
    floor: Floor,
    time: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct SealedWithTime {
    floor: FloorWithTime,
    digest: Digest,
}

fn digest_of(floor: &impl Serialize) -> Digest {
    Digest::of(serde_json::to_string(floor).unwrap_or_default().as_bytes())
}

/// The content of the file, where it fits its digest.
fn unsealed(bytes: &[u8]) -> Option<Floor> {
    let now = serde_json::from_slice::<Sealed>(bytes)
        .ok()
        .filter(|sealed| digest_of(&sealed.floor) == sealed.digest)
        .map(|sealed| sealed.floor);
    now.or_else(|| {
        let before = serde_json::from_slice::<SealedWithTime>(bytes).ok()?;
        (digest_of(&before.floor) == before.digest).then_some(before.floor.floor)
    })
}

impl Floor {
    /// Reads the file; nothing where it is missing or damaged (the second is told).
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, StoreError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::from_io(path, &error)),
        };
        let floor = unsealed(&bytes);
        if floor.is_none() {
            tracing::warn!(path = %path.display(), "the floor file is damaged; it is made anew from the database");
        }
        Ok(floor)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), StoreError> {
        let sealed = Sealed {
            floor: *self,
            digest: digest_of(self),
        };
        let json = serde_json::to_vec(&sealed).unwrap_or_default();
        fs::write_atomic(path, &json, fs::PRIVATE_FILE)
    }

    /// The higher of both in each value.
    pub(crate) fn merged(self, other: Self) -> Self {
        Self {
            highest: self.highest.max(other.highest),
            event_sequence_bound: self.event_sequence_bound.max(other.event_sequence_bound),
            status_sequence_bound: self.status_sequence_bound.max(other.status_sequence_bound),
        }
    }
}
