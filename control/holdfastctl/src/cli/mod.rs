//! The command line, as it is typed. What each command does is in [`crate::commands`].

mod os;
mod release;
mod values;

pub use os::OsCommand;
pub use release::{ReleaseCommand, ReleaseSource};

use crate::{
    codes,
    failure::{EXIT_CODES, Failure},
    output::Format,
};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use holdfast_protocol::{Digest, NodeId, operator::OperatorRole};
use std::{ffi::OsString, path::PathBuf, time::Duration};
use values::{duration, label_change, pair, role, some_nodes};

/// Fleet command line of Holdfast: enrolment tokens, nodes, releases and operators of one hub
#[derive(Debug, Parser)]
#[command(name = "holdfastctl", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Hub to talk to, by the name it got at log-in
    #[arg(long, global = true, env = "HOLDFAST_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Form of the answer
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Format,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Log in to a hub and keep that as a context
    ///
    /// A fresh hub has a CA of its own, which no machine knows. Confirm it once: with its certificate (--ca) or the digest of its
    /// key (--pin). Without either, only a hub with a certificate from the system's roots is trusted; for any other the
    /// pin is shown, with how to check it, and nothing is sent.
    Login(Login),
    /// Hubs that you logged in to
    #[command(subcommand)]
    Context(ContextCommand),
    /// Enrolment tokens: each lets one box join, once
    #[command(subcommand)]
    Token(TokenCommand),
    /// Nodes of the fleet
    #[command(subcommand)]
    Node(NodeCommand),
    /// Releases: sets of apps that nodes can run
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Artifacts at the hub: k3s binaries, archives of images, blobs of manifests
    #[command(subcommand)]
    Artifact(ArtifactCommand),
    /// Images of the operating system
    #[command(subcommand)]
    Os(OsCommand),
    /// Secrets: values that single nodes can read, sealed here before they go to the hub
    #[command(subcommand)]
    Secret(SecretCommand),
    /// People and programs that may use this hub
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// What was done or tried at the hub, newest first
    Audit {
        /// How many entries
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: u32,
    },
    /// Who you are to the hub
    Whoami,
    /// Print a script that completes commands in your shell
    ///
    /// bash: source <(holdfastctl completion bash)
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Version of holdfastctl
    Version,
    /// Print pages of the documentation, made from this program
    #[command(hide = true, subcommand)]
    Docs(Docs),
}

/// Pages of the documentation.
#[derive(Debug, Subcommand)]
pub enum Docs {
    /// All commands, as Markdown
    Cli,
}

/// Options of the log-in.
#[derive(Debug, Args)]
pub struct Login {
    /// Address of the hub, https://…; plain http only on this machine
    pub url: String,
    /// File that holds the operator token, or - for the standard input; asked for where absent
    #[arg(long, value_name = "FILE", env = "HOLDFAST_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// CA certificate of the hub (keys/ca.pem below its data directory)
    #[arg(long, value_name = "FILE", conflicts_with = "pin")]
    pub ca: Option<PathBuf>,
    /// Digest of the hub's CA key, sha256:…
    #[arg(long, value_name = "PIN")]
    pub pin: Option<Digest>,
    /// Name of the context
    #[arg(long, default_value = "default")]
    pub name: String,
}

/// Commands about contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List them; the current one has a star
    List,
    /// Use another one from now on
    Use {
        /// Its name
        name: String,
    },
    /// Forget one, with its token
    Delete {
        /// Its name
        name: String,
    },
}

/// Commands about enrolment tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is shown this once
    Create {
        /// How long it can be used: 30m, 24h, 7d
        #[arg(long, default_value = "24h", value_parser = duration)]
        ttl: Duration,
        /// Name that the node gets; the box's own wish where absent
        #[arg(long, value_name = "NODE")]
        name: Option<NodeId>,
        /// Label that the node gets; can be repeated
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// Serial number that the machine must have
        #[arg(long)]
        serial: Option<String>,
        /// Print the token and nothing else
        #[arg(long, short)]
        quiet: bool,
    },
    /// List tokens, without their secrets
    List,
    /// Make a token useless
    Revoke {
        /// Its id, as the list shows it
        id: String,
    },
}

/// Commands about nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes, the worst first
    List {
        /// Only those with these labels: site=berlin,tier!=test
        #[arg(long, short = 'l')]
        selector: Option<String>,
    },
    /// Show one node: what it should run, what it proved, what is wrong
    Show {
        /// Its name
        node: NodeId,
    },
    /// Set or (KEY-) remove labels
    Label {
        /// Its name
        node: NodeId,
        /// KEY=VALUE to set, KEY- to remove
        #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = label_change)]
        changes: Vec<(String, Option<String>)>,
    },
    /// Take a node out of the fleet and revoke its certificate; what runs on it keeps running
    Delete {
        /// Its name
        node: NodeId,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Show what happened on a node, newest first
    Events {
        /// Its name
        node: NodeId,
    },
}

/// Commands about artifacts.
#[derive(Debug, Subcommand)]
pub enum ArtifactCommand {
    /// Send files to the hub, where nodes fetch them from; says how a release names them
    Push {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// What the hub holds, the newest first
    List,
    /// Remove what no release and no node names any more
    Gc {
        /// Only what was sent before so long: 24h, 30d; at least 10m
        #[arg(long, value_name = "AGE", default_value = "24h", value_parser = duration)]
        older_than: Duration,
        /// Say what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Commands about secrets.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Seal a value to nodes and store it at the hub, which cannot read it
    ///
    /// The keys of the nodes come from the hub; what was sealed to which key is shown. Nodes whose release uses the secret get it at once, as
    /// a new generation. Release directories name a secret in release.yaml, below apps.NAME.secrets and k3s.registries.credentials.
    #[command(group = clap::ArgGroup::new("to").required(true).multiple(true))]
    Set {
        /// Its name
        name: NodeId,
        /// A node by name; can be repeated
        #[arg(long = "node", short, value_name = "NODE", group = "to")]
        nodes: Vec<NodeId>,
        /// All nodes with these labels: site=berlin,tier!=test
        #[arg(long, short = 'l', group = "to", value_parser = some_nodes)]
        selector: Option<String>,
        /// Every node of the fleet
        #[arg(long, group = "to", conflicts_with_all = ["nodes", "selector"])]
        all: bool,
        /// File that holds the value, or - for the standard input; taken as it is, with its last line end
        #[arg(long, value_name = "FILE")]
        from_file: PathBuf,
    },
    /// List secrets, and whom they must be sealed to again
    List,
    /// Delete a secret with all its values
    Delete {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Commands about operators.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Add an operator and print their token, this once
    Create {
        /// Their name
        name: NodeId,
        /// What they may do: admin (everything) or viewer (see everything, change nothing)
        #[arg(long, default_value = "viewer", value_parser = role)]
        role: OperatorRole,
        /// Print the token and nothing else
        #[arg(long, short)]
        quiet: bool,
    },
    /// List operators
    List,
    /// Remove an operator; their token and sessions end at once
    Delete {
        /// Their name
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// The whole command line with the table of exit codes in its help.
pub fn command() -> clap::Command {
    let codes = EXIT_CODES
        .iter()
        .fold(String::from("Exit codes:\n"), |text, (code, meaning)| {
            format!("{text}  {code}  {meaning}\n")
        });
    Cli::command().after_help(format!(
        "{codes}\nEnvironment:\n  HOLDFAST_HUB, HOLDFAST_TOKEN  hub and operator token, before any context\n  HOLDFAST_PIN                  digest of that hub's CA key\n  HOLDFAST_CONTEXT              context to use\n  XDG_CONFIG_HOME               holdfast/contexts.toml below it holds the contexts"
    ))
}

/// Reads the command line.
///
/// # Errors
/// What is wrong with it, or the help that was asked for.
pub fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&command().try_get_matches_from(arguments)?)
}

/// What is wrong with a command line that asks for JSON, as a problem; none where a person reads it, or asked for help.
pub fn mistake(error: &clap::Error, arguments: &[OsString]) -> Option<Failure> {
    if !error.use_stderr() || !wants_json(arguments) {
        return None;
    }
    // The usage and the tips behind it are for people.
    let text = error.render().to_string();
    let message = text.split("\n\n").next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    Some(Failure::new(
        codes::USAGE,
        message.split_whitespace().collect::<Vec<_>>().join(" "),
        "look at the help: holdfastctl COMMAND --help",
    ))
}

/// Whether `-o json` is among the arguments, in any of its forms.
fn wants_json(arguments: &[OsString]) -> bool {
    let mut texts = arguments
        .iter()
        .filter_map(|argument| argument.to_str())
        // Behind it stand no options.
        .take_while(|text| *text != "--");
    while let Some(text) = texts.next() {
        let format = match text {
            "-o" | "--output" => texts.next(),
            text => ["--output=", "-o=", "-o"]
                .into_iter()
                .find_map(|option| text.strip_prefix(option)),
        };
        if format.is_some() {
            return format == Some("json");
        }
    }
    false
}

#[cfg(test)]
mod tests;
