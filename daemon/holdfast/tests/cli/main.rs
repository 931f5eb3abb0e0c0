//! The commands, by running the binary.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

#[path = "../common/mod.rs"]
mod common;
mod doctor;
mod plan;

use common::{TestBox, hub::TestHub, put};
use holdfast_protocol::codes as shared;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Output, Stdio},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::UnixDatagram,
    process::{Child, Command},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn command(node: &TestBox, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command
        .args(arguments)
        .arg("--config")
        .arg(node.path("node.toml"))
        .env_remove("CREDENTIALS_DIRECTORY")
        .kill_on_drop(true);
    command
}

async fn run(node: &TestBox, arguments: &[&str]) -> Output {
    timeout(PATIENCE, command(node, arguments).output())
        .await
        .unwrap()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)))
}

/// The daemon, started as systemd starts it: ready when it says so.
async fn daemon(node: &TestBox) -> (Child, UnixDatagram) {
    let path = node.path("notify");
    let _ = fs::remove_file(&path);
    let notify = UnixDatagram::bind(&path).unwrap();
    let child = command(node, &["run"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    told(&notify, "READY=1").await;
    (child, notify)
}

async fn told(notify: &UnixDatagram, wanted: &str) {
    let wait = async {
        let mut buffer = [0; 512];
        loop {
            let read = notify.recv(&mut buffer).await.unwrap();
            if buffer[..read] == *wanted.as_bytes() {
                return;
            }
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "{wanted} was not said");
}

async fn end(mut child: Child, signal: Signal) -> i32 {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    kill(pid, signal).unwrap();
    timeout(PATIENCE, child.wait())
        .await
        .unwrap()
        .unwrap()
        .code()
        .unwrap()
}

#[tokio::test]
async fn the_daemon_says_ready_keeps_the_watchdog_and_ends_in_good_order() {
    let node = TestBox::new("");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (child, notify) = daemon(&node).await;
        told(&notify, "WATCHDOG=1").await;
        told(&notify, "WATCHDOG=1").await;
        assert_eq!(end(child, signal).await, 0, "{signal}");
        told(&notify, "STOPPING=1").await;
        assert!(!node.path("socket").exists());
    }
}

#[tokio::test]
async fn exit_codes_tell_apart_what_the_help_says() {
    let node = TestBox::new("");
    let without_daemon = run(&node, &["status", "-o", "json"]).await;
    assert_eq!(code(&without_daemon), 4);
    assert!(without_daemon.stdout.is_empty());
    assert_eq!(json(&without_daemon.stderr)["code"], "daemon-unreachable");

    let (child, _notify) = daemon(&node).await;
    let status = run(&node, &["status", "-o", "json"]).await;
    assert_eq!(code(&status), 3);
    assert_eq!(json(&status.stdout)["enrolled"], false);
    for question in ["plan", "history"] {
        let answer = run(&node, &[question, "-o", "json"]).await;
        assert_eq!(code(&answer), 3, "{question}");
        assert_eq!(json(&answer.stderr)["code"], "not-enrolled", "{question}");
    }
    let second = run(&node, &["run"]).await;
    assert_eq!(code(&second), 1);
    assert!(String::from_utf8_lossy(&second.stderr).contains("code: state-locked"));
    assert_eq!(end(child, Signal::SIGTERM).await, 0);

    assert_eq!(code(&run(&node, &["nonsense"]).await), 2);
    assert_eq!(code(&run(&node, &["enrol", "hf1.cut"]).await), 2);
    assert_eq!(code(&run(&node, &["enrol"]).await), 2, "no token anywhere");
    let broken = TestBox::new("keep_alife = \"1s\"\n");
    let refused = run(&broken, &["run"]).await;
    assert_eq!(code(&refused), 2);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("did you mean sync.keep_alive?") && said.contains("code: settings-invalid"),
        "{said}"
    );
}

#[tokio::test]
async fn a_box_is_enrolled_from_standard_input_without_a_daemon_and_then_starts_as_a_node() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    let mut child = command(&node, &["enrol", "-", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let token = format!("{}\n", hub.token("one"));
    child
        .stdin
        .take()
        .unwrap()
        .write_all(token.as_bytes())
        .await
        .unwrap();
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(json(&output.stdout)["node"], "shop-17");

    let again = run(&node, &["enrol", &hub.token("two").to_string()]).await;
    assert_eq!(code(&again), 1);
    assert!(String::from_utf8_lossy(&again.stderr).contains("code: already-enrolled"));

    let (child, _notify) = daemon(&node).await;
    common::until("the node runs", async || {
        let status = run(&node, &["status", "-o", "json"]).await;
        code(&status) == 0 && json(&status.stdout)["report"]["node"] == "shop-17"
    })
    .await;
    let text = run(&node, &["status"]).await;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("shop-17") && text.contains("wanted none, running none, proven none"),
        "{text}"
    );
    let history = run(&node, &["history"]).await;
    assert_eq!(String::from_utf8_lossy(&history.stdout), "no documents yet\n");
    assert_eq!(end(child, Signal::SIGTERM).await, 0);
}

#[tokio::test]
async fn pain_17_a_token_file_given_by_hand_is_wiped_and_a_refused_one_is_kept() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    let file = node.path("handed-over");
    put(&file, &hub.token("one").to_string());
    let name = file.display().to_string();
    let problem = holdfast_protocol::Problem::new(shared::TOKEN_WRONG_MACHINE, "for another machine", "");
    hub.next(common::hub::Deed::Refuse(http::StatusCode::FORBIDDEN, problem));
    let refused = run(&node, &["enrol", "--token-file", &name]).await;
    assert_eq!(code(&refused), 5);
    assert!(file.exists());

    let (child, _notify) = daemon(&node).await;
    let enrolled = run(&node, &["enrol", &format!("@{name}")]).await;
    assert_eq!(
        code(&enrolled),
        0,
        "{}",
        String::from_utf8_lossy(&enrolled.stderr)
    );
    assert!(!file.exists());
    assert_eq!(end(child, Signal::SIGTERM).await, 0);
}

#[tokio::test]
async fn a_state_directory_or_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    assert_eq!(
        code(&run(&node, &["enrol", &hub.token("one").to_string()]).await),
        0
    );
    let state = node.path("state");
    for (path, mode) in [
        (state.clone(), 0o755),
        (state.join("identity"), 0o750),
        (state.join("identity/device.key"), 0o640),
    ] {
        let right = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let refused = run(&node, &["run"]).await;
        assert_eq!(code(&refused), 1);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let wanted = format!("chmod {:04o} {}", right.mode() & 0o7777, path.display());
        assert!(
            said.contains("state-mode-too-wide") && said.contains(&wanted),
            "{said}"
        );
        let examined = json(&run(&node, &["doctor", "-o", "json"]).await.stdout);
        let check = examined["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["name"] == "state-directory")
            .unwrap();
        assert_eq!(check["outcome"], "fail", "{check}");
        fs::set_permissions(&path, right).unwrap();
    }
}

#[tokio::test]
async fn a_socket_path_that_no_system_takes_is_named_as_such() {
    let node = TestBox::new("");
    let text = fs::read_to_string(node.path("node.toml")).unwrap();
    for (length, wanted) in [(107, "daemon-unreachable"), (108, "socket-unusable")] {
        let socket = format!("/{}", "s".repeat(length - 1));
        let others = text.lines().filter(|line| !line.starts_with("socket = "));
        let own = format!("socket = {socket:?}");
        let lines: Vec<_> = std::iter::once(own.as_str()).chain(others).collect();
        put(&node.path("node.toml"), &lines.join("\n"));
        let status = run(&node, &["status", "-o", "json"]).await;
        assert_eq!(json(&status.stderr)["code"], wanted, "{length} bytes");
        let examined = json(&run(&node, &["doctor", "-o", "json"]).await.stdout);
        let checks = examined["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "daemon").unwrap();
        assert_eq!(check["code"], wanted, "{length} bytes");
        let outcome = if length > 107 { "fail" } else { "warn" };
        assert_eq!(check["outcome"], outcome, "{length} bytes");
    }
}

#[tokio::test]
async fn version_and_generated_pages_need_nothing_of_the_box() {
    let node = TestBox::new("");
    let version = json(&run(&node, &["version", "-o", "json"]).await.stdout);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["schema"], "1.0");
    for (page, heading) in [
        ("configuration", "# Configuration of the node\n"),
        ("cli", "# Commands of the node\n"),
        ("metrics", "# Metrics of the node\n"),
    ] {
        let text = run(&node, &["docs", page]).await;
        assert_eq!(code(&text), 0, "{page}");
        assert!(
            String::from_utf8_lossy(&text.stdout).starts_with(heading),
            "{page}"
        );
    }
}

#[tokio::test]
async fn logs_come_in_the_form_that_was_asked_for() {
    for (format, first) in [("json", "{\"timestamp\":"), ("journal", "<6>")] {
        let node = TestBox::new(&format!("[log]\nformat = \"{format}\"\n"));
        let mut child = command(&node, &["run"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = tokio::io::BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        timeout(
            PATIENCE,
            tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line),
        )
        .await
        .unwrap()
        .unwrap();
        assert!(line.starts_with(first), "{format}: {line}");
        child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_any_more_ends_nothing() {
    let node = TestBox::new("[log]\nlevel = \"trace\"\n");
    let mut child = command(&node, &["run"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    timeout(
        PATIENCE,
        tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line),
    )
    .await
    .unwrap()
    .unwrap();
    drop(lines);
    common::until("the daemon answers", async || {
        code(&run(&node, &["status"]).await) == 3
    })
    .await;
    for _ in 0..3 {
        assert_eq!(
            code(&run(&node, &["enrol", "--socket", "/nowhere", "hf1.cut"]).await),
            2
        );
        assert_eq!(code(&run(&node, &["status"]).await), 3);
    }
    assert!(child.try_wait().unwrap().is_none(), "the daemon still runs");
    assert_eq!(end(child, Signal::SIGTERM).await, 0);
}

#[tokio::test]
async fn a_token_without_a_pin_enrols_and_renews_by_the_systems_roots() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    let mut token = hub.token("one");
    token.ca_pin = None;
    let token = token.to_string();
    let refused = run(&node, &["enrol", &token]).await;
    assert_ne!(code(&refused), 0, "not by the roots of this machine");
    assert!(hub.enrolments.lock().unwrap().is_empty());

    let roots = node.path("roots.pem");
    put(&roots, &hub.authority.pem);
    let mut enrol = command(&node, &["enrol", &token]);
    let enrolled = timeout(PATIENCE, enrol.env("SSL_CERT_FILE", &roots).output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        code(&enrolled),
        0,
        "{}",
        String::from_utf8_lossy(&enrolled.stderr)
    );

    // As behind a reverse proxy: the hub's own CA is another one than that of its HTTPS certificate.
    let identity = node.path("state/identity");
    put(
        &identity.join("hub-ca.pem"),
        &common::hub::Authority::new("inner CA").pem,
    );
    put(&identity.join("time-floor"), "2050-01-01T00:00:00Z\n");
    let mut child = command(&node, &["run"])
        .env("SSL_CERT_FILE", &roots)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    common::until("renewed", async || {
        let renewed = fs::read_to_string(identity.join("hub-ca.pem")).unwrap();
        renewed == hub.authority.pem
    })
    .await;
    child.kill().await.unwrap();
}

#[tokio::test]
async fn what_root_enrols_belongs_to_the_owner_of_the_state_directory() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    let state = node.path("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    // Only root can give files away; for others, everything is their own anyway.
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&state, Some(4242), Some(4242)).unwrap();
    }
    let owner = |path: &std::path::Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
    let wanted = owner(&state);
    assert_eq!(
        code(&run(&node, &["enrol", &hub.token("one").to_string()]).await),
        0
    );
    for name in [
        "lock",
        "identity",
        "identity/device.key",
        "identity/node.json",
        "identity/time-floor",
    ] {
        assert_eq!(owner(&state.join(name)), wanted, "{name}");
    }
}

#[tokio::test]
async fn a_box_joins_by_a_systemd_credential_without_anyone_at_it() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    let credentials = node.path("credentials");
    fs::create_dir(&credentials).unwrap();
    put(&credentials.join("holdfast.token"), &hub.token("one").to_string());
    let mut child = command(&node, &["run"])
        .env("CREDENTIALS_DIRECTORY", &credentials)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    common::until("the box has joined", async || {
        code(&run(&node, &["status"]).await) == 0
    })
    .await;
    assert_eq!(hub.enrolments.lock().unwrap()[0].token_id, "one");
    child.kill().await.unwrap();
}

#[test]
fn wrong_usage_is_a_problem_in_json_where_json_is_asked_for() {
    for arguments in [
        &["pause", "-o", "json"][..],
        &["pause", "--for", "soon", "-ojson"],
        &["pause", "--for", "-1h", "-ojson"],
        &["--output=json", "rollback", "not-a-generation"],
        &["dance", "-o=json"],
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
        let problem: Value = serde_json::from_slice(&output.stderr)
            .unwrap_or_else(|_| panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(problem["code"], "usage");
        assert!(!problem["message"].as_str().unwrap().is_empty());
    }
    let text = std::process::Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["pause"])
        .output()
        .unwrap();
    assert_eq!(text.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&text.stderr).contains("--for"));
    let negative = std::process::Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["pause", "--for", "-1h"])
        .output()
        .unwrap();
    assert_eq!(negative.status.code(), Some(2));
    let said = String::from_utf8_lossy(&negative.stderr);
    assert!(said.contains("it is below one second"), "{said}");
}
