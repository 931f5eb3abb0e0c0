//! The command line of the hub.

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use holdfast_hub::{
    api::operators,
    config::{self, Config, LogFormat, TextDuration},
    database::audit::Actor,
    metrics, restore, run,
};
use holdfast_protocol::operator::OperatorRole;
use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// The central side of Holdfast: enrolment, releases, signing, status, web page.
#[derive(Parser)]
#[command(name = "holdfast-hub", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the hub until SIGTERM or SIGINT. Prints one line of JSON on standard output when it is ready.
    Run(ConfigFile),
    /// Makes database, keys and the first administrator, and ends.
    Init(ConfigFile),
    /// Makes every document newer than any that was sent before; once after a restore from a backup, before the hub runs again.
    Restored(ConfigFile),
    /// Operators, also while the hub runs.
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Issues a certificate of the hub's CA to an external broker, also while the hub runs.
    BrokerCertificate(BrokerCertificate),
    /// Prints documentation that is made from the code, as Markdown.
    #[command(hide = true)]
    Docs {
        /// Which page.
        page: Page,
    },
}

#[derive(Args)]
struct ConfigFile {
    /// Configuration file (TOML); `docs/configuration.md` has all keys.
    #[arg(long, value_name = "FILE", default_value = "/etc/holdfast-hub/hub.toml")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum OperatorCommand {
    /// Adds an operator and prints the bearer token, which is shown this once.
    Create {
        /// Name: lower-case letters, digits and '-'.
        name: String,
        /// What they may do.
        #[arg(long, value_enum)]
        role: Role,
        #[command(flatten)]
        config: ConfigFile,
    },
}

#[derive(Args)]
struct BrokerCertificate {
    /// DNS names and IP addresses of the broker.
    #[arg(required = true)]
    names: Vec<String>,
    /// Directory for broker.pem, broker.key, ca.pem and revoked.pem.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long the certificate counts. Issue a new one before its end, and make the broker read it.
    #[arg(long, value_name = "DURATION", default_value = "365d")]
    lifetime: TextDuration,
    #[command(flatten)]
    config: ConfigFile,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// Everything.
    Admin,
    /// See everything but secrets, change nothing.
    Viewer,
}

#[derive(Clone, Copy, ValueEnum)]
enum Page {
    /// All keys of the configuration.
    Configuration,
    /// All commands.
    Cli,
    /// All figures of /metrics.
    Metrics,
}

/// Reads the command line and does what it says.
pub fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Run(file) => {
            let config = config::load(&file.config)?;
            start_log(&config)?;
            runtime()?.block_on(serve(config))
        }
        Command::Init(file) => {
            let config = config::load(&file.config)?;
            start_log(&config)?;
            let opened = runtime()?.block_on(run::open(&config))?;
            print(&format!("{}\n", opened.admin_token_file.display()))
        }
        Command::Restored(file) => {
            let config = config::load(&file.config)?;
            let restored = runtime()?.block_on(restore::restored(&config))?;
            print(&format!(
                "epoch {}, {} documents signed anew\n",
                restored.epoch, restored.documents
            ))
        }
        Command::Operator(OperatorCommand::Create { name, role, config }) => {
            let config = config::load(&config.config)?;
            let role = match role {
                Role::Admin => OperatorRole::Admin,
                Role::Viewer => OperatorRole::Viewer,
            };
            runtime()?.block_on(create_operator(&config, &name, role))
        }
        Command::BrokerCertificate(request) => {
            let config = config::load(&request.config.config)?;
            runtime()?.block_on(run::issue_broker_certificate(
                &config,
                &request.names,
                request.lifetime.0,
                &request.out,
            ))
        }
        Command::Docs { page } => print(&match page {
            Page::Configuration => config::markdown(),
            Page::Cli => cli_markdown(),
            Page::Metrics => metrics::markdown(),
        }),
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Fails only where a provider was installed already, and then it is this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    run::run(config, shutdown, |ready| {
        let line = serde_json::to_string(ready).unwrap_or_default();
        if let Err(error) = print(&format!("{line}\n")) {
            tracing::warn!(%error, "nobody reads the standard output");
        }
    })
    .await
}

async fn create_operator(config: &Config, name: &str, role: OperatorRole) -> anyhow::Result<()> {
    let database = run::open_existing(config).await?;
    let token = operators::new_token().map_err(|error| error.problem)?;
    let made = operators::add(&database, &Actor::Hub, name, role, token)
        .await
        .map_err(|error| error.problem)?;
    database.close().await;
    print(&format!("{}\n", made.bearer_token))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let level: LevelFilter = config.log.level.parse()?;
    // Libraries are heard from `warn` on, unless everything is asked for.
    let libraries = if level >= LevelFilter::TRACE {
        level
    } else {
        level.min(LevelFilter::WARN)
    };
    let targets = Targets::new()
        .with_target("holdfast", level)
        .with_default(libraries);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match config.log.format {
        LogFormat::Human => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(targets))
        .try_init()
        .context("the log cannot start")
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn cli_markdown() -> String {
    let mut text = String::new();
    let mut root = Cli::command();
    root.build();
    describe(&mut text, &mut root);
    text
}

fn describe(text: &mut String, command: &mut clap::Command) {
    let name = command
        .get_bin_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();
    let mut plain = command.clone().term_width(100);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "### `{name}`\n\n```text\n{}\n```\n",
        plain.render_long_help().to_string().trim_end()
    );
    for inner in command.get_subcommands_mut() {
        if !inner.is_hide_set() && inner.get_name() != "help" {
            describe(text, inner);
        }
    }
}
