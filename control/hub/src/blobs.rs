//! Blobs on disk: files named by the SHA-256 of their content, whole or not there.

use crate::files;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use holdfast_protocol::Digest;
use ring::digest::{Context, SHA256};
use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
};

/// Bytes read from the disk at once.
const CHUNK: u64 = 64 * 1024;

/// Where the blobs are.
#[derive(Clone, Debug)]
pub struct BlobFiles {
    directory: PathBuf,
}

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The sender broke off.
    #[error("the upload broke off: {0}")]
    Broken(String),
    /// More than the limit.
    #[error("the blob has more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// There is nothing in it.
    #[error("the blob is empty")]
    Empty,
    /// Other content than the name says.
    #[error("the content has the digest {found}")]
    Digest {
        /// What came.
        found: Digest,
    },
    /// The piece of an upload does not begin where the last one ended.
    #[error("{received} bytes are here, and the piece does not begin there")]
    Place {
        /// Bytes that are here.
        received: u64,
    },
    /// The disk failed.
    #[error("the blob cannot be written: {0}")]
    Disk(#[from] io::Error),
}

impl BlobFiles {
    /// The blobs below a data directory.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            directory: data_dir.join("blobs").join("sha256"),
        }
    }

    /// Where they are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }

    /// Makes the directory, and removes what broken uploads left, but for those that can go on.
    pub fn prepare(&self) -> io::Result<()> {
        files::private_directory(&self.directory)?;
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                std::fs::remove_file(path)?;
            }
        }
        self.remove_forgotten()
    }

    /// Removes a blob; one that is not there is as good.
    pub async fn remove(&self, digest: &Digest) -> io::Result<()> {
        match tokio::fs::remove_file(self.path(digest)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the file of a blob is there and has so many bytes. What is in it was looked at when it came.
    pub async fn holds(&self, digest: &Digest, size: u64) -> bool {
        // One that cannot even be looked at is of no use to anybody; to write it again tells what is wrong with the disk.
        let found = tokio::fs::metadata(self.path(digest)).await;
        found.is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// Reads a blob whole.
    pub async fn read(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        tokio::fs::read(self.path(digest)).await
    }

    /// Stores what comes, if it has the digest; gives its size in bytes. Inside a writing transaction, or nobody may remove it meanwhile.
    pub async fn store<S, E>(&self, digest: &Digest, limit: u64, content: S) -> Result<u64, UploadError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: std::fmt::Display,
    {
        self.receive(digest, limit, content).await?.place().await
    }

    /// Takes what comes, if it has the digest. It has no name yet: see [`Received::place`].
    pub async fn receive<S, E>(
        &self,
        digest: &Digest,
        limit: u64,
        content: S,
    ) -> Result<Received, UploadError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: std::fmt::Display,
    {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut received = Received {
            part: self.directory.join(format!("{}.{number}.part", digest.hex())),
            path: self.path(digest),
            size: 0,
        };
        let mut file = File::create_new(&received.part).await?;
        let mut hash = Context::new(&SHA256);
        let mut content = pin!(content);
        while let Some(chunk) = content.next().await {
            let chunk = chunk.map_err(|error| UploadError::Broken(error.to_string()))?;
            received.size += chunk.len() as u64;
            if received.size > limit {
                return Err(UploadError::TooLarge { limit });
            }
            hash.update(&chunk);
            file.write_all(&chunk).await?;
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.finish().as_ref());
        let found = Digest::from_bytes(bytes);
        if found != *digest {
            return Err(UploadError::Digest { found });
        }
        // No document may name such a blob: this is a file that was never filled.
        if received.size == 0 {
            return Err(UploadError::Empty);
        }
        file.flush().await?;
        file.sync_all().await?;
        Ok(received)
    }

    /// Streams `length` bytes of a blob from `start` on.
    pub async fn stream(
        &self,
        digest: &Digest,
        start: u64,
        length: u64,
    ) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
        let mut file = File::open(self.path(digest)).await?;
        file.seek(SeekFrom::Start(start)).await?;
        Ok(stream::try_unfold(
            (file, length),
            |(mut file, left)| async move {
                if left == 0 {
                    return Ok(None);
                }
                let mut chunk = vec![0; left.min(CHUNK) as usize];
                let read = file.read(&mut chunk).await?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                chunk.truncate(read);
                Ok(Some((Bytes::from(chunk), (file, left - read as u64))))
            },
        ))
    }
}

/// A blob that came whole and has no name yet; dropped, it is gone.
#[derive(Debug)]
pub struct Received {
    /// The file, as it is called until then.
    pub(crate) part: PathBuf,
    /// What it will be called.
    pub(crate) path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

impl Received {
    /// Gives it its name. To be called inside the writing transaction that makes it known, so that no removal comes in between.
    pub async fn place(self) -> Result<u64, UploadError> {
        tokio::fs::rename(&self.part, &self.path).await?;
        if let Some(directory) = self.path.parent() {
            File::open(directory).await?.sync_all().await?;
        }
        Ok(self.size)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // After it was placed there is none; what stays for another reason is removed on the next start.
        let _ = std::fs::remove_file(&self.part);
    }
}
