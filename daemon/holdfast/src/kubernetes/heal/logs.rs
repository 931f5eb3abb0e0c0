//! What was written to a log since k3s was started last.
//!
//! In: a log that somebody appends to, cuts and replaces. Out: its new part, each once. It guarantees that words of an earlier life are never
//! taken for those of this one, and that no more than a bounded part is read.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

/// The most that is read at once, in bytes: the newest.
const LONGEST: u64 = 256 * 1024;

/// A log, and how far it was read.
#[derive(Clone, Debug)]
pub struct Log {
    path: PathBuf,
    file: u64,
    offset: u64,
}

impl Log {
    /// A log that may not be there yet. What it holds already is of before.
    pub fn from_now(path: PathBuf) -> Self {
        let mut log = Self {
            path,
            file: 0,
            offset: 0,
        };
        log.skip();
        log
    }

    /// Takes what it holds now for read.
    pub fn skip(&mut self) {
        if let Ok(metadata) = std::fs::metadata(&self.path) {
            self.file = metadata.ino();
            self.offset = metadata.len();
        }
    }

    /// What is new.
    pub fn read(&mut self) -> String {
        let mut text = Vec::new();
        let Ok(mut file) = File::open(&self.path) else {
            return String::new();
        };
        let Ok(metadata) = file.metadata() else {
            return String::new();
        };
        let size = metadata.len();
        // Another file, or the same one after a cut: all of it is new.
        if metadata.ino() != self.file || size < self.offset {
            self.offset = 0;
        }
        self.file = metadata.ino();
        let from = self.offset.max(size.saturating_sub(LONGEST));
        self.offset = size;
        if from == size {
            return String::new();
        }
        let read = file
            .seek(SeekFrom::Start(from))
            .and_then(|_| file.take(size - from).read_to_end(&mut text));
        if let Err(error) = read {
            tracing::debug!(%error, path = %self.path.display(), "cannot read what is new in a log");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}
