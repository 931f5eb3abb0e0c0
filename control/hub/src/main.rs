//! `holdfast-hub`: the central side of Holdfast.
//!
//! Exit codes: 0 done or stopped on request, 1 failed (the reason is on standard error), 2 wrong usage.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-hub: {error:#}");
            ExitCode::FAILURE
        }
    }
}
