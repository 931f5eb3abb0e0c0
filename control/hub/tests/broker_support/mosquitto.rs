//! Mosquitto with the shipped configuration; only paths and the port are those of the test.

use super::within;
use holdfast_hub::broker::BrokerTls;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
};

/// Where Debian puts it; elsewhere it is looked for in PATH.
const PROGRAM: &str = "/usr/sbin/mosquitto";

/// The shipped files.
pub fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../mosquitto")
        .join(file)
}

pub struct Mosquitto {
    pub port: u16,
    configuration: PathBuf,
    process: Child,
    log: watch::Receiver<Vec<String>>,
}

impl Mosquitto {
    pub async fn start(directory: &Path, tls: &BrokerTls) -> Self {
        let port = holdfast_harness::port::reserve().unwrap();
        let data = directory.join("mosquitto");
        std::fs::create_dir_all(&data).unwrap();
        let configuration = directory.join("holdfast.conf");
        std::fs::write(&configuration, adapt(port, tls, &data)).unwrap();
        Self::run(port, configuration).await
    }

    /// Ends it as a service manager does, and starts it again.
    pub async fn restart(mut self) -> Self {
        self.signal("TERM").await;
        within("mosquitto to end", self.process.wait()).await.unwrap();
        Self::run(self.port, self.configuration.clone()).await
    }

    /// Makes it read its certificates and revocation list again.
    pub async fn reload(&mut self) {
        let before = self.log.borrow().len();
        self.signal("HUP").await;
        self.until(before, "Reloading config").await;
    }

    async fn run(port: u16, configuration: PathBuf) -> Self {
        let program = if Path::new(PROGRAM).exists() {
            PROGRAM
        } else {
            "mosquitto"
        };
        let mut process = Command::new(program)
            .arg("-c")
            .arg(&configuration)
            .arg("-v")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} cannot be started ({error}): install mosquitto"));
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (sender, log) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                sender.send_modify(|log| log.push(line));
            }
        });
        let mosquitto = Self {
            port,
            configuration,
            process,
            log,
        };
        mosquitto.until(0, "running").await;
        mosquitto
    }

    async fn signal(&self, name: &str) {
        let id = self.process.id().unwrap().to_string();
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(id)
            .status()
            .await;
        assert!(status.unwrap().success());
    }

    async fn until(&self, from: usize, text: &str) {
        let mut log = self.log.clone();
        let found = within(
            &format!("{text:?} in mosquitto's log"),
            log.wait_for(|lines| lines.iter().skip(from).any(|line| line.contains(text))),
        )
        .await
        .is_ok();
        assert!(found, "mosquitto has ended: {:?}", self.log.borrow());
    }
}

/// The shipped configuration with the paths and the port of a test.
fn adapt(port: u16, tls: &BrokerTls, data: &Path) -> String {
    let mut changes = vec![
        ("listener", format!("{port} 127.0.0.1")),
        ("cafile", tls.ca_file.display().to_string()),
        ("certfile", tls.certificate_file.display().to_string()),
        ("keyfile", tls.key_file.display().to_string()),
        ("crlfile", tls.revoked_file.display().to_string()),
        ("acl_file", shipped("holdfast.acl").display().to_string()),
        ("persistence_location", format!("{}/", data.display())),
    ];
    let text = std::fs::read_to_string(shipped("holdfast.conf")).unwrap();
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let key = line.split_whitespace().next().unwrap_or_default();
        match changes.iter().position(|(name, _)| *name == key) {
            Some(place) => {
                let (name, value) = changes.remove(place);
                lines.push(format!("{name} {value}"));
            }
            None => lines.push(line.to_owned()),
        }
    }
    assert!(
        changes.is_empty(),
        "not in the shipped configuration: {changes:?}"
    );
    // Where the tests run as root, so that it can read their files.
    lines.push("user root".to_owned());
    lines.push("log_dest stderr".to_owned());
    lines.join("\n")
}
