//! The commands' side of the local API: one request over the socket.

use super::socket::PATH_MAX_BYTES;
use crate::{codes, http_exchange::exchange};
use bytes::Bytes;
use holdfast_protocol::Problem;
use http::{Method, Request, header};
use http_body_util::Full;
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::UnixStream, time::timeout};

/// The largest answer; a plan of the largest document has some hundred kilobytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// The longest that an answer may take; an enrolment asks the hub meanwhile.
const PATIENCE: Duration = Duration::from_mins(2);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No socket can be there: its path is longer than the system takes.
    #[error("the path of the socket, {}, has {} bytes; the system takes at most {PATH_MAX_BYTES}", .0.display(), .0.as_os_str().len())]
    PathTooLong(PathBuf),
    /// Nobody answers at the socket.
    #[error("no daemon answers at {}: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or the answer took too long.
    #[error("the daemon at {} did not answer: {reason}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// The daemon refused.
    #[error("{0}")]
    Refused(Problem),
}

impl From<&LocalError> for Problem {
    fn from(error: &LocalError) -> Self {
        match error {
            LocalError::Refused(problem) => problem.clone(),
            LocalError::PathTooLong(_) => Self::new(
                codes::SOCKET_UNUSABLE,
                error.to_string(),
                format!("set socket to a path of at most {PATH_MAX_BYTES} bytes, and start the daemon again"),
            ),
            LocalError::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Self::new(
                    codes::DAEMON_UNREACHABLE,
                    error.to_string(),
                    "run the command as the user that holdfast runs as, mostly root",
                )
            }
            LocalError::Unreachable { .. } | LocalError::Broken { .. } => Self::new(
                codes::DAEMON_UNREACHABLE,
                error.to_string(),
                "start it (systemctl start holdfast, or holdfast run), or give --socket or --config of the right one",
            ),
        }
    }
}

/// Asks the daemon at `socket`; `body` is JSON, empty for none. The answer is the body of a success.
pub async fn ask(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, LocalError> {
    let broken = |reason: String| LocalError::Broken {
        path: socket.to_owned(),
        reason,
    };
    timeout(PATIENCE, ask_at(socket, method, path, body))
        .await
        .map_err(|_| broken(format!("nothing within {} s", PATIENCE.as_secs())))?
}

async fn ask_at(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, LocalError> {
    let broken = |reason: String| LocalError::Broken {
        path: socket.to_owned(),
        reason,
    };
    if socket.as_os_str().len() > PATH_MAX_BYTES {
        return Err(LocalError::PathTooLong(socket.to_owned()));
    }
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| LocalError::Unreachable {
            path: socket.to_owned(),
            source,
        })?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| broken(error.to_string()))?;
    let (status, body) = exchange(stream, request, MAX_ANSWER_BYTES)
        .await
        .map_err(|error| broken(error.to_string()))?;
    if status.is_success() {
        return Ok(body);
    }
    match serde_json::from_slice(&body) {
        Ok(problem) => Err(LocalError::Refused(problem)),
        Err(_) => Err(broken(format!("HTTP status {status} without a problem"))),
    }
}
