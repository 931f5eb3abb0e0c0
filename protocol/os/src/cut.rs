//! Cutting content where its own bytes say so: FastCDC, version of 2020 (Xia et al., "The Design of Fast Content-Defined Chunking for
//! Data Deduplication Based Storage Systems", IEEE TPDS 31).
//!
//! In: a reader. Out: its content in pieces. It guarantees that the same content is always cut at the same places, that bytes put in or taken
//! out change the pieces around them only, and that no more than two pieces of the largest size are in memory.

use fastcdc::v2020::{Error, Normalization, StreamCDC};
use holdfast_protocol::Digest;
use std::io::{self, Read};

// Changing any of the next four makes every box fetch a whole image once: nothing that it has is cut so.

/// The smallest chunk, in bytes; only the last of a content may be smaller.
pub const MIN_CHUNK_BYTES: usize = 4 * 1024;
/// What chunks have on average, in bytes. A smaller one finds more that is the same and makes the manifest longer: at 16 KiB the
/// manifest has half a percent of what it describes.
pub const AVERAGE_CHUNK_BYTES: usize = 16 * 1024;
/// The largest chunk, in bytes.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024;
const NORMALIZATION: Normalization = Normalization::Level1;

/// A piece of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where it begins, in bytes from the beginning of the content.
    pub offset: u64,
    /// Its bytes.
    pub data: Vec<u8>,
}

impl Cut {
    /// The SHA-256 that it is found by.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.data)
    }
}

/// The pieces of what a reader gives, in order.
pub struct Cutter<R: Read> {
    stream: StreamCDC<R>,
    ended: bool,
}

impl<R: Read> Cutter<R> {
    /// Cuts what `reader` gives, to its end.
    pub fn new(reader: R) -> Self {
        Self {
            stream: StreamCDC::with_level(
                reader,
                MIN_CHUNK_BYTES,
                AVERAGE_CHUNK_BYTES,
                MAX_CHUNK_BYTES,
                NORMALIZATION,
            ),
            ended: false,
        }
    }
}

impl<R: Read> Iterator for Cutter<R> {
    type Item = io::Result<Cut>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.stream.next() {
            Some(Ok(chunk)) => Some(Ok(Cut {
                offset: chunk.offset,
                data: chunk.data,
            })),
            Some(Err(Error::IoError(error))) => {
                self.ended = true;
                Some(Err(error))
            }
            Some(Err(Error::Other(reason))) => {
                self.ended = true;
                Some(Err(io::Error::other(reason)))
            }
            Some(Err(Error::Empty)) | None => {
                self.ended = true;
                None
            }
        }
    }
}
