//! Parts of an artifact, wherever it is: the store, the image of the box, the hub, and the sources that it names.
//!
//! In: an artifact, and a span of its bytes. Out: those bytes as they come, unverified: whoever asks for a part knows a digest of it. It
//! guarantees that memory does not grow with the span, that the limits of bandwidth are kept, and that a source with another size than the artifact
//! has is told from one that cannot be asked now.

use super::{
    Fetcher, Item,
    bandwidth::Bandwidth,
    http::{Answer, Span},
    source::Source,
    transfer::{Outcome, SILENCE, content_range},
};
use crate::telemetry::metrics::METRICS;
use bytes::Bytes;
use holdfast_protocol::{Digest, document::Artifact};
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use std::{fmt, fs::File, os::unix::fs::FileExt as _, path::PathBuf, sync::Arc};
use tokio::time::timeout;

/// Bytes that are read from a file at once.
const PIECE: u64 = 256 << 10;

/// A place that has the artifact.
pub struct Place {
    kind: Kind,
    digest: Digest,
    size: u64,
    limits: [Bandwidth; 2],
}

enum Kind {
    File(PathBuf),
    Source(Source),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::File(_) => formatter.write_str("the box itself"),
            Kind::Source(source) => source.fmt(formatter),
        }
    }
}

/// Why a place gives no bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be asked now: why.
    Unavailable(String),
    /// It has another content.
    Wrong(String),
}

impl Refusal {
    /// In words.
    pub fn reason(&self) -> &str {
        match self {
            Self::Unavailable(reason) | Self::Wrong(reason) => reason,
        }
    }
}

/// Bytes on their way.
pub struct Stream {
    body: Body,
    /// Where in the artifact the next bytes lie.
    position: u64,
    to: u64,
    limits: [Bandwidth; 2],
}

enum Body {
    File(Arc<File>),
    Answer(Box<Answer>),
}

impl Fetcher {
    /// Everywhere that parts of an artifact can be had, in order; for a place that cannot even be asked its name and why. Beside the limit of the
    /// settings, no more than `rate` bytes per second come from all of them together (0: no other limit).
    pub fn places(&self, artifact: &Artifact, rate: u64) -> Vec<Result<Place, (String, String)>> {
        let limits = [self.bandwidth.clone(), Bandwidth::new(rate)];
        let place = |kind| Place {
            kind,
            digest: artifact.digest,
            size: artifact.size,
            limits: limits.clone(),
        };
        let baked = &self.settings.artifacts.baked;
        let files = [
            self.blobs.path(artifact.digest),
            baked.join("sha256").join(artifact.digest.hex()),
        ];
        let here = files
            .into_iter()
            .filter(|path| std::fs::metadata(path).is_ok_and(|file| file.len() == artifact.size))
            .map(|path| Ok(place(Kind::File(path))));
        let there = self
            .sources(&Item::of_artifact(artifact))
            .into_iter()
            .map(|source| source.map(|source| place(Kind::Source(source))));
        here.chain(there).collect()
    }
}

impl Place {
    /// Whether it costs no network.
    pub const fn is_local(&self) -> bool {
        matches!(self.kind, Kind::File(_))
    }

    /// Asks for the bytes `from` to `to` (without that one). What comes may begin earlier and end later, where a place knows no spans.
    pub async fn open(&self, from: u64, to: u64) -> Result<Stream, Refusal> {
        let (body, position) = match &self.kind {
            Kind::File(path) => {
                let file = File::open(path).map_err(|error| Refusal::Unavailable(error.to_string()))?;
                (Body::File(Arc::new(file)), from)
            }
            Kind::Source(source) => {
                let span = Span { from, to: Some(to) };
                let answer = source
                    .ask(self.digest, span)
                    .await
                    .map_err(|outcome| match outcome {
                        Outcome::Wrong(reason) => Refusal::Wrong(reason),
                        other => Refusal::Unavailable(other.reason()),
                    })?;
                let position = self.judge(&answer, from)?;
                (Body::Answer(Box::new(answer)), position)
            }
        };
        Ok(Stream {
            body,
            position,
            to: if position == from { to } else { self.size },
            limits: self.limits.clone(),
        })
    }

    /// Where the answer begins.
    fn judge(&self, answer: &Answer, from: u64) -> Result<u64, Refusal> {
        if let Some(encoding) = answer.header(header::CONTENT_ENCODING)
            && !encoding.eq_ignore_ascii_case("identity")
        {
            return Err(Refusal::Unavailable(format!(
                "it sends the content as {encoding}, which was not asked for"
            )));
        }
        let size = match answer.status {
            StatusCode::OK => answer
                .header(header::CONTENT_LENGTH)
                .and_then(|text| text.parse().ok())
                .map(|size| (0, Some(size))),
            StatusCode::PARTIAL_CONTENT => {
                let range = answer.header(header::CONTENT_RANGE).and_then(content_range);
                Some(range.ok_or_else(|| {
                    Refusal::Unavailable("it answers with a part and does not say which".into())
                })?)
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(Refusal::Wrong(format!(
                    "it has no byte {from}; there must be {}",
                    self.size
                )));
            }
            status => return Err(Refusal::Unavailable(format!("it answers {status}"))),
        };
        match size.unwrap_or((0, None)) {
            (_, Some(size)) if size != self.size => Err(Refusal::Wrong(format!(
                "it has {size} bytes; there must be {}",
                self.size
            ))),
            (first, _) if first > from => Err(Refusal::Unavailable(format!(
                "it was asked for byte {from} on and sends byte {first} on"
            ))),
            (first, _) => Ok(first),
        }
    }
}

impl Stream {
    /// Where in the artifact the next bytes lie.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let position = self.position;
        let bytes = match &mut self.body {
            Body::File(file) => {
                let size = PIECE.min(self.to.saturating_sub(position)) as usize;
                if size == 0 {
                    return Ok(None);
                }
                let file = file.clone();
                let read = tokio::task::spawn_blocking(move || {
                    let mut piece = vec![0; size];
                    file.read_exact_at(&mut piece, position).map(|()| piece)
                });
                let piece = match read.await {
                    Ok(Ok(piece)) => piece,
                    Ok(Err(error)) => return Err(Refusal::Unavailable(error.to_string())),
                    Err(error) => return Err(Refusal::Unavailable(error.to_string())),
                };
                Bytes::from(piece)
            }
            Body::Answer(answer) => loop {
                let frame = timeout(SILENCE, answer.body.frame())
                    .await
                    .map_err(|_| Refusal::Unavailable(format!("nothing came for {} s", SILENCE.as_secs())))?;
                match frame {
                    None => return Ok(None),
                    Some(Err(error)) => {
                        return Err(Refusal::Unavailable(format!(
                            "cut off at byte {position}: {error}"
                        )));
                    }
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            METRICS.blob_bytes.add(data.len() as u64);
                            for limit in &self.limits {
                                limit.take(data.len()).await;
                            }
                            break data;
                        }
                    }
                }
            },
        };
        self.position += bytes.len() as u64;
        Ok(Some(bytes))
    }
}
