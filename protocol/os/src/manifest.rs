//! What an image is made of.
//!
//! In: the payload of a manifest. Out: a [`Manifest`] within all limits. It guarantees that every chunk lies within its pack and that the
//! sizes fit together, so that whoever follows a manifest writes no byte outside the part it is for.

use crate::{MAX_CHUNK_BYTES, OsError, Part};
use holdfast_protocol::{
    Digest, SchemaVersion,
    document::{Artifact, MAX_ARTIFACT_BYTES, MAX_OS_VERSION_BYTES, is_os_version},
};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, fmt};

/// The largest file system of an image, in bytes (4 GiB).
pub const MAX_USR_BYTES: u64 = 4 << 30;
/// The largest hash tree, in bytes: 1 % of the largest file system is more than SHA-256 over blocks of 4 KiB needs (0.8 %).
pub const MAX_VERITY_BYTES: u64 = MAX_USR_BYTES / 100;
/// The largest kernel image, in bytes (256 MiB): three of them must fit an ESP.
pub const MAX_UKI_BYTES: u64 = 256 << 20;
/// The most chunks of a part. What a box must keep of them in memory is 48 bytes each.
pub const MAX_CHUNKS: usize = 100_000;
/// The largest zstd frame of a chunk, in bytes: what cannot be compressed is stored, with a head.
pub const MAX_FRAME_BYTES: usize = MAX_CHUNK_BYTES + 1024;
/// Sizes of the file system and its hash tree are multiples of this, in bytes: the block size of dm-verity.
const BLOCK: u64 = 4096;

/// Processors that images exist for, named as k3s names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// x86_64.
    Amd64,
    /// aarch64.
    Arm64,
}

impl Architecture {
    /// That of this program; none where no images exist for it.
    pub const fn current() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::Amd64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Arm64)
        } else {
            None
        }
    }

    /// All of them.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// An image of the operating system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Version of this form.
    pub schema: SchemaVersion,
    /// Version of the image, `IMAGE_VERSION` of its `os-release`.
    pub version: String,
    /// What it runs on.
    pub architecture: Architecture,
    /// Root hash of dm-verity over the file system: 64 lower-case hex digits. Its halves are the PARTUUIDs of the two partitions.
    pub usr_hash: String,
    /// The blob that holds the frames of all chunks.
    pub pack: Artifact,
    /// The file system `/usr`.
    pub usr: Part,
    /// Its hash tree.
    pub verity: Part,
    /// The unified kernel image.
    pub uki: Part,
}

impl Manifest {
    /// Reads a manifest from the payload of its envelope, and checks it.
    pub fn from_payload(payload: &[u8]) -> Result<Self, OsError> {
        let manifest: Self = serde_json::from_slice(payload).map_err(|error| OsError::Malformed {
            reason: error.to_string(),
        })?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// Its three parts, with their names.
    pub fn parts(&self) -> [(&'static str, &Part); 3] {
        [("usr", &self.usr), ("verity", &self.verity), ("uki", &self.uki)]
    }

    /// Checks every limit and that everything fits together.
    pub fn validate(&self) -> Result<(), OsError> {
        self.schema.check_supported()?;
        if !is_os_version(&self.version) {
            return Err(OsError::invalid(
                "version",
                format!(
                    "must be letters, digits, '.', '-', '~' and '^', at most {MAX_OS_VERSION_BYTES} bytes, and begin with a letter or a digit"
                ),
            ));
        }
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if self.usr_hash.len() != 64 || !self.usr_hash.bytes().all(is_hex) {
            return Err(OsError::invalid("usrHash", "must be 64 lower-case hex digits"));
        }
        if self.pack.size == 0 || self.pack.size > MAX_ARTIFACT_BYTES {
            return Err(OsError::invalid(
                "pack.size",
                format!("must be 1 to {MAX_ARTIFACT_BYTES} bytes"),
            ));
        }
        let mut sizes = HashMap::new();
        for (name, part) in self.parts() {
            self.validate_part(name, part, &mut sizes)?;
        }
        Ok(())
    }

    fn validate_part(
        &self,
        name: &str,
        part: &Part,
        sizes: &mut HashMap<Digest, u32>,
    ) -> Result<(), OsError> {
        let (max, block) = match name {
            "usr" => (MAX_USR_BYTES, BLOCK),
            "verity" => (MAX_VERITY_BYTES, BLOCK),
            _ => (MAX_UKI_BYTES, 1),
        };
        if part.size == 0 || part.size > max || !part.size.is_multiple_of(block) {
            return Err(OsError::invalid(
                format!("{name}.size"),
                format!(
                    "is {}; it must be a multiple of {block}, at most {max} bytes",
                    part.size
                ),
            ));
        }
        if part.chunks.len() > MAX_CHUNKS {
            return Err(OsError::invalid(
                format!("{name}.chunks"),
                format!("are {}; at most {MAX_CHUNKS} are accepted", part.chunks.len()),
            ));
        }
        let mut sum = 0_u64;
        for (index, chunk) in part.chunks.iter().enumerate() {
            let wrong = |reason: String| OsError::invalid(format!("{name}.chunks[{index}]"), reason);
            if chunk.size == 0 || chunk.size as usize > MAX_CHUNK_BYTES {
                return Err(wrong(format!(
                    "has {} bytes; a chunk has 1 to {MAX_CHUNK_BYTES}",
                    chunk.size
                )));
            }
            if chunk.length == 0 || chunk.length as usize > MAX_FRAME_BYTES {
                return Err(wrong(format!(
                    "has a frame of {} bytes; it must have 1 to {MAX_FRAME_BYTES}",
                    chunk.length
                )));
            }
            if chunk.end() > self.pack.size {
                return Err(wrong(format!(
                    "has its frame at bytes {} to {} of a pack of {}",
                    chunk.offset,
                    chunk.end(),
                    self.pack.size
                )));
            }
            if *sizes.entry(chunk.digest).or_insert(chunk.size) != chunk.size {
                return Err(wrong(format!(
                    "has the digest of an earlier one and another size: {}",
                    chunk.digest
                )));
            }
            sum += u64::from(chunk.size);
        }
        if sum != part.size {
            return Err(OsError::invalid(
                format!("{name}.chunks"),
                format!("have {sum} bytes together; the size is {}", part.size),
            ));
        }
        Ok(())
    }
}
