//! Fleet command line of Holdfast: log in to a hub, make tokens, look at nodes, make and assign releases.

mod cli;
mod client;
mod codes;
mod commands;
mod contexts;
mod docs;
mod failure;
mod output;
mod stream;
mod trust;
mod upload;

use cli::Cli;
use failure::Failure;
use output::Format;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match cli::parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => match cli::mistake(&error, &arguments) {
            Some(failure) => {
                report(&failure, Format::Json);
                return ExitCode::from(failure.exit_code());
            }
            None => error.exit(),
        },
    };
    let format = cli.global.output;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure, format);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(cli: Cli) -> failure::Result<()> {
    // The system's roots (see the trust module) use whatever provider is installed; that it is installed already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                holdfast_protocol::codes::INTERNAL,
                format!("the runtime cannot start: {error}"),
                "check the limits of this shell: ulimit -a",
            )
        })?
        .block_on(commands::run(cli))
}

/// Says on the standard error why the command failed: as a problem for programs, as two lines for people.
fn report(failure: &Failure, format: Format) {
    let problem = &failure.0;
    if format == Format::Json
        && let Ok(text) = serde_json::to_string(problem)
    {
        return output::note(&text);
    }
    output::note(&format!(
        "error: {}",
        problem.message.replace(['\r', '\u{1b}'], " ")
    ));
    if !problem.action.is_empty() {
        output::note(&format!("  → {}", problem.action.replace(['\r', '\u{1b}'], " ")));
    }
    output::note(&format!("  ({})", problem.code));
}
