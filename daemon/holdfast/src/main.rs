//! The Holdfast node: one binary that runs Kubernetes on a box nobody can walk up to.

use clap::Parser as _;
use holdfast::{
    cli::{self, Cli, Command, Common, Exit},
    daemon::Daemon,
    degraded,
    telemetry::{log, notify::Notifier},
};
use holdfast_protocol::{Problem, codes};
use std::{process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

#[global_allocator]
static HEAP: holdfast_memory::Heap = holdfast_memory::Heap;

/// Threads for calls that block (name lookups, waits for files). A few are enough, and each costs memory.
const BLOCKING_THREADS: usize = 4;
/// Stack of such a thread, in bytes.
const STACK: usize = 256 * 1024;
/// How long such a thread stays without work.
const THREAD_IDLE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let Cli { command, common } = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return cli::usage(&error, &arguments).into(),
    };
    let output = common.output;
    let exit = runtime().and_then(|runtime| match command {
        Command::Run => runtime.block_on(daemon(&common)).map(|()| Exit::Done),
        command => Ok(runtime.block_on(cli::execute(command, &common))),
    });
    exit.unwrap_or_else(|problem| cli::complain(&problem, output))
        .into()
}

/// Log, settings, build, spawn, wait, drain.
async fn daemon(common: &Common) -> Result<(), Problem> {
    let settings = Arc::new(common.settings()?);
    log::start(&settings.log).map_err(internal)?;
    let notifier = Notifier::from_environment();
    let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(internal)?;

    let mut pace = degraded::pace();
    let mut running = loop {
        let problem = match Daemon::build(settings.clone()).await {
            Ok(daemon) => break daemon.spawn(),
            Err(problem) if degraded::is_of_the_disk(&problem) => problem,
            Err(problem) => return Err(problem),
        };
        notifier.ready();
        notifier.status(&problem.message);
        tokio::select! {
            () = degraded::tell_until_it_passes(&settings, problem, &mut pace) => {}
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = notifier.keep_watchdog() => {}
        }
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    notifier.ready();
    notifier.status("");

    let ended = tokio::select! {
        ended = running.ended() => Some(ended),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        () = notifier.keep_watchdog() => None,
    };
    notifier.stopping();
    if let Some(ended) = ended {
        return ended;
    }
    tracing::info!("stopping; Kubernetes keeps running");
    running.drain().await
}

fn runtime() -> Result<Runtime, Problem> {
    // Two TLS libraries in one process would each bring their own; everything here uses this one.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        return Err(internal("another TLS provider is installed already"));
    }
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(STACK)
        .thread_keep_alive(THREAD_IDLE)
        .build()
        .map_err(internal)
}

fn internal(error: impl std::fmt::Display) -> Problem {
    Problem::new(
        codes::INTERNAL,
        error.to_string(),
        "report this with the log of the same moment",
    )
}
