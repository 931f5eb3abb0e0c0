//! What an appliance does around its starts: the record of boots, the factory reset, the console; by running the binary.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

mod common;

#[path = "appliance/boots.rs"]
mod boots;
#[path = "appliance/console.rs"]
mod console;
#[path = "appliance/reset.rs"]
mod reset;

use common::TestBox;
use std::{
    os::unix::net::UnixStream,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The program with the settings of a box.
fn command(node: &TestBox, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command
        .args(arguments)
        .arg("--config")
        .arg(node.path("node.toml"))
        .env_remove("CREDENTIALS_DIRECTORY")
        .env_remove("HOLDFAST_FAILPOINT")
        .stdin(Stdio::null());
    command
}

/// Runs the program to its end.
fn run(node: &TestBox, arguments: &[&str]) -> Output {
    command(node, arguments).output().unwrap()
}

/// A daemon that takes no enrolment from anywhere, up and answering; it ends with the value.
struct Daemon(Child);

impl Daemon {
    fn start(node: &TestBox) -> Self {
        let daemon = Self(command(node, &["run"]).stderr(Stdio::null()).spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(node.path("socket")).is_err() {
            assert!(Instant::now() < until, "the daemon does not come up");
            thread::sleep(Duration::from_millis(20));
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the program until it dies at a failpoint.
fn die_at(node: &TestBox, arguments: &[&str], place: &str) {
    let done = command(node, arguments)
        .env("HOLDFAST_FAILPOINT", place)
        .output()
        .unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&done.status),
        Some(nix::libc::SIGABRT),
        "at {place}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}
