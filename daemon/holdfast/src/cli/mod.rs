//! The command line: what a person at the box types.
//!
//! Every command takes `-o text|json`. Results go to standard output, errors to standard error with their code and what to do.

pub mod docs;
mod enrol;
mod exit;
mod health;
pub(crate) mod machine;
mod orders;
mod plan;
mod query;
pub(crate) mod render;
mod render_boots;

pub use exit::{Exit, complain, usage};

use crate::{
    console,
    settings::{Settings, Sources},
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use holdfast_protocol::Problem;
use std::path::PathBuf;

/// Runs Kubernetes on a box that nobody can walk up to.
///
/// A box is enrolled once with a token. From then on it keeps its Kubernetes as its hub wants it, with or without a link.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = exit::HELP, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What all commands take.
    #[command(flatten)]
    pub common: Common,
}

/// Options of all commands.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Read exactly this file instead of /usr/lib, /run and /etc/holdfast/*.toml; may be given several times, later ones win.
    #[arg(long = "config", value_name = "FILE", global = true)]
    pub config: Vec<PathBuf>,
    /// Socket of the daemon, over the one of the settings.
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
    /// Form of the output.
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t, global = true)]
    pub output: Output,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON document.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon: bring up Kubernetes, keep the desired state, talk to the hub.
    Run,
    /// Enrol this box with a token that works once.
    ///
    /// A running daemon is asked to do it, and goes on at once. Without one, the identity is written for its next start. Without any
    /// token given, the file, systemd credential and kernel command line of the settings are looked at. A token file is wiped afterwards.
    Enrol(EnrolArguments),
    /// Show who this box is, how far it is, and the first cause of what is wrong.
    Status,
    /// Show what would change in Kubernetes; changes nothing, and needs no hub.
    ///
    /// Of a document or a release directory it shows what that would change here, with what the API server would refuse. Without a daemon it is
    /// compared with the box's own store; on a machine that is no box, with nothing.
    Plan(plan::PlanArguments),
    /// Show the documents this box has had, newest first; with `--boots`, the starts of the machine.
    History(HistoryArguments),
    /// Make no changes for some time: no newer document is begun, and nothing that someone changes is put back.
    ///
    /// What runs keeps running, and what is being written is brought to its end. The pause survives restarts, ends by itself, and is
    /// reported to the hub. Not even an urgent document is begun meanwhile.
    Pause(PauseArguments),
    /// End a pause.
    Resume,
    /// Go back to an earlier document; it stays until a newer one comes.
    ///
    /// The last three documents that were good are kept with all that they need, so this works without a link. It is reported to the hub,
    /// which shows the box as degraded until it gets a newer document.
    Rollback(RollbackArguments),
    /// Erase this box: Kubernetes with all data of its apps, the store, its keys and personal settings. It is then enrolled anew.
    ///
    /// The order is left on the disk, the machine restarts, and erases itself before anything else starts. A power cut on the way costs
    /// nothing: the next start goes on. The operating system stays as it is. Keys are overwritten, and the device is told to erase what is free;
    /// flash memory may keep copies until it reuses them.
    FactoryReset(ResetArguments),
    /// Show on this terminal who this box is, what runs and what is wrong, with keys for network, log and factory reset.
    Console,
    /// Note the start or end of the machine down; units of systemd run it.
    #[command(hide = true)]
    BootRecord {
        /// Which moment.
        moment: BootMoment,
    },
    /// Apply the personal settings of the EFI system partition; a unit of systemd runs it at each start.
    #[command(hide = true)]
    Personalise(PersonaliseArguments),
    /// Say whether this start of the machine is good: disk, store, Kubernetes, and the apps that ran before. The hub is no part of it.
    ///
    /// Ends with 0 where all checks are good, and with 1 where one is not.
    Health(HealthArguments),
    /// Check everything that can be wrong, and say what to do. Needs neither daemon nor enrolment; changes nothing.
    Doctor,
    /// Show version, target and schema.
    Version,
    /// Print a generated page of the documentation.
    #[command(hide = true)]
    Docs {
        /// Which page.
        page: Page,
    },
}

/// Where the token is.
#[derive(Debug, Args)]
pub struct EnrolArguments {
    /// The token, or `-` to read it from standard input, where other users cannot see it, or `@FILE` as `--token-file FILE`.
    #[arg(value_name = "TOKEN", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// File that holds the token; wiped after success.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// How to judge.
#[derive(Debug, Args)]
pub struct HealthArguments {
    /// Wait until all checks are good, at most as long as the deadline.
    #[arg(long)]
    pub wait: bool,
    /// How long to wait: `30s`, `10m`.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = orders::length)]
    pub deadline: std::time::Duration,
    /// For holdfast-health.service: wait, write the verdict into the record of boots, and end with 1 only where the machine must restart: on
    /// a bad try of a new operating system, or on the third bad start in a row of one that was good.
    #[arg(long)]
    pub boot: bool,
}

/// How long, and why.
#[derive(Debug, Args)]
pub struct PauseArguments {
    /// How long: `30m`, `2h`, `1d`; at most 30 days.
    #[arg(long = "for", value_name = "TIME", value_parser = orders::length, allow_hyphen_values = true)]
    pub length: std::time::Duration,
    /// Why, for whoever sees it in the hub.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = orders::reason)]
    pub reason: String,
}

/// Which history.
#[derive(Debug, Args)]
pub struct HistoryArguments {
    /// Show the starts of the machine: why each before it ended, what ran, and whether it was found good. Needs no daemon.
    #[arg(long)]
    pub boots: bool,
}

/// How much is erased.
#[derive(Debug, Args)]
pub struct ResetArguments {
    /// Stay enrolled: keys, personal settings and the record of boots are kept, and the box fetches its state again.
    #[arg(long)]
    pub keep_identity: bool,
    /// Ask nothing.
    #[arg(long)]
    pub yes: bool,
    /// Only leave the order; the next start of the machine carries it out.
    #[arg(long)]
    pub no_restart: bool,
    /// Take back an order, as long as the machine was not restarted since.
    #[arg(long, conflicts_with_all = ["keep_identity", "yes", "no_restart", "carry_out"])]
    pub cancel: bool,
    /// Carry out an order that was left before the machine was restarted.
    #[arg(long, hide = true)]
    pub carry_out: bool,
    /// File with the personal settings, in place of the one on the EFI system partition.
    #[arg(long, hide = true, value_name = "FILE")]
    pub personal: Option<PathBuf>,
}

/// A moment of the machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BootMoment {
    /// It was started.
    Start,
    /// It is shutting down in good order.
    End,
}

/// Where the personal settings are.
#[derive(Debug, Args)]
pub struct PersonaliseArguments {
    /// What to do.
    #[arg(value_name = "ACTION", value_parser = ["apply"])]
    pub action: String,
    /// Directory of personal.toml.
    #[arg(long, value_name = "DIRECTORY")]
    pub from: PathBuf,
    /// Root of the file system that is configured.
    #[arg(long, value_name = "DIRECTORY", default_value = "/")]
    pub root: PathBuf,
}

/// Where to.
#[derive(Debug, Args)]
pub struct RollbackArguments {
    /// The document to go back to, as `holdfast history` shows it (1.41); the last good one before the present one where absent.
    #[arg(value_name = "GENERATION")]
    pub generation: Option<holdfast_protocol::Generation>,
}

/// Generated pages of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Page {
    /// docs/configuration.md
    Configuration,
    /// docs/cli.md
    Cli,
    /// docs/metrics.md
    Metrics,
}

impl Common {
    /// Where the settings come from.
    pub fn sources(&self) -> Sources {
        if self.config.is_empty() {
            Sources::default()
        } else {
            Sources::Files(self.config.clone())
        }
    }

    /// The settings of this command: those of the files, and what the command line puts over them.
    pub fn settings(&self) -> Result<Settings, Problem> {
        let mut settings = self.sources().load().map_err(|error| Problem::from(&error))?;
        if let Some(socket) = &self.socket {
            settings.socket.clone_from(socket);
        }
        Ok(settings)
    }
}

/// Carries out every command but `run`.
pub async fn execute(command: Command, common: &Common) -> Exit {
    let output = common.output;
    let done = match command {
        Command::Run => return Exit::Usage,
        Command::Enrol(arguments) => enrol::run(arguments, common).await,
        Command::Status => query::status(common).await,
        Command::Plan(arguments) => plan::run(arguments, common).await,
        Command::History(arguments) if arguments.boots => query::boots(common),
        Command::History(_) => query::history(common).await,
        Command::Pause(arguments) => orders::pause(arguments, common).await,
        Command::Resume => orders::resume(common).await,
        Command::Rollback(arguments) => orders::roll_back(&arguments, common).await,
        Command::FactoryReset(arguments) => machine::factory_reset(&arguments, common),
        Command::Console => console::run(common).await,
        Command::BootRecord { moment } => machine::boot_record(moment, common),
        Command::Personalise(arguments) => machine::personalise(&arguments, common),
        Command::Health(arguments) => health::run(&arguments, common).await,
        Command::Doctor => query::doctor(common).await,
        Command::Version => query::version(output),
        Command::Docs { page } => docs::print(page),
    };
    done.unwrap_or_else(|problem| complain(&problem, output))
}
