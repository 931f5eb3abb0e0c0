//! What can go wrong with the store, told apart by what a person must do.

use crate::codes;
use holdfast_protocol::{Generation, Problem, codes as protocol_codes};
use nix::errno::Errno;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the store could not do what it was asked to. Whatever it was, nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room left on the disk.
    #[error("{path}: the disk is full")]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// The file system, or the file, cannot be written.
    #[error("{path}: the disk is read-only")]
    ReadOnly {
        /// What was being written.
        path: PathBuf,
    },
    /// This user may not use the file.
    #[error("{path}: permission denied")]
    Forbidden {
        /// Which file.
        path: PathBuf,
    },
    /// The disk or file system reports an error.
    #[error("{path}: {detail}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        detail: String,
    },
    /// The content is damaged.
    #[error("{path}: the store is damaged: {detail}")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Someone else has the file open.
    #[error("{path}: another process has the store open")]
    Busy {
        /// Which file.
        path: PathBuf,
    },
    /// The file is of a newer version.
    #[error(
        "{path}: the store has schema version {found}; this build of holdfast knows versions up to {known}"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Version of the file.
        found: i64,
        /// Newest version that this build knows.
        known: i64,
    },
    /// The file is not Holdfast's.
    #[error("{path}: this is not a store of holdfast (application id {application_id:#010x})")]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// The id that it has.
        application_id: i64,
    },
    /// A document older than one accepted before was to be stored. Admission refuses these; the store does so once more.
    #[error("document {found} was to be stored although {highest} was accepted before")]
    NotNewer {
        /// Its generation.
        found: Generation,
        /// The highest generation accepted.
        highest: Generation,
    },
    /// Something that should not happen.
    #[error("{path}: {detail}")]
    Internal {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        detail: String,
    },
}

impl StoreError {
    /// Sorts an error of the file system.
    pub fn from_io(path: &Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => Self::DiskFull { path },
            Some(Errno::EROFS) => Self::ReadOnly { path },
            Some(Errno::EACCES | Errno::EPERM) => Self::Forbidden { path },
            _ => Self::Io {
                path,
                detail: error.to_string(),
            },
        }
    }

    /// Sorts an error of SQLite.
    pub(crate) fn from_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let detail = error.to_string();
        let path = path.to_owned();
        match error {
            rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
                Code::DiskFull => Self::DiskFull { path },
                Code::ReadOnly => Self::ReadOnly { path },
                Code::PermissionDenied => Self::Forbidden { path },
                Code::SystemIoFailure => Self::Io {
                    detail: format!("{detail} (SQLite code {})", failure.extended_code),
                    path,
                },
                Code::CannotOpen if is_on_read_only_disk(&path) => Self::ReadOnly { path },
                Code::CannotOpen => Self::Io { path, detail },
                Code::DatabaseCorrupt | Code::NotADatabase => Self::Corrupt { path, detail },
                Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed => {
                    Self::Busy { path }
                }
                _ => Self::Internal { path, detail },
            },
            // Content that is not of the type the schema says.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..) => Self::Corrupt { path, detail },
            _ => Self::Internal { path, detail },
        }
    }

    /// A file that can only be read: because of its disk, or because of its mode.
    pub(crate) fn read_only(path: &Path) -> Self {
        let path = path.to_owned();
        if is_on_read_only_disk(&path) {
            Self::ReadOnly { path }
        } else {
            Self::Forbidden { path }
        }
    }

    /// The same in the form that is shown and reported.
    pub fn problem(&self) -> Problem {
        let (code, action) = match self {
            Self::DiskFull { .. } => (
                protocol_codes::DISK_FULL,
                "free space on the file system of the state directory; what runs keeps running",
            ),
            Self::ReadOnly { .. } => (
                protocol_codes::DISK_READ_ONLY,
                "mount the file system writable; if it became read-only by itself, the disk is failing",
            ),
            Self::Forbidden { .. } => (
                codes::STORE_FORBIDDEN,
                "run holdfast as the user that owns the state directory",
            ),
            Self::Io { .. } => (
                codes::DISK_ERROR,
                "look at the kernel log for errors of the disk, and replace it if they recur",
            ),
            Self::Corrupt { .. } => (
                codes::STORE_CORRUPT,
                "nothing: the file is set aside and the hub sends the desired state again",
            ),
            Self::Busy { .. } => (
                codes::STORE_BUSY,
                "end the other process that uses the state directory",
            ),
            Self::Newer { .. } => (
                codes::STORE_NEWER,
                "run the version of holdfast that wrote it, or a newer one",
            ),
            Self::Foreign { .. } => (
                codes::STORE_FOREIGN,
                "set state_dir to a directory of holdfast's own",
            ),
            Self::NotNewer { .. } => (protocol_codes::GENERATION_OLDER, "publish anew"),
            Self::Internal { .. } => (
                protocol_codes::INTERNAL,
                "report this as a bug of holdfast with the log of the same moment",
            ),
        };
        Problem::new(code, self.to_string(), action)
    }
}

/// Whether the file system of `path` is mounted read-only.
fn is_on_read_only_disk(path: &Path) -> bool {
    let directory = path.parent().unwrap_or(path);
    nix::sys::statvfs::statvfs(directory)
        .is_ok_and(|stat| stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}
