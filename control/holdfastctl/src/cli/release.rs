//! Commands about releases.

use super::values::{duration, pair, some_nodes};
use clap::{Args, Subcommand};
use holdfast_protocol::NodeId;
use std::{path::PathBuf, time::Duration};

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
    /// With labels given, no hub is asked; else the labels are those that the hub knows of the node. With --seed, a directory is written that an
    /// image can hold at /usr/share/holdfast/seed: boxes run it from their first start on, without a hub or a network, until a hub sends them a
    /// release.
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
        /// Write the release as the seed of an image to this directory, which must be empty or not there
        #[arg(long, value_name = "DIR", group = "for", conflicts_with = "node")]
        seed: Option<PathBuf>,
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
#[derive(Debug, Args)]
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
    /// The builder's public keys, which images of the operating system must be signed by; their signers are not asked for where absent
    #[arg(long, value_name = "FILE")]
    pub os_keys: Option<PathBuf>,
}
