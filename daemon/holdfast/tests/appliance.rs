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
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::{
    os::unix::net::UnixDatagram,
    process::{Child, Command, Output, Stdio},
    time::Duration,
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

/// The same of a program that must not wait for ever; one that does is killed.
fn run_without_waiting(node: &TestBox, arguments: &[&str]) -> Output {
    let program = command(node, arguments);
    Command::new("timeout")
        .args(["--signal=KILL", "600"])
        .arg(program.get_program())
        .args(program.get_args())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A named pipe.
fn pipe(path: &std::path::Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

/// From here on, this thread and what it starts have mounts of their own; false where nobody may mount.
fn may_mount() -> bool {
    unshare(CloneFlags::CLONE_NEWNS).is_ok()
        && mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .is_ok()
}

/// A daemon that takes no enrolment from anywhere, up and answering; it ends with the value.
struct Daemon(Child);

impl Daemon {
    fn start(node: &TestBox) -> Self {
        // As systemd is told: once everything is open, the socket too.
        let path = node.path("notify");
        let told = UnixDatagram::bind(&path).unwrap();
        told.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut run = command(node, &["run"]);
        let daemon = Self(
            run.env("NOTIFY_SOCKET", path)
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let mut message = [0; 512];
        let length = told.recv(&mut message).unwrap();
        assert!(String::from_utf8_lossy(&message[..length]).contains("READY=1"));
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
