//! The socket of the local API: made with mode 0600 from its first moment; one that a crash left behind is replaced.

use crate::codes;
use holdfast_protocol::Problem;
use nix::sys::stat::{Mode, umask};
use std::{
    fs, io,
    os::unix::{
        fs::FileTypeExt as _,
        net::{UnixListener as StdListener, UnixStream},
    },
    path::{Path, PathBuf},
};
use tokio::net::UnixListener;

/// Longest path of a socket in bytes: `sun_path` of unix(7) without its final zero.
pub const PATH_MAX_BYTES: usize = 107;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error("another process answers at {}", .0.display())]
    Taken(PathBuf),
    /// Something that is no socket is there.
    #[error("{} is there and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// It cannot be made.
    #[error("cannot make the socket {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<&SocketError> for Problem {
    fn from(error: &SocketError) -> Self {
        let action = match error {
            SocketError::Taken(_) => "stop the other daemon, or give this one its own socket and state_dir",
            SocketError::NotASocket(_) => "move it away, or set socket to another path",
            SocketError::Io { .. } => {
                "check that the directory can be written and that the path has at most 107 bytes, or set socket to another path"
            }
        };
        Self::new(codes::SOCKET_UNUSABLE, error.to_string(), action)
    }
}

/// Makes the socket and listens. Must be called before other threads make files: the process's file mode mask is narrow meanwhile.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError::Io {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(SocketError::Taken(path.to_owned())),
        Ok(_) => fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory).map_err(failed)?;
            }
        }
        Err(error) => return Err(failed(error)),
    }
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = StdListener::bind(path);
    umask(before);
    let listener = bound.map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}
