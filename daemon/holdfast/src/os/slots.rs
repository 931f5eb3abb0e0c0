//! The chunks of an image in their places: which are there, and how they get there.
//!
//! In: a verified manifest, and content that may be a chunk of it. Out: the slot and the kernel image, filled. It guarantees that only content
//! whose SHA-256 the manifest names is written, and only where the manifest has it; and that memory holds one chunk and the list of places.

use super::{efi::forget_cached, error::Fault};
use holdfast_os::{Chunk, Cutter, Manifest, Part};
use holdfast_protocol::Digest;
use ring::digest::{Context, SHA256};
use ruzstd::decoding::FrameDecoder;
use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt as _,
};
use tokio_util::sync::CancellationToken;

/// Bytes after which the disk is waited for, so that a cut costs no more than these, and a slow flash is not given all at once.
const SYNC_EVERY: u64 = 16 << 20;

/// Which part of the image a place belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The file system.
    Usr,
    /// Its hash tree.
    Verity,
    /// The kernel image.
    Uki,
}

const ALL: [Which; 3] = [Which::Usr, Which::Verity, Which::Uki];

/// One place that a chunk belongs in.
#[derive(Clone, Copy, Debug)]
struct Spot {
    digest: Digest,
    part: Which,
    index: u32,
    /// Where it begins in the part.
    at: u64,
    done: bool,
}

/// Where a part is written to.
#[derive(Debug)]
pub struct Target {
    /// The disk, or a file.
    pub file: File,
    /// Where in it the part begins, in bytes.
    pub at: u64,
}

/// A frame of the pack that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The chunk in it.
    pub chunk: Chunk,
}

/// All places of an image.
pub struct Slots {
    manifest: Manifest,
    targets: [Target; 3],
    /// Sorted by digest, so that content finds all its places.
    spots: Vec<Spot>,
    decoder: FrameDecoder,
    done: u64,
    unsynced: u64,
    cancel: CancellationToken,
}

impl Slots {
    /// The places of this image, none of them filled as far as is known. Targets are those of `usr`, `verity` and the kernel image.
    pub fn new(manifest: Manifest, targets: [Target; 3], cancel: CancellationToken) -> Self {
        let mut spots: Vec<Spot> =
            Vec::with_capacity(manifest.parts().iter().map(|(_, part)| part.chunks.len()).sum());
        for which in ALL {
            for (index, (at, chunk)) in part_of(&manifest, which).placed().enumerate() {
                spots.push(Spot {
                    digest: chunk.digest,
                    part: which,
                    index: index as u32,
                    at,
                    done: false,
                });
            }
        }
        spots.sort_unstable_by(|a, b| a.digest.as_bytes().cmp(b.digest.as_bytes()));
        Self {
            manifest,
            targets,
            spots,
            decoder: FrameDecoder::new(),
            done: 0,
            unsynced: 0,
            cancel,
        }
    }

    /// Bytes that are in their places.
    pub const fn done(&self) -> u64 {
        self.done
    }

    /// Bytes of all places.
    pub fn total(&self) -> u64 {
        self.manifest.parts().iter().map(|(_, part)| part.size).sum()
    }

    /// Whether all of this part is in its places.
    pub fn is_done(&self, which: Which) -> bool {
        self.spots.iter().all(|spot| spot.part != which || spot.done)
    }

    fn is_complete(&self) -> bool {
        self.spots.iter().all(|spot| spot.done)
    }

    fn go_on(&self) -> Result<(), Fault> {
        if self.cancel.is_cancelled() {
            return Err(Fault::Cancelled(self.manifest.version.clone()));
        }
        Ok(())
    }

    /// Looks which places hold what they should already.
    pub fn scan(&mut self) -> Result<(), Fault> {
        for index in 0..self.spots.len() {
            self.go_on()?;
            let spot = self.spots[index];
            let is_there = self
                .read(spot)
                .is_ok_and(|content| Digest::of(&content) == spot.digest);
            if is_there && !spot.done {
                self.spots[index].done = true;
                self.done += u64::from(self.chunk(spot).size);
            }
        }
        Ok(())
    }

    /// Cuts content that the box has, and takes each chunk that is missing. Reads no more than it must.
    pub fn reuse(&mut self, content: impl Read, only: Option<Which>) -> Result<(), Fault> {
        if self.is_complete() {
            return Ok(());
        }
        for cut in Cutter::new(BufReader::with_capacity(256 << 10, content)) {
            self.go_on()?;
            let cut = cut.map_err(|error| Fault::Disk {
                what: "the running image".into(),
                error,
            })?;
            let digest = cut.digest();
            self.put(digest, &cut.data, only)?;
        }
        Ok(())
    }

    /// The frames of all chunks that are missing, of one part or of all, each once, in the order of the pack.
    pub fn missing(&self, only: Option<Which>) -> Vec<Frame> {
        let mut frames: Vec<_> = self
            .spots
            .iter()
            .filter(|spot| !spot.done && only.is_none_or(|which| which == spot.part))
            .map(|spot| Frame {
                chunk: *self.chunk(*spot),
            })
            .collect();
        frames.sort_unstable_by_key(|frame| frame.chunk.offset);
        frames.dedup_by_key(|frame| frame.chunk.digest);
        frames
    }

    /// Opens a frame and puts its chunk into its places, in one part or in all.
    pub fn put_frame(&mut self, frame: Frame, bytes: &[u8], only: Option<Which>) -> Result<(), Fault> {
        self.go_on()?;
        let content = frame.chunk.open(bytes, &mut self.decoder)?;
        self.put(frame.chunk.digest, &content, only)
    }

    fn put(&mut self, digest: Digest, content: &[u8], only: Option<Which>) -> Result<(), Fault> {
        let first = self
            .spots
            .partition_point(|spot| spot.digest.as_bytes() < digest.as_bytes());
        let mut index = first;
        while let Some(spot) = self
            .spots
            .get(index)
            .copied()
            .filter(|spot| spot.digest == digest)
        {
            if !spot.done && only.is_none_or(|which| which == spot.part) {
                self.write(spot, content)?;
                self.spots[index].done = true;
                self.done += content.len() as u64;
            }
            index += 1;
        }
        Ok(())
    }

    fn write(&mut self, spot: Spot, content: &[u8]) -> Result<(), Fault> {
        let target = self.target(spot.part);
        target
            .file
            .write_all_at(content, target.at + spot.at)
            .map_err(|error| failed(spot.part, error))?;
        self.unsynced += content.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.sync()?;
            crate::failpoint::reach("os-slot-part");
        }
        Ok(())
    }

    fn read(&self, spot: Spot) -> io::Result<Vec<u8>> {
        let target = self.target(spot.part);
        let mut content = vec![0; self.chunk(spot).size as usize];
        target.file.read_exact_at(&mut content, target.at + spot.at)?;
        Ok(content)
    }

    /// Has all that was written on the disk.
    pub fn sync(&mut self) -> Result<(), Fault> {
        for which in ALL {
            self.target(which)
                .file
                .sync_data()
                .map_err(|error| failed(which, error))?;
        }
        self.unsynced = 0;
        Ok(())
    }

    /// Reads the whole image back from the disk, and gives the SHA-256 of the kernel image.
    pub fn verify(&mut self) -> Result<Digest, Fault> {
        self.sync()?;
        for which in ALL {
            let target = self.target(which);
            forget_cached(&target.file, target.at, part_of(&self.manifest, which).size);
        }
        let mut uki = Context::new(&SHA256);
        for which in ALL {
            for (at, chunk) in part_of(&self.manifest, which).placed() {
                self.go_on()?;
                let target = self.target(which);
                let mut content = vec![0; chunk.size as usize];
                target
                    .file
                    .read_exact_at(&mut content, target.at + at)
                    .map_err(|error| failed(which, error))?;
                if chunk.check(&content).is_err() {
                    return Err(Fault::ReadBack { what: name(which) });
                }
                if which == Which::Uki {
                    uki.update(&content);
                }
            }
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(uki.finish().as_ref());
        Ok(Digest::from_bytes(bytes))
    }

    fn target(&self, which: Which) -> &Target {
        &self.targets[which as usize]
    }

    fn chunk(&self, spot: Spot) -> &Chunk {
        &part_of(&self.manifest, spot.part).chunks[spot.index as usize]
    }
}

fn part_of(manifest: &Manifest, which: Which) -> &Part {
    match which {
        Which::Usr => &manifest.usr,
        Which::Verity => &manifest.verity,
        Which::Uki => &manifest.uki,
    }
}

const fn name(which: Which) -> &'static str {
    match which {
        Which::Usr => "the slot",
        Which::Verity => "the hash tree of the slot",
        Which::Uki => "the staged kernel image",
    }
}

fn failed(which: Which, error: io::Error) -> Fault {
    Fault::Disk {
        what: name(which).into(),
        error,
    }
}

/// A stretch of a file, to be read.
pub struct Stretch<'a> {
    /// The file.
    pub file: &'a File,
    /// Where the stretch begins.
    pub at: u64,
    /// Bytes of it that are left.
    pub left: u64,
}

impl Read for Stretch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.left.min(buffer.len() as u64) as usize;
        let read = self.file.read_at(&mut buffer[..size], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
