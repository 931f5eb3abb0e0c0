//! Fetches the chunks that a box does not have, by spans of the pack.
//!
//! In: places that have the pack. Out: the missing chunks, where they belong. It guarantees that each is fetched once and checked before it is
//! written; that frames which lie close together come in one request; that after a cut only what is missing is asked for; and that a place with
//! damaged chunks is named and passed over.

use super::{
    error::Fault,
    off_thread,
    slots::{Frame, Which},
    stage::Job,
};
use crate::artifacts::ranges::{Place, Refusal, Stream};
use holdfast_os::OsError;
use tokio_util::sync::CancellationToken;

/// Bytes between two frames that are fetched and thrown away rather than asked around: another request costs as many.
const GAP: u64 = 8 << 10;
/// Bytes of frames that are kept in memory until they are written together.
const BATCH: usize = 512 << 10;

/// Frames on their way.
struct Picker {
    /// The part that they are for; all parts where absent.
    only: Option<Which>,
    frames: Vec<Frame>,
    /// The frame that comes next.
    next: usize,
    /// What is here of it.
    begun: Vec<u8>,
    whole: Vec<(Frame, Vec<u8>)>,
    waiting: usize,
}

impl Picker {
    /// The span to ask for: from the next frame over all that lie close behind it.
    fn span(&self) -> Option<(u64, u64)> {
        let first = self.frames.get(self.next)?;
        let mut end = first.chunk.end();
        for frame in &self.frames[self.next + 1..] {
            if frame.chunk.offset < end || frame.chunk.offset - end > GAP {
                break;
            }
            end = frame.chunk.end();
        }
        Some((first.chunk.offset, end))
    }

    /// Takes from bytes that lie at `position` of the pack what belongs to frames.
    fn take(&mut self, position: u64, bytes: &[u8]) {
        let end = position + bytes.len() as u64;
        while let Some(frame) = self.frames.get(self.next) {
            let wanted = frame.chunk.offset + self.begun.len() as u64;
            // Before: it overlaps the frame before it, and is asked for by itself.
            if wanted < position || wanted >= end {
                return;
            }
            let from = (wanted - position) as usize;
            let to = bytes
                .len()
                .min(from + frame.chunk.length as usize - self.begun.len());
            self.begun.extend_from_slice(&bytes[from..to]);
            if self.begun.len() < frame.chunk.length as usize {
                return;
            }
            self.waiting += self.begun.len();
            self.whole.push((*frame, std::mem::take(&mut self.begun)));
            self.next += 1;
        }
    }
}

/// How a place did.
enum End {
    Done,
    Refused(Refusal),
}

/// Fetches until nothing is missing, of one part or of all, from one place after the other.
pub async fn fetch(
    mut job: Job,
    places: &[Result<Place, (String, String)>],
    cancel: &CancellationToken,
    only: Option<Which>,
) -> Result<Job, Fault> {
    let mut told: Vec<(String, Refusal)> = Vec::new();
    for place in places {
        let place = match place {
            Ok(place) => place,
            Err((name, reason)) => {
                told.push((name.clone(), Refusal::Unavailable(reason.clone())));
                continue;
            }
        };
        loop {
            let frames = job.slots.missing(only);
            if frames.is_empty() {
                return Ok(job);
            }
            let before = frames.len();
            let end;
            (job, end) = from(job, place, frames, cancel, only).await?;
            match end {
                End::Done => {}
                End::Refused(refusal) => {
                    tracing::warn!(source = %place, reason = refusal.reason(), "chunks of the image cannot be had here");
                    // What was cut off in the middle can be asked on.
                    let moved = job.slots.missing(only).len() < before;
                    if moved && matches!(refusal, Refusal::Unavailable(_)) {
                        continue;
                    }
                    told.push((place.to_string(), refusal));
                    break;
                }
            }
        }
    }
    if job.slots.missing(only).is_empty() {
        return Ok(job);
    }
    let version = job.version().to_owned();
    let all_wrong = told
        .iter()
        .all(|(_, refusal)| matches!(refusal, Refusal::Wrong(_)));
    let said: Vec<_> = told
        .iter()
        .map(|(name, refusal)| format!("{name}: {}", refusal.reason()))
        .collect();
    let reason = said.join("; ");
    Err(if all_wrong {
        Fault::Tampered { version, reason }
    } else {
        Fault::Unreachable { version, reason }
    })
}

async fn from(
    mut job: Job,
    place: &Place,
    frames: Vec<Frame>,
    cancel: &CancellationToken,
    only: Option<Which>,
) -> Result<(Job, End), Fault> {
    let mut picker = Picker {
        only,
        frames,
        next: 0,
        begun: Vec::new(),
        whole: Vec::new(),
        waiting: 0,
    };
    while let Some((first, end)) = picker.span() {
        let mut stream = tokio::select! {
            () = cancel.cancelled() => return Err(Fault::Cancelled(job.version().to_owned())),
            opened = place.open(first, end) => match opened {
                Ok(stream) => stream,
                Err(refusal) => return stopped(job, picker, refusal).await,
            },
        };
        let before = picker.next;
        loop {
            let position = stream.position();
            let bytes = match next(&mut stream, cancel, &job).await? {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break,
                Err(refusal) => return stopped(job, picker, refusal).await,
            };
            if !place.is_local() {
                job.fetched += bytes.len() as u64;
            }
            picker.take(position, &bytes);
            if picker.waiting >= BATCH {
                let damaged;
                (job, damaged) = write(job, &mut picker).await?;
                if let Some(refusal) = damaged {
                    return Ok((job, End::Refused(refusal)));
                }
            }
            // A place without ranges would go on to the end of the pack.
            if picker.next == picker.frames.len() {
                break;
            }
        }
        picker.begun.clear();
        if picker.next == before {
            let refusal = Refusal::Unavailable(format!("it ended before byte {end}"));
            return stopped(job, picker, refusal).await;
        }
    }
    let (job, damaged) = write(job, &mut picker).await?;
    Ok((job, damaged.map_or(End::Done, End::Refused)))
}

async fn next(
    stream: &mut Stream,
    cancel: &CancellationToken,
    job: &Job,
) -> Result<Result<Option<bytes::Bytes>, Refusal>, Fault> {
    tokio::select! {
        () = cancel.cancelled() => Err(Fault::Cancelled(job.version().to_owned())),
        bytes = stream.next() => Ok(bytes),
    }
}

/// Keeps what came before a place stopped.
async fn stopped(job: Job, mut picker: Picker, refusal: Refusal) -> Result<(Job, End), Fault> {
    let (job, damaged) = write(job, &mut picker).await?;
    Ok((job, End::Refused(damaged.unwrap_or(refusal))))
}

/// Writes what is whole; says which chunk is damaged, where one is.
async fn write(mut job: Job, picker: &mut Picker) -> Result<(Job, Option<Refusal>), Fault> {
    let (frames, only) = (std::mem::take(&mut picker.whole), picker.only);
    picker.waiting = 0;
    off_thread(move || {
        let mut damaged = None;
        for (frame, bytes) in frames {
            match job.slots.put_frame(frame, &bytes, only) {
                Ok(()) => {}
                Err(Fault::Image(error @ OsError::Damaged { .. })) => {
                    damaged = Some(Refusal::Wrong(error.to_string()));
                    break;
                }
                Err(fault) => return Err(fault),
            }
        }
        job.show();
        Ok((job, damaged))
    })
    .await
}
