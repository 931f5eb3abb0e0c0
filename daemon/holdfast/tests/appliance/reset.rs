//! The factory reset, cut off everywhere.

use super::{Daemon, command, die_at, may_mount, pipe, run, run_without_waiting};
use crate::common::{TestBox, put};
use holdfast::{
    boots::BootId,
    failpoint,
    reset::{self, Order},
};
use nix::mount::{MsFlags, mount, umount};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path, process::Output};

const SECRET: &str = "the key of the box";

/// A box with everything that a reset erases.
fn full() -> TestBox {
    let node = TestBox::new("cni_state_dir = \"/nonexistent/cni\"\n");
    let settings = fs::read_to_string(node.path("node.toml")).unwrap();
    let settings = settings
        .replace("cni_state_dir = \"/nonexistent/cni\"\n", "")
        .replace(
            "[kubernetes]\n",
            &format!(
                "[kubernetes]\ncni_state_dir = {:?}\n",
                node.path("cni").display().to_string()
            ),
        );
    put(&node.path("node.toml"), &settings);
    for file in [
        "state/identity/device.key",
        "state/identity/sealing.key",
        "state/identity/node.json",
        "state/store/node.db",
        "state/store/floor.json",
        "state/store/blobs/sha256/00",
        "state/kubernetes/config.yaml",
        "k3s-data/server/db/state.db",
        "cni/networks/one",
        "esp/personal.toml",
    ] {
        let path = node.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        put(&path, SECRET);
    }
    for private in ["state", "state/identity", "state/store"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(node.path(private), mode).unwrap();
    }
    assert!(run(&node, &["boot-record", "start"]).status.success());
    node
}

/// As it was ordered before the machine was restarted.
fn order_earlier(node: &TestBox, keep_identity: bool) {
    let order = Order {
        keep_identity,
        ordered_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        boot: BootId("the boot before".into()),
    };
    reset::order(&node.path("state"), &order).unwrap();
}

fn carry_out(node: &TestBox) -> Vec<String> {
    vec![
        "factory-reset".into(),
        "--carry-out".into(),
        "--personal".into(),
        node.path("esp/personal.toml").display().to_string(),
    ]
}

/// The order, carried out by a program with these arguments more.
fn carried_out(node: &TestBox, more: &[&str]) -> Output {
    let arguments = carry_out(node);
    let arguments: Vec<_> = arguments
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    run(node, &arguments)
}

/// Every file below the box's directory, but its settings.
fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found.remove("node.toml");
    found
}

fn all_kept(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_reset_that_is_cut_off_at_any_step_is_gone_on_with_to_the_same_end() {
    for place in failpoint::RESET {
        for keep_identity in [false, true] {
            if keep_identity && *place == "reset-keys-half" {
                continue;
            }
            let node = full();
            order_earlier(&node, keep_identity);
            let arguments = carry_out(&node);
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            die_at(&node, &arguments, place);
            assert!(
                reset::ordered(&node.path("state")).unwrap().is_some(),
                "the order stays at {place}"
            );
            let done = run(&node, &arguments);
            assert!(
                done.status.success(),
                "{place}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
            let boots = ["state/lock", "state/boots/lock", "state/boots/log"];
            let wanted = if keep_identity {
                let kept = [
                    "state/identity/device.key",
                    "state/identity/sealing.key",
                    "state/identity/node.json",
                    "state/store/floor.json",
                    "esp/personal.toml",
                ];
                all_kept(&[&boots[..], &kept[..]].concat())
            } else {
                all_kept(&boots)
            };
            assert_eq!(
                files(node.directory.path()),
                wanted,
                "after {place}, identity kept: {keep_identity}"
            );
            let history = run(&node, &["history", "--boots", "-o", "json"]);
            let history: Value = serde_json::from_slice(&history.stdout).unwrap();
            let told = history[0]["notes"].to_string();
            assert_eq!(told.matches("factory-reset").count(), 1, "{told}");
        }
    }
}

#[test]
fn a_key_is_overwritten_before_its_file_goes() {
    let node = full();
    // A second name of the same file shows what is left of its bytes.
    let key = node.path("state/identity/device.key");
    fs::hard_link(&key, node.path("bytes")).unwrap();
    order_earlier(&node, false);
    let arguments = carry_out(&node);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    assert!(run(&node, &arguments).status.success());
    assert!(!key.exists());
    let left = fs::read(node.path("bytes")).unwrap();
    assert_eq!(left.len(), SECRET.len());
    assert_ne!(left, SECRET.as_bytes());
}

#[test]
fn nothing_is_erased_before_the_machine_was_restarted_or_without_words() {
    let node = full();
    let before = files(node.directory.path());
    let unconfirmed = run(&node, &["factory-reset", "-o", "json"]);
    assert_eq!(unconfirmed.status.code(), Some(1));
    let problem: Value = serde_json::from_slice(&unconfirmed.stderr).unwrap();
    assert_eq!(problem["code"], "reset-not-confirmed");
    assert_eq!(files(node.directory.path()), before);

    let ordered = run(&node, &["factory-reset", "--yes", "--no-restart"]);
    assert!(
        ordered.status.success(),
        "{}",
        String::from_utf8_lossy(&ordered.stderr)
    );
    let arguments = carry_out(&node);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let early = run(&node, &arguments);
    assert!(String::from_utf8_lossy(&early.stdout).contains("the next start"));
    let mut with_order = before;
    with_order.extend(["state/factory-reset.json".to_owned(), "state/lock".to_owned()]);
    assert_eq!(files(node.directory.path()), with_order);
}

#[test]
fn a_damaged_order_erases_nothing_and_is_named() {
    let node = full();
    let before = files(node.directory.path());
    put(&node.path("state/factory-reset.json"), "{\"keepIdentity\": ");
    let arguments = carry_out(&node);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = command(&node, &arguments).args(["-o", "json"]).output().unwrap();
    let problem: Value = serde_json::from_slice(&done.stderr).unwrap();
    assert_eq!(problem["code"], "reset-order-damaged");
    fs::remove_file(node.path("state/factory-reset.json")).unwrap();
    assert_eq!(files(node.directory.path()), before);
}

#[test]
fn a_daemon_carries_out_what_no_unit_did_and_waits_for_a_token() {
    let node = full();
    order_earlier(&node, false);
    let _daemon = Daemon::start(&node);
    let status = run(&node, &["status", "-o", "json"]);
    assert_eq!(status.status.code(), Some(3), "not enrolled");
    assert!(reset::ordered(&node.path("state")).unwrap().is_none());
    for gone in [
        "state/identity/device.key",
        "state/store/blobs/sha256/00",
        "k3s-data/server",
        "cni/networks",
    ] {
        assert!(!node.path(gone).exists(), "{gone}");
    }
}

#[test]
fn a_reset_can_be_ordered_on_a_full_disk() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("needs root to mount a small file system");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        let mut command = std::process::Command::new(arguments[0]);
        command.args(&arguments[1..]).arg(directory.path());
        assert!(command.status().unwrap().success());
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]);
    let ordered = std::panic::catch_unwind(|| {
        let state = directory.path();
        reset::reserve(state).unwrap();
        // Until nothing more goes in.
        let mut filler = fs::File::create(state.join("filler")).unwrap();
        while std::io::Write::write_all(&mut filler, &[1; 4096]).is_ok() {}
        assert!(holdfast_store::fs::write_atomic(&state.join("other"), b"x", 0o600).is_err());
        let order = Order {
            keep_identity: true,
            ordered_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            boot: BootId("the boot before".into()),
        };
        reset::order(state, &order).unwrap();
        assert_eq!(reset::ordered(state).unwrap(), Some(order));
    });
    mount(&["umount", "-l"]);
    ordered.unwrap();
}

#[test]
fn keys_behind_a_link_in_the_place_of_the_identity_are_not_erased() {
    let node = full();
    fs::rename(node.path("state/identity"), node.path("of-another")).unwrap();
    std::os::unix::fs::symlink(node.path("of-another"), node.path("state/identity")).unwrap();
    order_earlier(&node, false);
    let arguments = carry_out(&node);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = run(&node, &arguments);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(
        fs::read_to_string(node.path("of-another/device.key")).unwrap(),
        SECRET
    );
    assert!(fs::symlink_metadata(node.path("state/identity")).is_err());
}

#[test]
fn an_order_cannot_be_taken_back_once_the_machine_was_restarted() {
    let node = full();
    order_earlier(&node, false);
    let done = run(&node, &["factory-reset", "--cancel", "-o", "json"]);
    assert_eq!(done.status.code(), Some(1));
    let problem: Value = serde_json::from_slice(&done.stderr).unwrap();
    assert_eq!(problem["code"], "reset-begun");
    // Nor can it be replaced by one that could.
    let before = reset::ordered(&node.path("state")).unwrap().unwrap();
    let done = run(
        &node,
        &[
            "factory-reset",
            "--keep-identity",
            "--yes",
            "--no-restart",
            "-o",
            "json",
        ],
    );
    assert_eq!(done.status.code(), Some(1));
    let problem: Value = serde_json::from_slice(&done.stderr).unwrap();
    assert_eq!(problem["code"], "reset-begun");
    assert_eq!(reset::ordered(&node.path("state")).unwrap(), Some(before));
    // Whoever asks is told the same, not to take it back.
    let examined = run(&node, &["doctor", "-o", "json"]);
    let examined = String::from_utf8(examined.stdout).unwrap();
    assert!(
        examined.contains("some of this box may be erased already"),
        "{examined}"
    );
    assert!(!examined.contains("--cancel"), "{examined}");
}

#[test]
fn an_order_that_waits_is_not_the_reason_why_the_machine_stopped() {
    let node = full();
    let ordered = run(&node, &["factory-reset", "--yes", "--no-restart"]);
    assert!(ordered.status.success(), "{ordered:?}");
    let history = run(&node, &["history", "--boots", "-o", "json"]);
    let history = String::from_utf8(history.stdout).unwrap();
    assert!(!history.contains("reboot-asked"), "{history}");
}

#[test]
fn a_machine_without_a_state_directory_is_told_that_it_is_no_box() {
    let node = TestBox::new("");
    // Before anybody types words.
    for arguments in [
        &["factory-reset", "-o", "json"][..],
        &["factory-reset", "--yes", "-o", "json"],
        &["factory-reset", "--cancel", "-o", "json"],
    ] {
        let done = run(&node, arguments);
        assert_eq!(done.status.code(), Some(1));
        let problem: Value = serde_json::from_slice(&done.stderr).unwrap();
        assert_eq!(problem["code"], "state-missing", "{arguments:?}: {problem}");
        assert!(!node.path("state").exists());
    }
}

#[test]
fn a_reset_that_waits_is_shown_by_status_until_it_is_taken_back() {
    let node = TestBox::new("");
    let _daemon = Daemon::start(&node);
    let shown = |form: &str| String::from_utf8(run(&node, &["status", "-o", form]).stdout).unwrap();
    assert!(!shown("text").contains("reset"), "{}", shown("text"));

    let ordered = run(&node, &["factory-reset", "--yes", "--no-restart"]);
    assert!(ordered.status.success(), "{ordered:?}");
    let text = shown("text");
    for part in [
        "ordered, not done yet",
        "the next start of the machine erases this box [reset-ordered]",
        "holdfast factory-reset --cancel",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let json: Value = serde_json::from_str(&shown("json")).unwrap();
    assert_eq!(json["factoryReset"]["code"], "reset-ordered");

    assert!(run(&node, &["factory-reset", "--cancel"]).status.success());
    let json: Value = serde_json::from_str(&shown("json")).unwrap();
    assert!(json["factoryReset"].is_null(), "{json}");
}

#[test]
fn a_pipe_in_the_place_of_the_order_is_refused_at_once_and_can_be_taken_back() {
    let node = full();
    let order = node.path("state/factory-reset.json");
    let arguments = carry_out(&node);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let refused = || {
        let done = run_without_waiting(&node, &[&arguments[..], &["-o", "json"]].concat());
        let problem: Value = serde_json::from_slice(&done.stderr).unwrap();
        assert_eq!(problem["code"], "reset-order-damaged", "{problem}");
        assert!(
            problem["message"].as_str().unwrap().contains("it is no file"),
            "{problem}"
        );
    };
    pipe(&order);
    refused();
    let done = run_without_waiting(&node, &["factory-reset", "--cancel"]);
    assert!(done.status.success(), "{done:?}");
    assert!(fs::symlink_metadata(&order).is_err());
    fs::create_dir(&order).unwrap();
    refused();
    let done = run(&node, &["factory-reset", "--cancel"]);
    assert!(done.status.success(), "{done:?}");
    assert!(fs::symlink_metadata(&order).is_err());
}

#[test]
fn what_lies_on_another_file_system_is_kept_and_told_and_all_else_is_erased() {
    if !may_mount() {
        return;
    }
    let node = full();
    order_earlier(&node, false);
    let volumes = node.path("k3s-data/server/storage");
    fs::create_dir_all(&volumes).unwrap();
    mount(
        Some("tmpfs"),
        &volumes,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=64k"),
    )
    .unwrap();
    put(&volumes.join("of-an-app"), "data");
    let done = carried_out(&node, &[]);
    assert!(done.status.success(), "{done:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(
        said.contains(&format!("{} was kept", volumes.display())),
        "{said}"
    );
    let kept = [
        "k3s-data/server/storage/of-an-app",
        "state/boots/lock",
        "state/boots/log",
        "state/lock",
    ];
    assert_eq!(files(node.directory.path()), all_kept(&kept));
}

#[test]
fn one_file_that_cannot_be_erased_does_not_keep_the_others() {
    if !may_mount() {
        return;
    }
    let node = full();
    order_earlier(&node, false);
    // Nobody removes a file on which something is mounted.
    let stuck = node.path("k3s-data/server/db/state.db");
    mount(Some(&stuck), &stuck, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let refused = carried_out(&node, &["-o", "json"]);
    let problem: Value = serde_json::from_slice(&refused.stderr).unwrap();
    assert_eq!(problem["code"], "reset-failed", "{problem}");
    assert!(
        problem["message"]
            .as_str()
            .unwrap()
            .contains(stuck.to_str().unwrap()),
        "{problem}"
    );
    let kept = [
        "k3s-data/server/db/state.db",
        "state/factory-reset.json",
        "state/lock",
    ];
    assert_eq!(files(node.directory.path()), all_kept(&kept));
    umount(&stuck).unwrap();
    let done = carried_out(&node, &[]);
    assert!(done.status.success(), "{done:?}");
    assert!(!stuck.exists());
}

#[test]
fn a_key_that_cannot_be_overwritten_is_not_removed_before_it_was() {
    let node = full();
    order_earlier(&node, false);
    // What runs cannot be written to, and could be removed.
    let key = node.path("state/identity/device.key");
    fs::copy("/bin/cat", &key).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut running = std::process::Command::new(&key)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let refused = carried_out(&node, &["-o", "json"]);
    let problem: Value = serde_json::from_slice(&refused.stderr).unwrap();
    assert_eq!(problem["code"], "reset-failed", "{problem}");
    let kept = [
        "state/factory-reset.json",
        "state/identity/device.key",
        "state/lock",
    ];
    assert_eq!(files(node.directory.path()), all_kept(&kept));
    drop(running.stdin.take());
    running.wait().unwrap();
    let done = carried_out(&node, &[]);
    assert!(done.status.success(), "{done:?}");
    assert!(!key.exists());
}
