//! Blobs by content.
//!
//! In: bytes as they stream, and the digest they must have. Out: whole blobs, verified. Guarantees: a blob under its name is complete
//! and has that digest; a fetch that was cut off goes on where it stopped; a read verifies once more, so a disk that
//! lies has no effect.

use crate::{StoreError, codes, fs};
use holdfast_protocol::{Digest, Problem, codes as protocol_codes};
use ring::digest::{Context, SHA256};
use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Bytes read from the disk at once.
const READ_BYTES: usize = 64 * 1024;

/// The directory of blobs.
#[derive(Clone, Debug)]
pub struct Blobs {
    whole: PathBuf,
    partial: PathBuf,
}

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The content is not what its name says. What was there of it is deleted.
    #[error("blob {expected} has the content of {found}")]
    DigestMismatch {
        /// Digest that the document names.
        expected: Digest,
        /// Digest that the content has.
        found: Digest,
    },
    /// The content is longer or shorter than the document says.
    #[error("blob {digest} has {found} bytes; the document says {expected}")]
    SizeMismatch {
        /// Digest that the document names.
        digest: Digest,
        /// Bytes that the document names.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// There is no such blob here.
    #[error("blob {digest} is not in the store")]
    Missing {
        /// Its digest.
        digest: Digest,
    },
}

impl BlobError {
    /// The same in the form that is shown and reported.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Store(error) => error.problem(),
            Self::DigestMismatch { .. } => Problem::new(
                protocol_codes::BLOB_DIGEST_MISMATCH,
                self.to_string(),
                "it is fetched again; if it recurs, upload the blob to the hub again",
            ),
            Self::SizeMismatch { .. } => Problem::new(
                codes::BLOB_SIZE_MISMATCH,
                self.to_string(),
                "it is fetched again; if it recurs, publish the release again",
            ),
            Self::Missing { .. } => Problem::new(
                protocol_codes::BLOB_UNKNOWN,
                self.to_string(),
                "it is fetched as soon as there is a link",
            ),
        }
    }
}

/// What garbage collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Number of blobs, those fetched in part included.
    pub blobs: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

impl Blobs {
    /// Opens the blobs below a state directory, and makes their directories.
    pub fn open(state_directory: &Path) -> Result<Self, StoreError> {
        let directory = state_directory.join("store").join("blobs");
        let blobs = Self {
            whole: directory.join("sha256"),
            partial: directory.join("partial"),
        };
        fs::create_private_directory(&blobs.whole)?;
        fs::create_private_directory(&blobs.partial)?;
        Ok(blobs)
    }

    /// Where the blob is, or would be.
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.whole.join(digest.hex())
    }

    /// Whether the blob is here in whole. Its content is verified when it is read.
    pub fn contains(&self, digest: Digest, size: u64) -> bool {
        std::fs::metadata(self.path(digest)).is_ok_and(|metadata| metadata.len() == size)
    }

    /// The content of a blob, verified. A damaged one is deleted, so that it is fetched again.
    pub fn read(&self, digest: Digest) -> Result<Vec<u8>, BlobError> {
        let path = self.path(digest);
        let content = match std::fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(BlobError::Missing { digest });
            }
            Err(error) => return Err(StoreError::from_io(&path, &error).into()),
        };
        let found = Digest::of(&content);
        if found != digest {
            fs::remove(&path)?;
            return Err(BlobError::DigestMismatch {
                expected: digest,
                found,
            });
        }
        Ok(content)
    }

    /// Opens a blob, verified, to read it piece by piece. A damaged one is deleted, so that it is fetched again.
    pub fn open_verified(&self, digest: Digest) -> Result<File, BlobError> {
        let path = self.path(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(BlobError::Missing { digest });
            }
            Err(error) => return Err(StoreError::from_io(&path, &error).into()),
        };
        let (found, _) = Digest::of_reader(&mut file).map_err(|error| StoreError::from_io(&path, &error))?;
        if found != digest {
            fs::remove(&path)?;
            return Err(BlobError::DigestMismatch {
                expected: digest,
                found,
            });
        }
        file.seek(SeekFrom::Start(0))
            .map_err(|error| StoreError::from_io(&path, &error))?;
        Ok(file)
    }

    /// Takes a file that is on this box already for the blob, after it was verified: as a hard link, or as a symbolic link where it is on another
    /// file system. Its bytes are not copied.
    ///
    /// # Errors
    /// `Missing` where there is no such file, a mismatch where it is another content; the file itself is left alone.
    pub fn adopt(&self, digest: Digest, size: u64, source: &Path) -> Result<(), BlobError> {
        let failed = |error: &std::io::Error| StoreError::from_io(source, error);
        let mut file = match File::open(source) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(BlobError::Missing { digest });
            }
            Err(error) => return Err(failed(&error).into()),
        };
        let (found, found_size) = Digest::of_reader(&mut file).map_err(|error| failed(&error))?;
        if found_size != size {
            return Err(BlobError::SizeMismatch {
                digest,
                expected: size,
                found: found_size,
            });
        }
        if found != digest {
            return Err(BlobError::DigestMismatch {
                expected: digest,
                found,
            });
        }
        let target = self.path(digest);
        fs::remove(&target)?;
        if std::fs::hard_link(source, &target).is_err() {
            std::os::unix::fs::symlink(source, &target)
                .map_err(|error| StoreError::from_io(&target, &error))?;
        }
        fs::remove(&self.partial.join(digest.hex()))?;
        Ok(fs::sync_directory_of(&target)?)
    }

    /// Drops what was fetched of a blob that is not whole.
    pub fn drop_partial(&self, digest: Digest) -> Result<(), StoreError> {
        fs::remove(&self.partial.join(digest.hex()))
    }

    /// Begins to write a blob, or goes on with one that was cut off: see [`BlobWriter::offset`]. One writer per blob at a time.
    ///
    /// # Errors
    /// `DiskFull` at once where the rest of the blob would not fit.
    pub fn writer(&self, digest: Digest, size: u64) -> Result<BlobWriter, StoreError> {
        let path = self.partial.join(digest.hex());
        let failed = |error: &std::io::Error| StoreError::from_io(&path, error);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(fs::PRIVATE_FILE)
            .open(&path)
            .map_err(|error| failed(&error))?;
        let (mut context, mut offset) = hash(&mut file).map_err(|error| failed(&error))?;
        if offset > size {
            file.set_len(0).map_err(|error| failed(&error))?;
            context = Context::new(&SHA256);
            offset = 0;
        }
        if let Ok(stat) = nix::sys::statvfs::statvfs(&self.partial) {
            let free = stat.blocks_available().saturating_mul(stat.fragment_size());
            if free < size - offset {
                // What is here of it would only keep the disk full.
                drop(file);
                fs::remove(&path)?;
                return Err(StoreError::DiskFull { path });
            }
        }
        Ok(BlobWriter {
            file,
            unsynced: 0,
            target: self.path(digest),
            path,
            context,
            digest,
            size,
            offset,
        })
    }

    /// Writes a blob whose content is in memory.
    pub fn put(&self, content: &[u8]) -> Result<Digest, BlobError> {
        let digest = Digest::of(content);
        let size = content.len() as u64;
        if !self.contains(digest, size) {
            let mut writer = self.writer(digest, size)?;
            let from = usize::try_from(writer.offset()).unwrap_or(0);
            writer.write(&content[from..])?;
            writer.finish()?;
        }
        Ok(digest)
    }

    /// Deletes all blobs, whole or in part, that are not among `keep`.
    pub fn collect_garbage(&self, keep: &BTreeSet<Digest>) -> Result<Collected, StoreError> {
        let names: BTreeSet<_> = keep.iter().map(Digest::hex).collect();
        let mut collected = Collected::default();
        for directory in [&self.whole, &self.partial] {
            let failed = |error: &std::io::Error| StoreError::from_io(directory, error);
            for entry in std::fs::read_dir(directory).map_err(|error| failed(&error))? {
                let entry = entry.map_err(|error| failed(&error))?;
                if entry
                    .file_name()
                    .to_str()
                    .is_some_and(|name| names.contains(name))
                {
                    continue;
                }
                collected.bytes += entry.metadata().map_or(0, |metadata| metadata.len());
                collected.blobs += 1;
                std::fs::remove_file(entry.path()).map_err(|error| failed(&error))?;
            }
        }
        Ok(collected)
    }
}

/// The digest so far and the size of a file that is written on; where it is whole, see [`Digest::of_reader`].
fn hash(file: &mut File) -> std::io::Result<(Context, u64)> {
    let mut context = Context::new(&SHA256);
    let mut size = 0;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((context, size));
        }
        context.update(&buffer[..count]);
        size += count as u64;
    }
}

fn finish(context: Context) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Digest::from_bytes(bytes)
}

/// A blob that is being written.
pub struct BlobWriter {
    file: File,
    unsynced: u64,
    path: PathBuf,
    target: PathBuf,
    context: Context,
    digest: Digest,
    size: u64,
    offset: u64,
}

impl BlobWriter {
    /// Bytes that are here already: fetch from this offset.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Adds the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let after = self.offset + bytes.len() as u64;
        if after > self.size {
            fs::remove(&self.path)?;
            return Err(BlobError::SizeMismatch {
                digest: self.digest,
                expected: self.size,
                found: after,
            });
        }
        if let Err(error) = self.file.write_all(bytes) {
            let error = StoreError::from_io(&self.path, &error);
            if matches!(error, StoreError::DiskFull { .. }) {
                // What is here of it would only keep the disk full.
                fs::remove(&self.path)?;
            }
            return Err(error.into());
        }
        self.context.update(bytes);
        self.offset = after;
        self.unsynced += bytes.len() as u64;
        Ok(())
    }

    /// Bytes written since the last [`Self::sync`].
    pub const fn unsynced(&self) -> u64 {
        self.unsynced
    }

    /// Work that has the disk take what was written, so that the end of a large blob does not have to wait for all of it. It may take long;
    /// the writer may go on meanwhile.
    pub fn sync(&mut self) -> Result<impl FnOnce() -> Result<(), StoreError> + Send + use<>, StoreError> {
        self.unsynced = 0;
        let path = self.path.clone();
        let file = self
            .file
            .try_clone()
            .map_err(|error| StoreError::from_io(&path, &error))?;
        Ok(move || {
            file.sync_data().map_err(|error| {
                let error = StoreError::from_io(&path, &error);
                if matches!(error, StoreError::DiskFull { .. }) {
                    // The first error matters more than this one.
                    let _ = fs::remove(&path);
                }
                error
            })
        })
    }

    /// Drops what is here, to begin anew: where the server cannot go on from an offset.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.file
            .set_len(0)
            .map_err(|error| StoreError::from_io(&self.path, &error))?;
        self.context = Context::new(&SHA256);
        self.offset = 0;
        Ok(())
    }

    /// Verifies the whole and gives it its name. A blob with the wrong digest is deleted; a short one is kept to go on with.
    pub fn finish(self) -> Result<(), BlobError> {
        if self.offset < self.size {
            return Err(BlobError::SizeMismatch {
                digest: self.digest,
                expected: self.size,
                found: self.offset,
            });
        }
        let found = finish(self.context);
        if found != self.digest {
            fs::remove(&self.path)?;
            return Err(BlobError::DigestMismatch {
                expected: self.digest,
                found,
            });
        }
        self.file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, &self.target))
            .map_err(|error| StoreError::from_io(&self.path, &error))?;
        Ok(fs::sync_directory_of(&self.target)?)
    }
}
