//! Commands about images of the operating system.

use clap::Subcommand;
use std::path::PathBuf;

/// Commands about images of the operating system.
#[derive(Debug, Subcommand)]
pub enum OsCommand {
    /// Send an image to the hub, where nodes fetch what they lack of it; prints what a release says to name it
    ///
    /// An image is a manifest (*.manifest.json) with its pack (*.pack) beside it, as `cargo xtask image` writes them. Before anything is
    /// sent, the manifest is read as a box reads it, and the pack is held against it. What the hub has already is not sent again.
    Push {
        /// Manifest of an image, or a directory whose images are all sent
        #[arg(value_name = "DIR|MANIFEST")]
        path: PathBuf,
        /// The builder's public keys, which the image must be signed by; its signer is not asked for where absent
        #[arg(long, value_name = "FILE")]
        os_keys: Option<PathBuf>,
    },
}
