//! One daemon per state directory.
//!
//! In: the state directory. Out: a lock for the life of the process. Guarantees: the kernel frees it when the process ends in
//! whatever way, so no stale lock ever keeps a box from starting.

use crate::{StoreError, codes};
use holdfast_protocol::Problem;
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// The lock on a state directory, freed on drop.
#[derive(Debug)]
pub struct StateLock {
    _file: Flock<File>,
}

/// Why the state directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("{directory} is in use by another holdfast{}", .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Held {
        /// The state directory.
        directory: PathBuf,
        /// Process id of the other one, where it could be read.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LockError {
    /// The same in the form that is shown.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Held { .. } => Problem::new(
                codes::STATE_LOCKED,
                self.to_string(),
                "stop the other one, or give this one its own state_dir",
            ),
            Self::Store(error) => error.problem(),
        }
    }
}

impl StateLock {
    /// Takes the lock, or says at once who has it. Makes the directory where it is missing.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        crate::fs::create_private_directory(directory)?;
        let path = directory.join("lock");
        let failed = |error: &std::io::Error| LockError::Store(StoreError::from_io(&path, error));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(crate::fs::PRIVATE_FILE)
            .open(&path)
            .map_err(|error| failed(&error))?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                return Err(LockError::Held {
                    directory: directory.to_owned(),
                    pid: text.trim().parse().ok(),
                });
            }
            Err((_, error)) => return Err(failed(&error.into())),
        };
        // The number is for people only; a full disk must not keep the daemon from starting.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}
