//! A chunk of an image, and the lists of chunks that make up its parts.
//!
//! In: the bytes of a zstd frame. Out: the chunk's content. It guarantees that content is given out only when its SHA-256 is the one that
//! the manifest names, and that no frame makes the box take more memory than the largest chunk needs.

use crate::{MAX_CHUNK_BYTES, OsError};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use holdfast_protocol::Digest;
use ruzstd::decoding::FrameDecoder;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeSeq as _};

/// A piece of a part, and where its zstd frame lies in the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// SHA-256 of the content.
    pub digest: Digest,
    /// Size of the content, in bytes.
    pub size: u32,
    /// Where its frame begins in the pack, in bytes.
    pub offset: u64,
    /// Size of the frame, in bytes.
    pub length: u32,
}

impl Chunk {
    /// Where its frame ends in the pack, in bytes.
    pub const fn end(&self) -> u64 {
        self.offset.saturating_add(self.length as u64)
    }

    /// The content of this chunk, from its frame. `decoder` is used again and again, so that its tables are allocated once.
    ///
    /// # Errors
    /// [`OsError::Damaged`] for anything that is not the content the manifest names.
    pub fn open(&self, frame: &[u8], decoder: &mut FrameDecoder) -> Result<Vec<u8>, OsError> {
        let damaged = |reason: String| OsError::Damaged {
            digest: self.digest,
            reason,
        };
        decoder.set_max_window_size(MAX_CHUNK_BYTES as u64);
        let mut content = vec![0; self.size as usize];
        let size = decoder
            .decode_all(frame, &mut content)
            .map_err(|error| damaged(format!("its frame cannot be decoded: {error}")))?;
        if size != content.len() {
            return Err(damaged(format!(
                "it has {size} bytes; the manifest says {}",
                self.size
            )));
        }
        self.check(&content)?;
        Ok(content)
    }

    /// Checks that `content` is this chunk.
    pub fn check(&self, content: &[u8]) -> Result<(), OsError> {
        let found = Digest::of(content);
        if found == self.digest {
            return Ok(());
        }
        Err(OsError::Damaged {
            digest: self.digest,
            reason: format!("its content is {found}"),
        })
    }
}

/// One of the three contents of an image: the file system, its hash tree, or the kernel image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its size in bytes: that of all chunks together.
    pub size: u64,
    /// Its chunks in order. On the wire each is `[digest, size, length]`, or `[digest, size, length, offset]` where its frame does not follow
    /// the one of the chunk before it (the first begins at 0), or `[digest, size, length, offset, count]` for the same chunk again and again, such as
    /// the zeros behind a file system; the digest is base64url without padding. That is a third of what
    /// objects would take, of a manifest that every box fetches in whole.
    #[serde(serialize_with = "write", deserialize_with = "read")]
    pub chunks: Vec<Chunk>,
}

impl Part {
    /// The chunks with the byte of this part at which each begins.
    pub fn placed(&self) -> impl Iterator<Item = (u64, &Chunk)> {
        self.chunks.iter().scan(0_u64, |next, chunk| {
            let at = *next;
            *next = next.saturating_add(u64::from(chunk.size));
            Some((at, chunk))
        })
    }
}

fn write<S: Serializer>(chunks: &[Chunk], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    let mut next = 0;
    for run in chunks.chunk_by(|a, b| a == b) {
        let [chunk, ..] = run else { continue };
        let digest = URL_SAFE_NO_PAD.encode(chunk.digest.as_bytes());
        if run.len() > 1 {
            list.serialize_element(&(digest, chunk.size, chunk.length, chunk.offset, run.len()))?;
        } else if chunk.offset == next {
            list.serialize_element(&(digest, chunk.size, chunk.length))?;
        } else {
            list.serialize_element(&(digest, chunk.size, chunk.length, chunk.offset))?;
        }
        next = chunk.end();
    }
    list.end()
}

/// A chunk as it is written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written<'a> {
    Next(#[serde(borrow)] &'a str, u32, u32),
    At(#[serde(borrow)] &'a str, u32, u32, u64),
    Run(#[serde(borrow)] &'a str, u32, u32, u64, usize),
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Chunk>, D::Error> {
    struct List;

    impl<'de> serde::de::Visitor<'de> for List {
        type Value = Vec<Chunk>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a list of [digest, size, length], [digest, size, length, offset] and [digest, size, length, offset, count]")
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut chunks = Vec::new();
            let mut next = 0;
            while let Some(written) = list.next_element::<Written<'de>>()? {
                let (text, size, length, offset, count) = match written {
                    Written::Next(text, size, length) => (text, size, length, next, 1),
                    Written::At(text, size, length, offset) => (text, size, length, offset, 1),
                    Written::Run(text, size, length, offset, count) => (text, size, length, offset, count),
                };
                if count > crate::MAX_CHUNKS - chunks.len() {
                    return Err(A::Error::custom(format!(
                        "more than {} chunks",
                        crate::MAX_CHUNKS
                    )));
                }
                let mut digest = [0; 32];
                if URL_SAFE_NO_PAD.decode_slice(text, &mut digest) != Ok(32) {
                    return Err(A::Error::custom(format!(
                        "{:?} is not a digest in base64url",
                        text.chars().take(60).collect::<String>()
                    )));
                }
                let chunk = Chunk {
                    digest: Digest::from_bytes(digest),
                    size,
                    offset,
                    length,
                };
                next = chunk.end();
                chunks.extend(std::iter::repeat_n(chunk, count));
            }
            Ok(chunks)
        }
    }

    deserializer.deserialize_seq(List)
}
