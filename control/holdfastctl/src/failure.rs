//! How a command fails: the problem for a person, the exit code for a script.

use crate::codes;
use holdfast_protocol::{Problem, codes as shared};
use std::borrow::Cow;

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub Problem);

/// What a command gives.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with its code, message and what to do.
    pub fn new(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
        action: impl Into<String>,
    ) -> Self {
        Self(Problem::new(code, message, action))
    }

    /// The exit code that stands for this kind of failure; see [`EXIT_CODES`].
    pub fn exit_code(&self) -> u8 {
        match self.0.code.as_ref() {
            codes::USAGE | codes::NOT_CONFIRMED | codes::HUB_ADDRESS => 2,
            shared::UNAUTHENTICATED | shared::FORBIDDEN | codes::NOT_LOGGED_IN => 3,
            shared::NOT_FOUND | codes::CONTEXT_UNKNOWN => 4,
            codes::HUB_UNREACHABLE | codes::HUB_UNKNOWN | shared::HUB_IDENTITY_MISMATCH => 5,
            codes::WAIT_TIMED_OUT | codes::WAIT_FAILED => 6,
            _ => 1,
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

/// What each exit code means, for the help and for the documentation.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "the hub or this machine refused; the message says why"),
    (2, "the command line cannot be used as it is"),
    (3, "not logged in, or the operator's role does not allow it"),
    (4, "no such thing"),
    (5, "the hub does not answer, or is not the one that was confirmed"),
    (6, "--wait: a node failed, or the time was over"),
];
