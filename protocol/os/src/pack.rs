//! Making a pack: every different chunk of an image once, each a zstd frame of its own, one behind the other.
//!
//! In: the three files of an image. Out: the pack and the manifest that says where in it each chunk is. It guarantees that the same files
//! give the same pack and manifest, byte for byte, and that no more than a chunk of them is in memory.

use crate::{Architecture, Chunk, Cutter, Manifest, OsError, Part};
use holdfast_protocol::{Digest, SchemaVersion, document::Artifact};
use ring::digest::{Context, SHA256};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};
use zstd::bulk::Compressor;

/// Level of compression. Most of an image is compressed already; higher levels cost minutes and save less than a hundredth.
const LEVEL: i32 = 12;

/// An image as its build left it.
#[derive(Clone, Debug)]
pub struct Files<'a> {
    /// Its version, `IMAGE_VERSION` of its `os-release`.
    pub version: &'a str,
    /// What it runs on.
    pub architecture: Architecture,
    /// Root hash of dm-verity over the file system: 64 lower-case hex digits.
    pub usr_hash: &'a str,
    /// The file system `/usr`.
    pub usr: &'a Path,
    /// Its hash tree.
    pub verity: &'a Path,
    /// The unified kernel image.
    pub uki: &'a Path,
}

/// Why no pack was made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// What was made breaks a limit.
    #[error(transparent)]
    Image(#[from] OsError),
}

/// Writes the pack of an image to `out` (a file that is replaced), and returns its manifest, unsigned: see [`crate::sign`]. The pack in
/// it has no sources and is named after `out`.
///
/// # Errors
/// [`PackError`]; `out` is of no use then.
pub fn pack(files: &Files<'_>, out: &Path) -> Result<Manifest, PackError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| PackError::File { path, error }
    };
    let mut writer = Writer {
        file: BufWriter::new(File::create(out).map_err(at(out))?),
        digest: Context::new(&SHA256),
        size: 0,
        compressor: Compressor::new(LEVEL).map_err(at(out))?,
        known: HashMap::new(),
    };
    let mut part = |path: &Path| -> Result<Part, PackError> {
        let mut part = Part {
            size: 0,
            chunks: Vec::new(),
        };
        for cut in Cutter::new(File::open(path).map_err(at(path))?) {
            let cut = cut.map_err(at(path))?;
            part.size += cut.data.len() as u64;
            part.chunks.push(writer.put(&cut.data).map_err(at(out))?);
        }
        Ok(part)
    };
    // The kernel image is what a box fetches first: of a server without ranges it then reads no further than to its end.
    let (uki, usr, verity) = (part(files.uki)?, part(files.usr)?, part(files.verity)?);
    let (digest, size) = writer.finish().map_err(at(out))?;
    let manifest = Manifest {
        schema: SchemaVersion::CURRENT,
        version: files.version.to_owned(),
        architecture: files.architecture,
        usr_hash: files.usr_hash.to_owned(),
        pack: Artifact {
            digest,
            size,
            name: out
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            sources: Vec::new(),
            extra: serde_json::Map::new(),
        },
        usr,
        verity,
        uki,
    };
    manifest.validate()?;
    Ok(manifest)
}

struct Writer {
    file: BufWriter<File>,
    digest: Context,
    size: u64,
    compressor: Compressor<'static>,
    known: HashMap<Digest, Chunk>,
}

impl Writer {
    fn put(&mut self, content: &[u8]) -> io::Result<Chunk> {
        let digest = Digest::of(content);
        if let Some(chunk) = self.known.get(&digest) {
            return Ok(*chunk);
        }
        let frame = self.compressor.compress(content)?;
        self.file.write_all(&frame)?;
        self.digest.update(&frame);
        let chunk = Chunk {
            digest,
            size: content.len() as u32,
            offset: self.size,
            length: frame.len() as u32,
        };
        self.size += frame.len() as u64;
        self.known.insert(digest, chunk);
        Ok(chunk)
    }

    fn finish(self) -> io::Result<(Digest, u64)> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.digest.finish().as_ref());
        Ok((Digest::from_bytes(bytes), self.size))
    }
}
