//! Images of the operating system, as they travel: a signed [`Manifest`] of chunks, and a pack that holds the chunks.
//!
//! ```text
//! tools:  usr, verity, kernel image → cut → pack (one blob of zstd frames) + manifest → signed envelope
//! node:   envelope → verified manifest → chunks the box has already (it cuts what it runs) + ranges of the pack → slot
//! ```
//!
//! Both sides cut with [`Cutter`], so a chunk that a new image shares with an old one is found without any stored list.

mod chunk;
pub mod codes;
mod cut;
mod error;
mod manifest;
#[cfg(feature = "pack")]
mod pack;
#[cfg(feature = "samples")]
pub mod samples;
mod signed;
#[cfg(test)]
mod tests;

pub use chunk::{Chunk, Part};
pub use cut::{AVERAGE_CHUNK_BYTES, Cut, Cutter, MAX_CHUNK_BYTES, MIN_CHUNK_BYTES};
pub use error::OsError;
pub use manifest::{
    Architecture, MAX_CHUNKS, MAX_FRAME_BYTES, MAX_UKI_BYTES, MAX_USR_BYTES, MAX_VERITY_BYTES, Manifest,
};
#[cfg(feature = "pack")]
pub use pack::{Files, PackError, pack};
pub use signed::{MANIFEST_TYPE, MAX_MANIFEST_BYTES, SignedManifest, sign};
