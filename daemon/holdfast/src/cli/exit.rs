//! Exit codes, and how errors are shown.

use super::Output;
use crate::codes;
use holdfast_protocol::{Problem, codes as shared};
use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

/// The list of exit codes at the end of `--help`.
pub const HELP: &str = "Exit codes:
  0  done
  1  failed, or a check of `doctor` failed
  2  the command line or the settings are wrong
  3  this box is not enrolled
  4  no daemon answers at the socket
  5  the hub refused the token, or is not the hub that made it";

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed, or found something that someone must act on.
    Failed = 1,
    /// The command line or the settings are wrong.
    Usage = 2,
    /// The box is not enrolled.
    NotEnrolled = 3,
    /// No daemon answers.
    NoDaemon = 4,
    /// The hub refused the token, or is not the hub that made it.
    Refused = 5,
}

impl Exit {
    /// The exit code of a problem.
    pub fn of(problem: &Problem) -> Self {
        match problem.code.as_ref() {
            codes::SETTINGS_INVALID
            | codes::USAGE
            | codes::SETTINGS_UNREADABLE
            | shared::TOKEN_MALFORMED
            | shared::TOKEN_TRUNCATED
            | codes::TOKEN_MISSING
            | codes::TOKEN_UNREADABLE => Self::Usage,
            codes::NOT_ENROLLED => Self::NotEnrolled,
            codes::DAEMON_UNREACHABLE => Self::NoDaemon,
            shared::TOKEN_UNKNOWN
            | shared::TOKEN_EXPIRED
            | shared::TOKEN_REVOKED
            | shared::TOKEN_SPENT
            | shared::TOKEN_WRONG_MACHINE
            | shared::HUB_IDENTITY_MISMATCH
            | shared::NAME_TAKEN => Self::Refused,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Shows a problem on standard error, and gives its exit code.
pub fn complain(problem: &Problem, output: Output) -> Exit {
    let text = match output {
        Output::Json => serde_json::to_string(problem).unwrap_or_default(),
        Output::Text if problem.action.is_empty() => {
            format!("error: {}\n  code: {}", problem.message, problem.code)
        }
        Output::Text => format!(
            "error: {}\n  do:   {}\n  code: {}",
            problem.message, problem.action, problem.code
        ),
    };
    // With standard error closed there is no one to tell.
    let _ = writeln!(io::stderr(), "{text}");
    Exit::of(problem)
}

/// Shows what is wrong with the command line itself, or the help that was asked for.
pub fn usage(error: &clap::Error, arguments: &[OsString]) -> Exit {
    if !error.use_stderr() || !wants_json(arguments) {
        // With the stream closed there is no one to tell.
        let _ = error.print();
        return if error.use_stderr() {
            Exit::Usage
        } else {
            Exit::Done
        };
    }
    let text = error.render().to_string();
    let message = text.lines().next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let problem = Problem::new(codes::USAGE, message, "look at the help: holdfast COMMAND --help");
    complain(&problem, Output::Json);
    Exit::Usage
}

/// Whether `-o json` is among the arguments, in any of its forms.
fn wants_json(arguments: &[OsString]) -> bool {
    let texts: Vec<_> = arguments
        .iter()
        .filter_map(|argument| argument.to_str())
        .collect();
    texts.iter().enumerate().any(|(index, text)| match *text {
        "-o" | "--output" => texts.get(index + 1) == Some(&"json"),
        text => matches!(text, "-ojson" | "-o=json" | "--output=json"),
    })
}

/// Writes a result to standard output. A closed pipe (`holdfast history | head`) is no failure.
pub fn say(text: &str) -> Result<(), Problem> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Problem::new(
            shared::INTERNAL,
            format!("cannot write to standard output: {error}"),
            "",
        )),
        _ => Ok(()),
    }
}
