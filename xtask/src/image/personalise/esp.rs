//! The EFI system partition of an image, or of a disk that an image was written to: changed as a whole or not at all.
//!
//! In: an image. Out: the same with some files more on that partition. Guarantees: mtools sees a copy alone, which is gone when this process is,
//! whatever ends it; once all files are on the copy, the few blocks that differ are written to the image, and those before them put back where one
//! cannot be; an image that something else uses is refused, and one that is damaged before any of it is written.

use super::{fat, gpt};
use crate::shell;
use anyhow::{Context as _, Result, anyhow, bail};
use holdfast_protocol::personal;
use nix::fcntl::OFlag;
use std::{
    env,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek as _, SeekFrom, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _},
    },
    path::Path,
    process::{self, Stdio},
};

/// Type of an EFI system partition (UEFI specification, 5.3.3), as its bytes stand in the table.
pub(super) const TYPE: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];
/// Sector size of an image.
pub(super) const SECTOR: u64 = 512;
/// The longest file of settings that is read; a box reads none that is longer.
const MAX_SETTINGS_BYTES: usize = 64 << 10;
/// How much is copied at once, in bytes, and how much is written where a byte of it differs.
const PIECE: usize = 1 << 20;
const BLOCK: usize = 4096;

/// The partition: in the image, and as a copy that is worked on.
pub(super) struct Esp {
    image: File,
    /// Where it begins in the image, in bytes.
    offset: u64,
    copy: File,
}

impl Drop for Esp {
    fn drop(&mut self) {
        // Closing alone leaves the lock to a program that another thread is just starting.
        let _ = self.image.unlock();
    }
}

/// A block that differs.
struct Block {
    at: u64,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Esp {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let (image, length) = open(path)?;
        let (offset, size) =
            gpt::find(&image, length).with_context(|| format!("{} is no image of a box", path.display()))?;
        let copy = copy(&image, offset, size).context("cannot copy its EFI system partition")?;
        fat::check(&copy).context(
            "its EFI system partition is damaged: start from a fresh copy of the image, and compare its sum with SHA256SUMS",
        )?;
        Ok(Self { image, offset, copy })
    }

    /// The settings that the image has. Values that a box could not use are told and left out.
    pub(super) fn settings(&self) -> Result<personal::Personal> {
        let path = format!("::/{}", personal::FILE);
        if self.mtools("mdir", &["-b", &path]).is_err() {
            return Ok(personal::Personal::default());
        }
        let text = self.mtools("mtype", &[&path])?;
        // An editor may have written it in another encoding: no box could use it either.
        let text = match String::from_utf8(text) {
            Ok(text) if text.len() <= MAX_SETTINGS_BYTES => text,
            _ => {
                eprintln!(
                    "left out, for no box could use it: {} as it was, which is no text or too long",
                    personal::FILE
                );
                return Ok(personal::Personal::default());
            }
        };
        let (settings, problems) = personal::Personal::read(&text);
        for problem in problems {
            eprintln!("left out, for no box could use it: {}", problem.message);
        }
        Ok(settings)
    }

    /// Writes a file of the directory `holdfast`; not to the image yet.
    pub(super) fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let named = format!("::/{path}");
        self.put(&named, content).map_err(|error| {
            if format!("{error:#}").contains("Disk full") {
                anyhow!(
                    "its EFI system partition has no room for {path}: start from a fresh copy of the image, or remove from it what is no part of it"
                )
            } else {
                error.context(format!("its EFI system partition does not take {path}"))
            }
        })
    }

    fn put(&self, path: &str, content: &[u8]) -> Result<()> {
        const DIRECTORY: &str = "::/holdfast";
        if self.mtools("mdir", &["-b", DIRECTORY]).is_err() {
            self.mtools("mmd", &[DIRECTORY])?;
        }
        // A copy to a directory goes into it, under another name.
        if let Ok(said) = self.mtools("mdir", &["-b", path])
            && !String::from_utf8_lossy(&said).trim().eq_ignore_ascii_case(path)
        {
            bail!("a directory has that name: remove it, or start from a fresh copy of the image");
        }
        // By a file, for mtools reads no pipes; without a name, for it holds secrets.
        let mut file = temporary(&env::temp_dir())?;
        file.write_all(content)?;
        self.mtools("mcopy", &["-o", &opened(&file), path])?;
        if self.mtools("mtype", &[path])? != content {
            bail!("it reads back otherwise: its file system is damaged");
        }
        Ok(())
    }

    fn mtools(&self, program: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        let done = shell::command(program)
            .args(["-i", &opened(&self.copy)])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {program}"))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            bail!("{program} failed: {}", said.trim());
        }
        Ok(done.stdout)
    }

    /// Writes what differs to the image, and waits until its disk has it.
    pub(super) fn put_back(&self) -> Result<()> {
        let blocks = self.differences().context("cannot compare it with its copy")?;
        let written = blocks
            .iter()
            .try_for_each(|block| self.image.write_all_at(&block.new, block.at))
            .and_then(|()| self.image.sync_all());
        let Err(error) = written else { return Ok(()) };
        let undone = blocks
            .iter()
            .map(|block| self.undo(block))
            .fold(Ok(()), Result::and)
            .and_then(|()| self.image.sync_all());
        Err(match undone {
            Ok(()) => anyhow!("it cannot be written, and was left as it was: {error}"),
            Err(undo) => anyhow!(
                "it cannot be written ({error}), and what was written already cannot be undone ({undo}): start from a fresh copy of the image"
            ),
        })
    }

    /// Makes a block what it was. Nothing is written where it is that already: a hole in a file on a full disk stays one.
    fn undo(&self, block: &Block) -> io::Result<()> {
        let mut now = vec![0; block.old.len()];
        self.image.read_exact_at(&mut now, block.at)?;
        if now == block.old {
            return Ok(());
        }
        self.image.write_all_at(&block.old, block.at)
    }

    fn differences(&self) -> io::Result<Vec<Block>> {
        let mut blocks = Vec::new();
        each_piece(self.copy.metadata()?.len(), |at, new| {
            self.copy.read_exact_at(new, at)?;
            let mut old = vec![0; new.len()];
            self.image.read_exact_at(&mut old, self.offset + at)?;
            let differing = old
                .chunks(BLOCK)
                .zip(new.chunks(BLOCK))
                .zip((self.offset + at..).step_by(BLOCK))
                .filter(|((old, new), _)| old != new)
                .map(|((old, new), at)| Block {
                    at,
                    old: old.to_vec(),
                    new: new.to_vec(),
                });
            blocks.extend(differing);
            Ok(())
        })?;
        Ok(blocks)
    }
}

/// The image, to be read and written by nobody else, and its length in bytes.
fn open(path: &Path) -> Result<(File, u64)> {
    let kind = fs::metadata(path)
        .with_context(|| format!("cannot open {}", path.display()))?
        .file_type();
    let is_device = kind.is_block_device();
    if !is_device && !kind.is_file() {
        bail!("{} is no regular file, and no disk", path.display());
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if is_device {
        // The kernel refuses this while a partition of the disk is mounted.
        options.custom_flags(OFlag::O_EXCL.bits());
    }
    let mut image = options.open(path).map_err(|error| {
        let what_to_do = advice(error.kind(), is_device, nix::unistd::geteuid().is_root());
        anyhow!("cannot open {} for writing: {error}{what_to_do}", path.display())
    })?;
    if !is_device {
        match image.try_lock() {
            Err(TryLockError::WouldBlock) => {
                bail!("{} is being worked on by another program", path.display());
            }
            // A file system without locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
    }
    let length = image.seek(SeekFrom::End(0))?;
    Ok((image, length))
}

/// What to do where an image or a disk cannot be opened.
pub(super) const fn advice(kind: io::ErrorKind, is_device: bool, is_root: bool) -> &'static str {
    match (kind, is_device) {
        (io::ErrorKind::ResourceBusy, _) => {
            ": unmount all partitions of this disk first (lsblk shows them), and end what else works on it"
        }
        (io::ErrorKind::PermissionDenied, _) if is_root => {
            ": not even root may write to it here; a container must be given the disk, and a protected file must be copied: do it on the machine itself, or with a copy of the image"
        }
        (io::ErrorKind::PermissionDenied, true) => ": only root may write to a disk: run it with sudo",
        (io::ErrorKind::PermissionDenied, false) => {
            ": run it as the owner of the image, or with a copy of it"
        }
        (io::ErrorKind::ReadOnlyFilesystem, true) => ": is the card locked?",
        _ => "",
    }
}

/// A file without a name, gone when this process is.
pub(super) fn temporary(directory: &Path) -> Result<File> {
    tempfile::tempfile_in(directory).map_err(|error| {
        anyhow!(
            "cannot make a temporary file in {}: {error}; set TMPDIR to a directory that can be written to",
            directory.display()
        )
    })
}

/// An open file as a path for programs that this process starts.
fn opened(file: &File) -> String {
    format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd())
}

/// Goes over `length` bytes by pieces: gives where each begins, and room for it.
fn each_piece(length: u64, mut act: impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    for at in (0..length).step_by(PIECE) {
        let size = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
        act(at, &mut buffer[..size])?;
    }
    Ok(())
}

/// A copy without a name, in which nothing is written where all bytes are zero.
fn copy(image: &File, offset: u64, size: u64) -> Result<File> {
    let directory = env::temp_dir();
    let copy = temporary(&directory)?;
    let copied = copy.set_len(size).and_then(|()| {
        each_piece(size, |at, piece| {
            image.read_exact_at(piece, offset + at)?;
            if piece.iter().any(|byte| *byte != 0) {
                copy.write_all_at(piece, at)?;
            }
            Ok(())
        })
    });
    copied.with_context(|| {
        format!(
            "cannot copy it to {}: set TMPDIR to a directory with room for {} MiB",
            directory.display(),
            size.div_ceil(1 << 20)
        )
    })?;
    Ok(copy)
}
