//! The file of the flight recorder: `boots/log`, a line a record, each with the start of its SHA-256.
//!
//! In: records. Out: what is whole of them, in order. Guarantees: a record that was written is on the disk; a write that power cut
//! short costs that record alone, and the next writer cuts the torn end off; a damaged line costs itself; the file never grows
//! beyond [`MAX_BYTES`] and one record, nor beyond [`MAX_BOOTS`] boots and a few; it is only ever exchanged whole. Several processes may write: each
//! takes the lock `boots/lock` for the time of one write.

use super::entry::{BootId, Noted, Record};
use crate::failpoint;
use holdfast_protocol::Digest;
use holdfast_store::{
    StoreError, fs::PRIVATE_FILE, fs::create_private_directory, fs::open_regular, fs::write_atomic,
};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, lchown},
    path::{Path, PathBuf},
};

/// Boots that are kept when the file is made smaller.
pub const MAX_BOOTS: usize = 256;
/// Boots that may be in the file before it is made smaller: so that not each start writes the whole file.
const BOOTS_BEFORE_COMPACTION: usize = MAX_BOOTS + 32;
/// The most bytes of the file: 256 KiB.
pub const MAX_BYTES: u64 = 256 * 1024;
/// What is left of it when it had grown too large: half, for the same reason.
const BYTES_AFTER_COMPACTION: usize = 128 * 1024;
/// The most notes of one boot; the later ones are left out, so that nothing that repeats itself drives out other boots.
pub const MAX_NOTES: usize = 64;
/// Hexadecimal digits of the digest before each record.
const CHECK: usize = 16;

/// What the file holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Its whole records, in order.
    pub(super) records: Vec<Record>,
    /// Bytes in damaged lines within it.
    pub(super) damaged: u64,
    /// Bytes of a torn end.
    pub(super) torn: u64,
    /// Bytes up to the torn end.
    whole: u64,
}

/// The file, locked for writing.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    pub(super) content: Content,
    _lock: Flock<File>,
}

pub(super) fn path_in(directory: &Path) -> PathBuf {
    directory.join("log")
}

/// Reads the file without writing anything. One that is not there is empty.
pub(super) fn read(directory: &Path) -> Result<Content, StoreError> {
    let path = path_in(directory);
    let mut bytes = Vec::new();
    let read = open_regular(OpenOptions::new().read(true), &path)
        .and_then(|file| file.take(4 * MAX_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(parse(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::default()),
        Err(error) => Err(StoreError::from_io(&path, &error)),
    }
}

pub(super) fn parse(bytes: &[u8]) -> Content {
    let mut content = Content::default();
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let (lines, torn) = bytes.split_at(whole);
    content.torn = torn.len() as u64;
    content.whole = whole as u64;
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        match record(line.strip_suffix(b"\n").unwrap_or(line)) {
            Some(record) => content.records.push(record),
            None => content.damaged += line.len() as u64,
        }
    }
    content
}

fn record(line: &[u8]) -> Option<Record> {
    let (check, json) = line.split_at_checked(CHECK)?;
    let json = json.strip_prefix(b" ")?;
    (check_of(json).as_bytes() == check)
        .then(|| serde_json::from_slice(json).ok())
        .flatten()
}

fn check_of(json: &[u8]) -> String {
    let mut hex = Digest::of(json).hex();
    hex.truncate(CHECK);
    hex
}

fn line(record: &Record) -> Vec<u8> {
    // Structs of strings, numbers and times always serialise.
    let json = serde_json::to_vec(record).unwrap_or_default();
    let mut line = check_of(&json).into_bytes();
    line.push(b' ');
    line.extend_from_slice(&json);
    line.push(b'\n');
    line
}

impl Log {
    /// Locks and reads the file, and cuts a torn end off.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        create_private_directory(directory)?;
        let lock_path = directory.join("lock");
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| StoreError::from_io(&path, &error)
        };
        // The state directory may be that of another user, and this be root.
        if directory.is_symlink() {
            return Err(failed(directory)(io::Error::other(
                "it is a symbolic link, and no directory",
            )));
        }
        let options = |append| {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .append(append)
                .write(true)
                .create(true)
                .mode(PRIVATE_FILE);
            options
        };
        let lock = open_regular(options(false).truncate(false), &lock_path).map_err(failed(&lock_path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, error)| StoreError::from_io(&lock_path, &error.into()))?;
        let path = path_in(directory);
        let new = !path.exists();
        let owned = [directory, lock_path.as_path(), path.as_path()];
        let mut file = open_regular(&mut options(true), &path).map_err(failed(&path))?;
        if new {
            holdfast_store::fs::sync_directory_of(&path)?;
        }
        for path in owned {
            give_to_owner(directory, path);
        }
        let mut bytes = Vec::new();
        (&mut file)
            .take(4 * MAX_BYTES)
            .read_to_end(&mut bytes)
            .map_err(failed(&path))?;
        let content = parse(&bytes);
        if content.torn > 0 {
            file.set_len(content.whole)
                .and_then(|()| file.sync_data())
                .map_err(failed(&path))?;
        }
        Ok(Self {
            path,
            file,
            content,
            _lock: lock,
        })
    }

    /// Adds records; they are on the disk when it returns. What could not be written whole is taken back.
    pub(super) fn append(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        let bytes: Vec<u8> = records.iter().flat_map(line).collect();
        let whole = self.content.whole;
        let added = bytes.len() as u64;
        failpoint::reach("boots-before-append");
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let written = self
            .file
            .write_all(first)
            .and_then(|()| {
                failpoint::reach("boots-half-append");
                self.file.write_all(second)
            })
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // On a full disk, half a record must not stay; if this fails too, the next writer cuts it off.
            let _ = self.file.set_len(whole);
            return Err(StoreError::from_io(&self.path, &error));
        }
        failpoint::reach("boots-after-append");
        self.content.whole += added;
        self.content.records.extend(records);
        self.compact()
    }

    /// Makes the file smaller where it is too large: the newest boots stay, with all their notes.
    fn compact(&mut self) -> Result<(), StoreError> {
        let boots = self.content.records.iter().filter(|record| began(record)).count();
        if boots < BOOTS_BEFORE_COMPACTION && self.content.whole <= MAX_BYTES {
            return Ok(());
        }
        let room = if self.content.whole > MAX_BYTES {
            BYTES_AFTER_COMPACTION
        } else {
            usize::MAX
        };
        let kept = newest(&self.content.records, room);
        let bytes: Vec<u8> = kept.iter().flat_map(line).collect();
        failpoint::reach("boots-before-compaction");
        write_atomic(&self.path, &bytes, PRIVATE_FILE)?;
        failpoint::reach("boots-after-compaction");
        if let Some(directory) = self.path.parent() {
            give_to_owner(directory, &self.path);
        }
        self.file = OpenOptions::new()
            .append(true)
            .open(&self.path)
            .map_err(|error| StoreError::from_io(&self.path, &error))?;
        self.content = Content {
            records: kept,
            whole: bytes.len() as u64,
            ..Content::default()
        };
        Ok(())
    }

    /// Whether this boot has its first record.
    pub(super) fn has_begun(&self, boot: &BootId) -> bool {
        self.content
            .records
            .iter()
            .any(|record| matches!(record, Record::Began(began) if began.id == *boot))
    }

    /// The notes of a boot.
    pub(super) fn notes_of<'a>(&'a self, wanted: &'a BootId) -> impl Iterator<Item = &'a Noted> {
        self.content
            .records
            .iter()
            .filter_map(move |record| match record {
                Record::Noted { boot, noted } if boot == wanted => Some(noted),
                _ => None,
            })
    }
}

/// Gives a file that root made to whoever owns the state directory: the node may run as a user of its own.
fn give_to_owner(directory: &Path, path: &Path) {
    let Some(state) = directory.parent().and_then(|state| std::fs::metadata(state).ok()) else {
        return;
    };
    let Ok(facts) = std::fs::symlink_metadata(path) else {
        return;
    };
    if facts.uid() != state.uid() {
        // Only root can, and only root makes files that are not the owner's. What a link leads to is nobody's to give away.
        let _ = lchown(path, Some(state.uid()), Some(state.gid()));
    }
}

fn began(record: &Record) -> bool {
    matches!(record, Record::Began(_))
}

/// The records of the newest boots: at most [`MAX_BOOTS`], and of these the ones that fit into `room` bytes, the newest always.
fn newest(records: &[Record], room: usize) -> Vec<Record> {
    let mut kept: Vec<&[Record]> = Vec::new();
    let mut bytes = 0;
    let mut end = records.len();
    for start in (0..records.len()).rev().filter(|index| began(&records[*index])) {
        let boot = &records[start..end];
        bytes += boot.iter().map(|record| line(record).len()).sum::<usize>();
        if kept.len() == MAX_BOOTS || (!kept.is_empty() && bytes > room) {
            break;
        }
        kept.push(boot);
        end = start;
    }
    kept.into_iter().rev().flatten().cloned().collect()
}
