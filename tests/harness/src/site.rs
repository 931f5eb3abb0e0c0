//! A hub with boxes, all below one directory: what most scenarios start with.

use crate::{Hub, Mosquitto, Node, port};
use anyhow::Result;
use holdfast_protocol::operator::CreateToken;
use std::{path::PathBuf, time::Duration};
use tempfile::TempDir;

/// How long Kubernetes may take to become ready on a busy test machine.
pub const KUBERNETES: Duration = Duration::from_secs(120);

/// A hub and a directory for its boxes.
pub struct Site {
    /// The hub.
    pub hub: Hub,
    directory: Directory,
}

enum Directory {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Site {
    /// Starts a hub in a temporary directory.
    pub async fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("holdfast-").tempdir()?;
        let hub = Hub::start(&directory.path().join("hub")).await?;
        Ok(Self {
            hub,
            directory: Directory::Temporary(directory),
        })
    }

    /// Starts a hub that uses a real mosquitto as the shipped configuration has it, in a temporary directory.
    pub async fn start_with_mosquitto() -> Result<(Self, Mosquitto)> {
        let directory = tempfile::Builder::new().prefix("holdfast-").tempdir()?;
        let address = port::reserve_address()?;
        let hub = Hub::start_with_external_broker(&directory.path().join("hub"), address).await?;
        let certificates = directory.path().join("certificates");
        let out = certificates.to_string_lossy();
        hub.command(&["broker-certificate", "--out", &out, "127.0.0.1"])
            .await?;
        let broker = Mosquitto::start(&directory.path().join("mosquitto"), address, &certificates)?;
        let site = Self {
            hub,
            directory: Directory::Temporary(directory),
        };
        Ok((site, broker))
    }

    /// Starts a hub in a directory that is kept.
    pub async fn start_in(directory: PathBuf) -> Result<Self> {
        let hub = Hub::start(&directory.join("hub")).await?;
        Ok(Self {
            hub,
            directory: Directory::Kept(directory),
        })
    }

    /// The directory of everything.
    pub fn directory(&self) -> PathBuf {
        match &self.directory {
            Directory::Temporary(directory) => directory.path().to_owned(),
            Directory::Kept(directory) => directory.clone(),
        }
    }

    /// Prepares a box of this name; it is neither started nor enrolled.
    pub fn prepare_node(&self, name: &str) -> Result<Node> {
        Node::prepare(&self.directory().join(name), name, "")
    }

    /// A box of this name, started, enrolled and heard of at the hub; its Kubernetes may still be starting.
    pub async fn enrolled_node(&self, name: &str) -> Result<Node> {
        let mut node = self.prepare_node(name)?;
        node.start().await?;
        let token = self.hub.create_token(&CreateToken::default()).await?;
        node.enrol(&token.token).await?;
        self.hub
            .wait_for_node(name, "the node is online", Duration::from_secs(30), |node| {
                node.online
            })
            .await?;
        Ok(node)
    }
}
