//! Archives of container images: what is in them, and their plain tar stream, whatever they are compressed with.
//!
//! In: a file as `docker save`, `ctr images export` or an OCI layout make it, plain or with gzip or zstd (k3s's own archives). Out: its tar stream,
//! and the names of its images, from `index.json` and `manifest.json`. It guarantees bounded memory: the window of the compression, at most
//! [`MAX_WINDOW`] bytes, and those two files, at most `MAX_INDEX` bytes each.

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom, Write},
};

/// Most bytes of `index.json` and `manifest.json`.
const MAX_INDEX: usize = 4 << 20;
/// The largest window of zstd that is taken: k3s's archives have 32 MiB.
pub const MAX_WINDOW: u64 = 128 << 20;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BLOCK: usize = 512;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Not at all.
    Tar,
    /// With gzip.
    Gzip,
    /// With zstd.
    Zstd,
}

impl Form {
    /// Looks at the first bytes of a file, and goes back to its begin.
    pub fn of(file: &mut File) -> io::Result<Self> {
        let mut first = [0; BLOCK];
        let mut count = 0;
        while count < BLOCK {
            match file.read(&mut first[count..])? {
                0 => break,
                more => count += more,
            }
        }
        file.seek(SeekFrom::Start(0))?;
        if first.starts_with(&GZIP) {
            Ok(Self::Gzip)
        } else if first.starts_with(&ZSTD) {
            Ok(Self::Zstd)
        } else if count == BLOCK && first[257..].starts_with(b"ustar") {
            Ok(Self::Tar)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is no tar archive, plain or with gzip or zstd",
            ))
        }
    }

    /// End of a file name, as k3s knows it.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Gzip => "tar.gz",
            Self::Zstd => "tar.zst",
        }
    }
}

/// Writes the plain tar stream of an archive to `to`, and gives the names of its images.
pub fn unpack(mut file: File, mut to: impl Write) -> io::Result<BTreeSet<String>> {
    let form = Form::of(&mut file)?;
    let mut scan = Scan::default();
    let file = BufReader::with_capacity(64 * 1024, file);
    match form {
        Form::Tar => pump(file, &mut to, &mut scan)?,
        Form::Gzip => pump(MultiGzDecoder::new(file), &mut to, &mut scan)?,
        Form::Zstd => {
            let mut file = file;
            // An archive may have several frames, one after the other.
            loop {
                let mut decoder = FrameDecoder::new();
                decoder.set_max_window_size(MAX_WINDOW);
                let frame = StreamingDecoder::new_with_decoder(&mut file, decoder).map_err(invalid)?;
                pump(frame, &mut to, &mut scan)?;
                if io::BufRead::fill_buf(&mut file)?.is_empty() {
                    break;
                }
            }
        }
    }
    to.flush()?;
    scan.names()
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

fn pump(mut from: impl Read, to: &mut impl Write, scan: &mut Scan) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => {
                to.write_all(&buffer[..count])?;
                scan.feed(&buffer[..count])?;
            }
        }
    }
}

/// Looks at a tar stream as it passes.
#[derive(Default)]
struct Scan {
    header: Vec<u8>,
    /// Bytes of the present entry that are still to come, with those that fill its last block.
    left: u64,
    /// Of these, bytes of content.
    content: u64,
    /// The file that is kept, and where it is kept.
    keeping: Option<&'static str>,
    kept: BTreeMap<&'static str, Vec<u8>>,
}

impl Scan {
    fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let count = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                if let Some(name) = self.keeping {
                    let content = count.min(usize::try_from(self.content).unwrap_or(usize::MAX));
                    self.kept
                        .entry(name)
                        .or_default()
                        .extend_from_slice(&bytes[..content]);
                    self.content -= content as u64;
                }
                self.left -= count as u64;
                bytes = &bytes[count..];
                continue;
            }
            let count = bytes.len().min(BLOCK - self.header.len());
            self.header.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.header.len() == BLOCK {
                self.entry()?;
                self.header.clear();
            }
        }
        Ok(())
    }

    fn entry(&mut self) -> io::Result<()> {
        if self.header.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let size =
            size(&self.header[124..136]).ok_or_else(|| invalid("an entry of the archive has no size"))?;
        let name: Vec<u8> = self.header[..100]
            .iter()
            .copied()
            .take_while(|byte| *byte != 0)
            .collect();
        let name = name.strip_prefix(b"./").unwrap_or(&name);
        self.keeping = ["index.json", "manifest.json"]
            .into_iter()
            .find(|wanted| wanted.as_bytes() == name && size <= MAX_INDEX as u64);
        self.content = size;
        self.left = size
            .checked_next_multiple_of(BLOCK as u64)
            .ok_or_else(|| invalid("an entry of the archive is too large"))?;
        Ok(())
    }

    fn names(self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        if let Some(text) = self.kept.get("index.json") {
            let index: Index = serde_json::from_slice(text).map_err(invalid)?;
            for manifest in index.manifests {
                let of = |key: &str| manifest.annotations.get(key).cloned();
                let name = of("io.containerd.image.name").or_else(|| {
                    // A tag alone names no image.
                    of("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']))
                });
                names.extend(name.as_deref().map(super::reference::normalise));
            }
        }
        if let Some(text) = self.kept.get("manifest.json") {
            let entries: Vec<SavedImage> = serde_json::from_slice(text).map_err(invalid)?;
            let tags = entries
                .into_iter()
                .flat_map(|entry| entry.repo_tags.unwrap_or_default());
            names.extend(tags.map(|tag| super::reference::normalise(&tag)));
        }
        Ok(names)
    }
}

/// A size in a header: octal digits, or a binary number where the first bit is set.
fn size(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let bytes: [u8; 8] = field[4..12].try_into().ok()?;
        return Some(u64::from_be_bytes(bytes));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<IndexEntry>,
}

#[derive(Deserialize)]
struct IndexEntry {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct SavedImage {
    #[serde(rename = "RepoTags")]
    repo_tags: Option<Vec<String>>,
}
