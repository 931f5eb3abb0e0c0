//! What the tests of the node's frame share: a small hub that really speaks TLS, and a box in a directory of its own.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod hub;

use holdfast::{
    identity::{clock::TimeFloor, prepare_state_dir},
    settings::{Settings, Sources},
};
use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// Writes a file of a test.
pub fn put(path: &Path, text: &str) {
    File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// A box: a directory with settings of its own.
pub struct TestBox {
    pub directory: TempDir,
}

impl TestBox {
    /// A box whose settings name nothing outside its directory; `more` is TOML that is put below the keys at the top.
    pub fn new(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        put(
            &directory.path().join("node.toml"),
            &format!(
                "state_dir = {:?}\nsocket = {:?}\n[kubernetes]\nbinary = {:?}\ndata_dir = {:?}\nkubeconfig = {:?}\n\
                 [enrolment]\nname = \"shop-17\"\ntoken_file = {:?}\nkernel_command_line = {:?}\nretry_min = \"10ms\"\nretry_max = \"50ms\"\n\
                 [sync]\nenabled = false\n{more}",
                at("state"),
                at("socket"),
                at("k3s"),
                at("k3s-data"),
                at("k3s.yaml"),
                at("token"),
                at("cmdline"),
            ),
        );
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn settings(&self) -> Settings {
        Sources::Files(vec![self.path("node.toml")]).load().unwrap()
    }

    /// The settings with a state directory that is ready for an identity.
    pub fn prepared(&self) -> (Settings, Arc<TimeFloor>) {
        let settings = self.settings();
        prepare_state_dir(&settings.state_dir).unwrap();
        let floor = TimeFloor::open(&settings.identity_dir()).unwrap();
        (settings, Arc::new(floor))
    }
}

/// Long enough for the slowest step on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a condition that other tasks or processes bring about.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, wait).await.is_ok(),
        "{what}: not within {PATIENCE:?}"
    );
}
