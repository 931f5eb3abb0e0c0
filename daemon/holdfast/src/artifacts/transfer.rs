//! One content on its way into the store, from one source after the other.
//!
//! In: sources. Out: the content, verified. It guarantees that a cut costs nothing that was here, that the sources whose bytes are in it are
//! known when the whole is wrong, and that the disk is given the bytes piece by piece and never the one task that everything runs on.

use super::{
    Fetcher, Item,
    http::{Answer, Span},
    source::Source,
};
use crate::telemetry::metrics::METRICS;
use holdfast_protocol::{Digest, Problem};
use holdfast_store::{BlobError, BlobWriter, StoreError};
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;

/// Longest silence in the middle of a content. The whole may take as long as a slow link needs.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// Bytes after which the disk is waited for: little enough that a slow flash has them within seconds.
const SYNC_EVERY: u64 = 8 << 20;
/// A source that was cut off after at least this many bytes is asked on at once; after fewer, the next one is.
const WORTH_ASKING_ON: u64 = 64 * 1024;
/// Name of what lay in the store before, whoever sent it.
const EARLIER: &str = "an earlier fetch";

/// How it went with one source.
#[derive(Debug)]
pub enum Outcome {
    /// The content is in the store.
    Done,
    /// The source cannot be used now: why.
    Unavailable(String),
    /// The hub refused.
    Refused(Problem),
    /// The source has another content: which.
    Wrong(String),
    /// The content is wrong, and its pieces are of several sources.
    Mixed,
    /// The disk does not take it.
    Disk(StoreError),
}

impl Outcome {
    /// Why the content is not here.
    pub fn reason(&self) -> String {
        match self {
            Self::Unavailable(reason) | Self::Wrong(reason) => reason.clone(),
            Self::Refused(problem) => problem.message.clone(),
            Self::Disk(error) => error.to_string(),
            Self::Done | Self::Mixed => String::new(),
        }
    }
}

/// The content, as far as it is here.
pub struct Transfer<'a> {
    fetcher: &'a Fetcher,
    item: &'a Item,
    /// Bytes of other contents that came before this one, for the progress.
    before: u64,
    writer: Option<BlobWriter>,
    /// Whose bytes are in it.
    contributors: BTreeSet<String>,
    apart: bool,
}

impl<'a> Transfer<'a> {
    pub(super) const fn new(fetcher: &'a Fetcher, item: &'a Item, before: u64) -> Self {
        Self {
            fetcher,
            item,
            before,
            writer: None,
            contributors: BTreeSet::new(),
            apart: false,
        }
    }

    pub(super) const fn digest(&self) -> Digest {
        self.item.digest
    }

    /// From now on, the bytes of one source are not put behind those of another.
    pub(super) const fn keep_apart(&mut self) {
        self.apart = true;
    }

    /// Removes the file that nothing came into.
    pub(super) fn tidy(&mut self) {
        if self.writer.take().is_some_and(|writer| writer.offset() == 0)
            && let Err(error) = self.fetcher.blobs.drop_partial(self.item.digest)
        {
            tracing::debug!(%error, "an empty file stays behind");
        }
    }

    /// Goes on with this source, as long as it gives more.
    pub(super) async fn from(&mut self, source: &Source) -> Outcome {
        let name = source.to_string();
        loop {
            let mut writer = match self.writer(&name).await {
                Ok(writer) => writer,
                Err(error) => return Outcome::Disk(error),
            };
            let begin = writer.offset();
            let streamed = self.stream(source, &name, &mut writer).await;
            let end = writer.offset();
            if end == self.item.size {
                return self.finish(writer).await;
            }
            match streamed {
                Ok(()) => {
                    self.writer = Some(writer);
                    return Outcome::Unavailable(format!("it ended at byte {end} of {}", self.item.size));
                }
                Err(Outcome::Unavailable(reason)) => {
                    self.writer = Some(writer);
                    // What was cut off in the middle can be asked on; a source that begins anew each time gets no further so.
                    if end < begin + WORTH_ASKING_ON {
                        return Outcome::Unavailable(reason);
                    }
                    METRICS.blob_failures.add(1);
                    tracing::debug!(source = name, reason, "cut off; asking on");
                }
                Err(Outcome::Refused(problem)) => {
                    self.writer = Some(writer);
                    return Outcome::Refused(problem);
                }
                // The store may have dropped what was here; it is looked at again.
                Err(outcome) => return outcome,
            }
        }
    }

    async fn writer(&mut self, source: &str) -> Result<BlobWriter, StoreError> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let (blobs, digest, size) = (self.fetcher.blobs.clone(), self.item.digest, self.item.size);
                self.contributors.clear();
                let writer = blocking(move || blobs.writer(digest, size)).await?;
                if writer.offset() > 0 {
                    self.contributors.insert(EARLIER.into());
                }
                writer
            }
        };
        if self.apart && self.contributors.iter().any(|other| other != source) {
            self.restart(&mut writer)?;
        }
        Ok(writer)
    }

    fn restart(&mut self, writer: &mut BlobWriter) -> Result<(), StoreError> {
        self.contributors.clear();
        writer.restart()
    }

    /// One request and its answer.
    async fn stream(&mut self, source: &Source, name: &str, writer: &mut BlobWriter) -> Result<(), Outcome> {
        // What is here in whole but was not verified yet needs no byte more.
        if writer.offset() == self.item.size {
            return Ok(());
        }
        let mut answer = source.ask(self.item.digest, Span::from(writer.offset())).await?;
        match self.judge(&answer, writer.offset())? {
            Begin::Here => {}
            Begin::Anew => self.restart(writer).map_err(Outcome::Disk)?,
        }
        let mut shown = u64::MAX;
        loop {
            let frame = timeout(SILENCE, answer.body.frame())
                .await
                .map_err(|_| Outcome::Unavailable(format!("nothing came for {} s", SILENCE.as_secs())))?;
            let frame = match frame {
                None => return Ok(()),
                Some(Err(error)) => {
                    let at = writer.offset();
                    return Err(Outcome::Unavailable(format!("cut off at byte {at}: {error}")));
                }
                Some(Ok(frame)) => frame,
            };
            let Some(data) = frame.data_ref() else { continue };
            METRICS.blob_bytes.add(data.len() as u64);
            self.contributors.insert(name.to_owned());
            writer.write(data).map_err(|error| match error {
                BlobError::Store(error) => Outcome::Disk(error),
                error => Outcome::Wrong(error.to_string()),
            })?;
            self.show(name, writer.offset(), &mut shown);
            if writer.unsynced() >= SYNC_EVERY {
                let sync = writer.sync().map_err(Outcome::Disk)?;
                blocking(sync).await.map_err(Outcome::Disk)?;
            }
            self.fetcher.bandwidth.take(data.len()).await;
        }
    }

    /// Whether the answer is what was asked for, and where it begins.
    fn judge(&self, answer: &Answer, offset: u64) -> Result<Begin, Outcome> {
        let size = self.item.size;
        let unavailable = |reason: String| Err(Outcome::Unavailable(reason));
        let other_size = |found: u64| {
            Err(Outcome::Wrong(format!(
                "it has {found} bytes; the document says {size}"
            )))
        };
        if let Some(encoding) = answer.header(header::CONTENT_ENCODING)
            && !encoding.eq_ignore_ascii_case("identity")
        {
            return unavailable(format!(
                "it sends the content as {encoding}, which was not asked for"
            ));
        }
        let length = answer
            .header(header::CONTENT_LENGTH)
            .and_then(|text| text.parse::<u64>().ok());
        match answer.status {
            StatusCode::OK => match length {
                Some(length) if length != size => other_size(length),
                _ => Ok(Begin::Anew),
            },
            StatusCode::PARTIAL_CONTENT => {
                let Some((first, whole)) = answer.header(header::CONTENT_RANGE).and_then(content_range)
                else {
                    return unavailable("it answers with a part and does not say which".into());
                };
                match whole {
                    Some(whole) if whole != size => other_size(whole),
                    _ if first != offset => unavailable(format!(
                        "it was asked for byte {offset} on and sends byte {first} on"
                    )),
                    _ => Ok(Begin::Here),
                }
            }
            // We ask for a byte within the content: a content that has none there is a shorter one.
            StatusCode::RANGE_NOT_SATISFIABLE => Err(Outcome::Wrong(format!(
                "it has no byte {offset}; the document says {size} bytes"
            ))),
            status => unavailable(format!("it answers {status}")),
        }
    }

    async fn finish(&mut self, writer: BlobWriter) -> Outcome {
        match blocking(move || writer.finish()).await {
            Ok(()) => Outcome::Done,
            Err(BlobError::Store(error)) => Outcome::Disk(error),
            Err(error) => {
                let alone = self.contributors.len() == 1 && !self.contributors.contains(EARLIER);
                self.contributors.clear();
                if alone {
                    Outcome::Wrong(error.to_string())
                } else {
                    Outcome::Mixed
                }
            }
        }
    }

    fn show(&self, source: &str, offset: u64, shown: &mut u64) {
        let done = self.before + offset;
        let total = self.fetcher.progress.borrow().total;
        let step = (total / 100).clamp(1, 1 << 20);
        if *shown == done / step {
            return;
        }
        *shown = done / step;
        self.fetcher.progress.send_modify(|progress| {
            progress.done = done;
            if progress.source != source {
                source.clone_into(&mut progress.source);
            }
            progress.name = if self.item.name.is_empty() {
                self.item.digest.to_string()
            } else {
                self.item.name.clone()
            };
        });
    }
}

enum Begin {
    /// Where it was asked to.
    Here,
    /// With the first byte.
    Anew,
}

/// First byte and size of the whole, from `bytes 5-9/10` or `bytes 5-9/*`.
pub(super) fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, whole) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-')?.0.trim().parse().ok()?;
    match whole.trim() {
        "*" => Some((first, None)),
        whole => Some((first, Some(whole.parse().ok()?))),
    }
}

/// Work that waits for the disk, beside everything else.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(StoreError::Internal {
            path: "store/blobs".into(),
            detail: format!("work on the store ended early: {error}"),
        }
        .into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_answers_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("bytes */10"), None);
        assert_eq!(content_range("items 5-9/10"), None);
    }
}
