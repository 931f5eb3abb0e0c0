//! The command line, as it is typed. What each command does is in [`crate::commands`].

use crate::{failure::EXIT_CODES, output::Format};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use holdfast_protocol::{Digest, NodeId, operator::OperatorRole};
use std::{path::PathBuf, time::Duration};

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

/// Commands about releases.
#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// Make a release from a directory of Kubernetes manifests
    ///
    /// Each sub-directory is one app with its name; a directory without sub-directories, or a file, is one app. Files *.yaml, *.yml and
    /// *.json are read at any depth, with any number of documents; lists are split. YAML is read as kubectl reads it. An app with a helm.yaml
    /// is a chart, one with a kustomization.yaml is rendered by kustomize. An optional release.yaml at the top says what holds for the
    /// release as a whole: policy, k3s, variables, probes, secrets. All of it is in docs/releases.md.
    Create {
        /// Name of the release; it never changes under its name
        name: NodeId,
        /// Where it is read from
        #[command(flatten)]
        source: ReleaseSource,
        /// Version of k3s that must run, as `k3s --version` prints it; over that of release.yaml
        #[arg(long, value_name = "VERSION")]
        k3s_version: Option<String>,
        /// Show what would be sent, and send nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show what a node would get of a release directory, with all its values filled in; sends nothing
    ///
    /// With labels given, no hub is asked; else the labels are those that the hub knows of the node.
    #[command(group = clap::ArgGroup::new("for").required(true).multiple(true))]
    Render {
        /// Where it is read from
        #[command(flatten)]
        source: ReleaseSource,
        /// The node
        #[arg(long, short, group = "for")]
        node: Option<NodeId>,
        /// A label that the node has; can be repeated
        #[arg(long = "label", value_name = "KEY=VALUE", group = "for", value_parser = pair)]
        labels: Vec<(String, String)>,
    },
    /// Delete a release that no node uses
    Delete {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// List releases, newest first
    List,
    /// Show one release with its content
    Show {
        /// Its name
        name: String,
    },
    /// Give a release to nodes, at once
    #[command(group = clap::ArgGroup::new("where").required(true).multiple(true))]
    Assign {
        /// Its name
        name: String,
        /// A node by name; can be repeated
        #[arg(long = "node", short, value_name = "NODE", group = "where")]
        nodes: Vec<NodeId>,
        /// All nodes with these labels: site=berlin,tier!=test
        #[arg(long, short = 'l', group = "where", value_parser = some_nodes)]
        selector: Option<String>,
        /// Every node of the fleet
        #[arg(long, group = "where", conflicts_with_all = ["nodes", "selector"])]
        all: bool,
        /// Follow until every node has proven the release, for at most this long (10m where not said)
        #[arg(long, value_name = "TIMEOUT", num_args = 0..=1, require_equals = true, default_missing_value = "10m", value_parser = duration)]
        wait: Option<Duration>,
    },
}

/// Where a release is read from, and how.
#[derive(Debug, clap::Args)]
pub struct ReleaseSource {
    /// Directory or file
    #[arg(long = "file", short, value_name = "DIR|FILE")]
    pub file: PathBuf,
    /// Command that renders kustomizations, to which the directory is added: 'k3s kubectl kustomize'
    #[arg(long, value_name = "COMMAND", env = "HOLDFAST_KUSTOMIZE")]
    pub kustomize: Option<String>,
    /// Let kustomize read what is not on this machine; the same directory may then give another release tomorrow
    #[arg(long)]
    pub allow_remote: bool,
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

/// Reads the command line; ends the program on a mistake in it, as `clap` does.
pub fn parse() -> Cli {
    match Cli::from_arg_matches(&command().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 30s, 10m, 24h or 7d");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(seconds)
        .filter(|seconds| (1..=366 * 86_400).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is not within 1 second and 366 days"))
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is no label: write KEY=VALUE"))
}

/// A selector that is not empty: that one means the whole fleet, and often comes from a variable that is not set.
fn some_nodes(text: &str) -> Result<String, String> {
    if text.split(',').all(|part| part.trim().is_empty()) {
        return Err("it is empty, which would mean every node; say --all if you mean that".to_owned());
    }
    Ok(text.to_owned())
}

fn label_change(text: &str) -> Result<(String, Option<String>), String> {
    if let Ok((key, value)) = pair(text) {
        return Ok((key, Some(value)));
    }
    text.strip_suffix('-')
        .filter(|key| !key.is_empty())
        .map(|key| (key.to_owned(), None))
        .ok_or_else(|| format!("{text:?} is neither KEY=VALUE nor KEY-"))
}

fn role(text: &str) -> Result<OperatorRole, String> {
    match text {
        "admin" => Ok(OperatorRole::Admin),
        "viewer" => Ok(OperatorRole::Viewer),
        _ => Err("it is admin or viewer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn wait_takes_a_time_or_none() {
        let wait = |arguments: &[&str]| {
            let all = ["holdfastctl", "release", "assign", "r", "--node", "n"]
                .iter()
                .chain(arguments);
            match Cli::try_parse_from(all).unwrap().command {
                Command::Release(ReleaseCommand::Assign { wait, .. }) => wait,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&["--wait"]), Some(Duration::from_secs(600)));
        assert_eq!(wait(&["--wait=90s"]), Some(Duration::from_secs(90)));
    }

    #[test]
    fn an_assignment_without_nodes_is_refused() {
        assert!(Cli::try_parse_from(["holdfastctl", "release", "assign", "r"]).is_err());
    }

    #[test]
    fn the_whole_fleet_is_meant_only_where_it_is_said() {
        let assign = |arguments: &[&str]| {
            let all = ["holdfastctl", "release", "assign", "r"].iter().chain(arguments);
            Cli::try_parse_from(all)
        };
        assert!(assign(&["--all"]).is_ok());
        assert!(assign(&["--selector", "site=berlin"]).is_ok());
        for unset in ["", " ", ",", " , "] {
            assert!(assign(&["--selector", unset]).is_err(), "{unset:?}");
        }
        assert!(assign(&["--all", "--node", "box-1"]).is_err());
    }

    #[test]
    fn durations_have_a_unit_and_a_limit() {
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for bad in [
            "",
            "7",
            "d",
            "7w",
            "-1s",
            "0s",
            "367d",
            "99999999999999999999d",
            "1.5h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_are_set_and_removed() {
        assert_eq!(
            label_change("site=berlin"),
            Ok(("site".into(), Some("berlin".into())))
        );
        assert_eq!(label_change("site="), Ok(("site".into(), Some(String::new()))));
        assert_eq!(label_change("site-"), Ok(("site".into(), None)));
        for bad in ["site", "-", "=x", ""] {
            assert!(label_change(bad).is_err(), "{bad}");
        }
    }
}
