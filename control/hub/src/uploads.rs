//! Uploads of blobs that go on where they were cut, as those of a registry do.
//!
//! In: pieces of a blob, in order, each with its place. Out: the blob, once it is whole and has its digest. Guarantees: what came is kept on the disk, a
//! killed hub or a cut link costs no byte of it; what is not what its name says never gets the name; of one blob one piece comes at a time.

use crate::blobs::{BlobFiles, Received, UploadError};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use holdfast_protocol::Digest;
use std::{
    collections::BTreeSet,
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncSeekExt as _, AsyncWriteExt as _},
    task::spawn_blocking,
    time::timeout,
};

/// How long a sender may be silent: behind a link that was cut nobody may be there, and who comes again must get its turn.
const SILENCE: Duration = Duration::from_secs(30);
/// An upload that nobody went on with for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3_600);
/// What the names of unfinished uploads end with.
const EXTENSION: &str = "upload";

/// Whose turn it is, by blob.
#[derive(Clone, Debug, Default)]
pub struct Uploads(Arc<Mutex<BTreeSet<Digest>>>);

/// The right to write to one upload; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    uploads: Uploads,
    digest: Digest,
}

impl Uploads {
    /// Takes the turn for a blob; none where another has it.
    pub fn take(&self, digest: Digest) -> Option<Turn> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.insert(digest).then(|| Turn {
            uploads: self.clone(),
            digest,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.digest);
    }
}

/// Where a piece belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first byte.
    pub start: u64,
    /// How many bytes it has.
    pub length: u64,
    /// Bytes of the whole blob.
    pub size: u64,
}

impl Place {
    /// Reads `Content-Range: bytes 0-99/1000`.
    pub fn parse(text: &str) -> Option<Self> {
        let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten()
        };
        let (start, last, size) = (number(first)?, number(last)?, number(size)?);
        (start <= last && last < size).then(|| Self {
            start,
            length: last - start + 1,
            size,
        })
    }
}

/// How far an upload is.
#[derive(Debug)]
pub enum Progress {
    /// So many bytes are here.
    Part(u64),
    /// All of it is here, and it is what its name says.
    Whole(Received),
}

impl BlobFiles {
    fn unfinished(&self, digest: &Digest) -> PathBuf {
        self.path(digest).with_extension(EXTENSION)
    }

    /// How far the upload of a blob of `size` bytes is. What is longer than that was begun with another size, and begins anew.
    pub async fn progress(&self, turn: &Turn, size: u64) -> Result<Progress, UploadError> {
        let part = self.unfinished(&turn.digest);
        let received = match tokio::fs::metadata(&part).await {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
        if received > size {
            tokio::fs::remove_file(&part).await?;
            return Ok(Progress::Part(0));
        }
        if received < size {
            return Ok(Progress::Part(received));
        }
        self.finish(turn, part, size).await.map(Progress::Whole)
    }

    /// Takes the piece of a blob that begins where the last one ended.
    pub async fn append<S, E>(&self, turn: &Turn, place: Place, content: S) -> Result<Progress, UploadError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: std::fmt::Display,
    {
        let part = self.unfinished(&turn.digest);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part)
            .await?;
        let received = file.metadata().await?.len();
        if received != place.start {
            return Err(UploadError::Place { received });
        }
        // By its place, not behind the end: should a write of a piece before still be under way, it writes the same bytes.
        file.seek(SeekFrom::Start(place.start)).await?;
        let written = write(&mut file, place.length, content).await;
        if let Err(UploadError::Disk(error)) = &written
            && error.kind() == io::ErrorKind::StorageFull
        {
            // The hub needs the space more than the sender needs what was sent.
            tokio::fs::remove_file(&part).await?;
        }
        written?;
        let end = place.start + place.length;
        if end < place.size {
            return Ok(Progress::Part(end));
        }
        self.finish(turn, part, place.size).await.map(Progress::Whole)
    }

    /// Checks what is all here.
    async fn finish(&self, turn: &Turn, part: PathBuf, size: u64) -> Result<Received, UploadError> {
        let file = part.clone();
        let found = spawn_blocking(move || digest_and_sync(&file))
            .await
            .map_err(io::Error::other)??;
        let received = Received {
            path: self.path(&turn.digest),
            part,
            size,
        };
        if found != turn.digest {
            // Dropped, it is gone: of what is wrong somewhere nothing can be kept.
            return Err(UploadError::Digest { found });
        }
        Ok(received)
    }

    /// Removes uploads that nobody went on with for a day.
    pub fn remove_forgotten(&self) -> io::Result<()> {
        let now = SystemTime::now();
        for entry in std::fs::read_dir(self.directory())? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let age = std::fs::metadata(&path)
                .and_then(|found| found.modified())
                .map(|written| now.duration_since(written).unwrap_or_default());
            match age {
                Ok(age) if age > FORGOTTEN => std::fs::remove_file(&path)?,
                // One that was finished meanwhile is no error.
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes what comes; what came before a cut stays written.
async fn write<S, E>(file: &mut File, length: u64, content: S) -> Result<(), UploadError>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: std::fmt::Display,
{
    let mut left = length;
    let mut content = pin!(content);
    let outcome = loop {
        let chunk = match timeout(SILENCE, content.next()).await {
            Ok(None) => break Ok(()),
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(error))) => break Err(UploadError::Broken(error.to_string())),
            Err(_) => {
                let reason = format!("nothing came for {} seconds", SILENCE.as_secs());
                break Err(UploadError::Broken(reason));
            }
        };
        let Some(rest) = left.checked_sub(chunk.len() as u64) else {
            break Err(UploadError::Broken(format!(
                "more came than the {length} bytes of Content-Range"
            )));
        };
        file.write_all(&chunk).await?;
        left = rest;
    };
    file.flush().await?;
    outcome?;
    match left {
        0 => Ok(()),
        left => Err(UploadError::Broken(format!("{left} bytes are missing"))),
    }
}

fn digest_and_sync(path: &Path) -> io::Result<Digest> {
    let mut file = std::fs::File::open(path)?;
    let (digest, _) = Digest::of_reader(&mut file)?;
    file.sync_all()?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_place_is_one() {
        let place = Place {
            start: 10,
            length: 5,
            size: 20,
        };
        assert_eq!(Place::parse("bytes 10-14/20"), Some(place));
        for bad in [
            "",
            "10-14/20",
            "bytes 10-14",
            "bytes 10-14/*",
            "bytes 14-10/20",
            "bytes 10-20/20",
            "bytes -5/20",
            "bytes +1-2/20",
            "bytes 0-18446744073709551615/18446744073709551616",
        ] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn of_one_blob_one_piece_comes_at_a_time() {
        let uploads = Uploads::default();
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let turn = uploads.take(one);
        assert!(turn.is_some() && uploads.take(one).is_none());
        assert!(uploads.take(other).is_some());
        drop(turn);
        assert!(uploads.take(one).is_some());
    }

    #[test]
    fn an_upload_that_nobody_goes_on_with_is_forgotten_after_a_day() {
        let directory = tempfile::tempdir().unwrap();
        let files = BlobFiles::new(directory.path());
        files.prepare().unwrap();
        let (old, young) = (
            files.unfinished(&Digest::of(b"old")),
            files.unfinished(&Digest::of(b"young")),
        );
        for path in [&old, &young] {
            std::fs::File::create(path).unwrap();
        }
        let long_ago = SystemTime::now() - FORGOTTEN - Duration::from_secs(1);
        let opened = std::fs::File::options().write(true).open(&old).unwrap();
        opened.set_modified(long_ago).unwrap();
        files.prepare().unwrap();
        assert!(!old.exists() && young.exists());
    }
}
