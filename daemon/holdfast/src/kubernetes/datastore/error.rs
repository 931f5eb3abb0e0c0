//! What can go wrong with the files of the datastore, told apart by what a person must do.

use crate::codes;
use holdfast_protocol::{Problem, codes as protocol_codes};
use nix::errno::Errno;
use std::{
    io,
    path::{Path, PathBuf},
};

/// A failure of the datastore's files. Whatever it was, no intact file was lost by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatastoreError {
    /// `datastore = "ram"` on a file system that is not in memory.
    #[error("{} is not in memory: it is on {found}", path.display())]
    NotInMemory {
        /// `kubernetes.datastore_ram_dir`.
        path: PathBuf,
        /// What the file system is.
        found: String,
    },
    /// The datastore is not SQLite, so that it cannot be held in memory.
    #[error("{} exists: this box keeps its datastore in etcd, which cannot be held in memory", path.display())]
    NotSqlite {
        /// What says so.
        path: PathBuf,
    },
    /// No room for it.
    #[error("{}: no space left", path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// The file system does not do what it is asked to.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// The content is damaged.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// SQLite cannot read or write now.
    #[error("{}: {reason}", path.display())]
    Sqlite {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
}

impl DatastoreError {
    /// Sorts an error of the file system.
    pub fn from_io(path: &Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => Self::NoSpace { path },
            _ => Self::File {
                path,
                reason: error.to_string(),
            },
        }
    }

    /// Sorts an error of SQLite.
    pub fn from_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let reason = error.to_string();
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Self::Damaged { path, reason },
            Some(Code::DiskFull) => Self::NoSpace { path },
            _ => Self::Sqlite { path, reason },
        }
    }

    /// Whether the content is damaged.
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    /// The form in which people see it.
    pub fn problem(&self) -> Problem {
        let (code, action) = match self {
            Self::NotInMemory { .. } => (
                codes::DATASTORE_NOT_IN_MEMORY,
                "mount a tmpfs there, or set kubernetes.datastore_ram_dir to a directory on one, or use datastore: persistent",
            ),
            Self::NotSqlite { .. } => (
                codes::DATASTORE_NOT_SQLITE,
                "use datastore: persistent on boxes with embedded etcd",
            ),
            Self::NoSpace { .. } => (
                protocol_codes::DISK_FULL,
                "free space on that file system; what runs keeps running",
            ),
            Self::File { .. } | Self::Sqlite { .. } => (
                codes::DATASTORE_FILE,
                "check owner and mode of that path, and the kernel log for errors of the disk; it is tried again by itself",
            ),
            Self::Damaged { .. } => (
                codes::DATASTORE_DAMAGED,
                "nothing: it is set aside and rebuilt; replace the disk if this recurs",
            ),
        };
        Problem::new(code, self.to_string(), action)
    }
}
