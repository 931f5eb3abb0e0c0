//! Files become blobs at the hub, in pieces, and go on where they were cut.
//!
//! In: a file with its digest. Out: the blob at the hub. Guarantees: what the hub has is not sent again, whether the link was cut, the hub was killed or
//! this command was; a hub that does not answer any more is waited for, as long as it may have been gone.

use crate::{
    client::Client,
    codes,
    failure::{Failure, Result},
    output,
};
use futures::Stream;
use holdfast_protocol::{
    Digest, codes as shared,
    operator::{BeginUpload, BlobUpload},
};
use reqwest::Method;
use std::{
    io::SeekFrom,
    path::Path,
    time::{Duration, Instant},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    time::sleep,
};

/// Bytes of one request: what a proxy before the hub may have to hold.
const PIECE: u64 = 32 * 1024 * 1024;
/// How long one request may take: what came of it until then is kept.
const PIECE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Bytes of a file that are in memory at once.
const CHUNK: u64 = 128 * 1024;
/// From so many bytes on, an upload is told of as it goes.
const LONG: u64 = 32 * 1024 * 1024;
/// How long a hub that answered once is waited for without a byte more.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// The first and the longest time between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// A file on its way.
struct Upload<'a> {
    client: &'a Client,
    digest: &'a Digest,
    file: &'a Path,
    size: u64,
    name: String,
}

/// Sends a file as a blob, without reading it into memory; what the hub has of it already is not sent again.
pub async fn upload(client: &Client, digest: &Digest, file: &Path, size: u64) -> Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let upload = Upload {
        client,
        digest,
        file,
        size,
        name: output::printable(&name),
    };
    let mut known = upload.begin().await?;
    if known.complete {
        output::note(&format!("{} ({size} bytes) is at the hub already.", upload.name));
        return Ok(());
    }
    output::note(&match known.received {
        0 => format!("Sending {} ({size} bytes) …", upload.name),
        received => format!("Sending {} from byte {received} of {size} on …", upload.name),
    });
    // What was sent before, by whomever, may be what is wrong; what was sent now from the first byte on is the file.
    let mut began_with = known.received;
    let (mut pause, mut moved) = (PAUSES.0, Instant::now());
    while !known.complete {
        let failure = match upload.piece(known.received).await {
            Ok(further) => {
                (known, pause, moved) = (further, PAUSES.0, Instant::now());
                continue;
            }
            Err(failure) if failure.0.code == shared::BLOB_DIGEST_MISMATCH && began_with > 0 => {
                output::note("what the hub had of it was something else; sending all of it …");
                began_with = 0;
                failure
            }
            Err(failure) if is_passing(&failure) && moved.elapsed() < PATIENCE => {
                output::note(&format!("{}; trying again …", failure.0.message));
                sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                failure
            }
            Err(failure) => return Err(failure),
        };
        match upload.begin().await {
            Ok(found) => {
                if found.received > known.received {
                    (pause, moved) = (PAUSES.0, Instant::now());
                }
                known = found;
            }
            // The next piece says it again, or that it goes on.
            Err(again) if is_passing(&again) => {}
            Err(again) => {
                output::note(&failure.0.message);
                return Err(again);
            }
        }
    }
    Ok(())
}

/// Whether it is another answer a little later: the link, the hub's start, another request that still holds the blob, or a place that is not the one.
fn is_passing(failure: &Failure) -> bool {
    [
        codes::HUB_UNREACHABLE,
        codes::HUB_ANSWER_UNREADABLE,
        "range-not-satisfiable",
        "not-ready",
        shared::CONFLICT,
    ]
    .contains(&failure.0.code.as_ref())
}

impl Upload<'_> {
    fn path(&self) -> String {
        format!("api/v1/blobs/{}/upload", self.digest)
    }

    /// Asks how far the hub is.
    async fn begin(&self) -> Result<BlobUpload> {
        let request = BeginUpload { size: self.size };
        match self.client.call(Method::POST, &self.path(), &request).await {
            // All of it was there, and was something else; now it is gone.
            Err(failure) if failure.0.code == shared::BLOB_DIGEST_MISMATCH => {
                self.client.call(Method::POST, &self.path(), &request).await
            }
            outcome => outcome,
        }
    }

    /// Sends the piece that begins at `start`.
    async fn piece(&self, start: u64) -> Result<BlobUpload> {
        let unreadable = |error: std::io::Error| self.unreadable(&error.to_string());
        let mut file = File::open(self.file).await.map_err(unreadable)?;
        let found = file.metadata().await.map_err(unreadable)?.len();
        if found != self.size {
            return Err(self.unreadable(&format!(
                "it has {found} bytes, and had {} when its digest was made",
                self.size
            )));
        }
        file.seek(SeekFrom::Start(start)).await.map_err(unreadable)?;
        let end = self.size.min(start.saturating_add(PIECE));
        let last = end.saturating_sub(1);
        let request = self
            .client
            .request(Method::PATCH, &self.path())?
            .header("content-type", "application/octet-stream")
            .header("content-range", format!("bytes {start}-{last}/{}", self.size))
            .header("content-length", end - start)
            .timeout(PIECE_TIMEOUT)
            .body(reqwest::Body::wrap_stream(chunks(file, start, end, self.size)));
        let response = self.client.send(request).await?;
        self.client.read(response).await
    }

    fn unreadable(&self, reason: &str) -> Failure {
        Failure::new(
            codes::FILE_UNREADABLE,
            format!("{} cannot be read: {reason}", self.file.display()),
            "check the path and its permissions, and that nothing writes to it",
        )
    }
}

/// A file from `start` to `end`, with a word to the person at each tenth of what takes long.
fn chunks(
    file: File,
    start: u64,
    end: u64,
    size: u64,
) -> impl Stream<Item = std::io::Result<Vec<u8>>> + Send {
    futures::stream::try_unfold((file, start), move |(mut file, sent)| async move {
        if sent == end {
            return Ok(None);
        }
        let mut chunk = vec![0; usize::try_from((end - sent).min(CHUNK)).unwrap_or_default()];
        let read = file.read(&mut chunk).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        chunk.truncate(read);
        let now = sent + read as u64;
        if size >= LONG && now * 10 / size > sent * 10 / size && now < size {
            output::note(&format!("  {} %", now * 10 / size * 10));
        }
        Ok(Some((chunk, (file, now))))
    })
}
