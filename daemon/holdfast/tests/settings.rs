//! Settings: how fragments merge, and how faults are told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

mod common;

use common::put;
use holdfast::settings::{ByteSize, Settings, SettingsError, Sources};
use std::{fs, path::Path, time::Duration};

fn directories(root: &Path) -> Sources {
    let all = ["usr", "run", "etc"].map(|name| root.join(name));
    for directory in &all {
        fs::create_dir_all(directory).unwrap();
    }
    Sources::Directories(all.to_vec())
}

fn faults(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.toml");
    put(&file, text);
    let error = Sources::Files(vec![file.clone()]).load().unwrap_err();
    assert!(matches!(error, SettingsError::Invalid(_)), "{error}");
    error
        .to_string()
        .replace(&file.display().to_string(), "node.toml")
}

fn accepted(text: &str) -> Settings {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.toml");
    put(&file, text);
    Sources::Files(vec![file]).load().unwrap()
}

#[test]
fn later_directories_and_later_names_win_key_by_key() {
    let root = tempfile::tempdir().unwrap();
    let sources = directories(root.path());
    assert_eq!(sources.load().unwrap(), Settings::default(), "no file is needed");

    let at = |name: &str| root.path().join(name);
    put(
        &at("usr/50-vendor.toml"),
        "[sync]\nkeep_alive = \"30s\"\nbackoff_min = \"2s\"\n[kubernetes.config]\na = 1\nb = \"vendor\"\n",
    );
    put(&at("run/90-boot.toml"), "[sync]\nkeep_alive = \"40s\"\n");
    put(
        &at("etc/10-first.toml"),
        "[sync]\nkeep_alive = \"50s\"\n[report]\noutbox_max_bytes = \"4MiB\"\n",
    );
    put(
        &at("etc/20-second.toml"),
        "sync.keep_alive = \"55s\"\nkubernetes.config.b = \"site\"\n",
    );
    put(&at("etc/.hidden.toml"), "nonsense");
    put(&at("etc/readme.txt"), "nonsense");
    let settings = sources.load().unwrap();
    assert_eq!(settings.sync.keep_alive, Duration::from_secs(55));
    assert_eq!(
        settings.sync.backoff_min,
        Duration::from_secs(2),
        "untouched keys stay"
    );
    assert_eq!(settings.report.outbox_max_bytes, ByteSize(4 << 20));
    assert_eq!(settings.kubernetes.config["a"], 1);
    assert_eq!(settings.kubernetes.config["b"], "site");
}

#[test]
fn given_files_replace_the_directories_and_must_be_there() {
    let root = tempfile::tempdir().unwrap();
    let (first, second) = (root.path().join("first.toml"), root.path().join("second.toml"));
    put(&first, "socket = \"/a\"\nstate_dir = \"/s\"\n");
    put(&second, "socket = \"/b\"\n");
    let settings = Sources::Files(vec![first.clone(), second]).load().unwrap();
    assert_eq!(settings.socket, Path::new("/b"));
    assert_eq!(settings.state_dir, Path::new("/s"));
    let missing = Sources::Files(vec![first, root.path().join("missing.toml")])
        .load()
        .unwrap_err();
    assert!(matches!(missing, SettingsError::Unreadable { .. }));
    assert!(missing.to_string().contains("missing.toml"), "{missing}");
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
    assert_eq!(
        faults("\n[sync]\nkeep_alife = \"60s\"\n"),
        "node.toml:3: unknown key sync.keep_alife; did you mean sync.keep_alive?"
    );
    assert_eq!(
        faults("keep_alive = \"60s\"\n"),
        "node.toml:1: unknown key keep_alive; did you mean sync.keep_alive?"
    );
    assert_eq!(
        faults("[synk]\nkeep_alive = \"60s\"\n"),
        "node.toml:1: unknown key synk; did you mean sync?"
    );
    assert_eq!(
        faults("zzzzzz = 1\n"),
        "node.toml:1: unknown key zzzzzz; docs/configuration.md lists all keys"
    );
}

#[test]
fn every_fault_of_a_file_is_told_at_once_with_what_was_expected() {
    let told = faults("[sync]\nenabled = \"yes\"\nkeep_alive = 60\n[kubernetes]\nhttps_port = 70000\n");
    assert_eq!(
        told,
        "node.toml:5: kubernetes.https_port: expected whole number, 70000 is not within 0 and 65535\n\
         node.toml:2: sync.enabled: expected true or false, found \"yes\"\n\
         node.toml:3: sync.keep_alive: expected duration, such as \"250ms\", \"60s\", \"5m\", \"6h\" or \"7d\", found a value of type integer"
            .lines()
            .collect::<Vec<_>>()
            .join("\n")
    );
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_line() {
    let told = faults("state_dir = \"/a\"\nsocket = \n");
    assert!(told.starts_with("node.toml:2: "), "{told}");
}

#[test]
fn values_that_do_not_fit_together_are_refused_with_the_line_that_set_them() {
    for (text, key) in [
        ("[sync]\nbackoff_max = \"1ms\"\n", "sync.backoff_max"),
        ("[sync]\nkeep_alive = \"0s\"\n", "sync.keep_alive"),
        ("[apply]\nconcurrency = 0\n", "apply.concurrency"),
        ("[log]\nlevel = \"sync=loud\"\n", "log.level"),
        ("[log]\nformat = \"xml\"\n", "log.format"),
        ("[metrics]\nlisten = \"0.0.0.0:9753\"\n", "metrics.listen"),
        ("[enrolment]\nname = \"Shop 17\"\n", "enrolment.name"),
    ] {
        let told = faults(text);
        assert!(told.starts_with(&format!("node.toml:2: {key}: ")), "{told}");
    }
    assert!(faults("state_dir = \"relative\"\n").starts_with("node.toml:1: state_dir: "));
}

#[test]
fn a_word_that_is_no_level_is_refused_instead_of_silencing_the_log() {
    for level in [
        "loud",
        "",
        "info,loud",
        "info,",
        "3",
        "=debug",
        "holdfast=",
        "holdfast=loud",
    ] {
        let told = faults(&format!("[log]\nlevel = {level:?}\n"));
        assert_eq!(
            told,
            format!(
                "node.toml:2: log.level: {level:?} is not error, warn, info, debug or trace, nor a list such as \"info,holdfast::sync=debug\""
            )
        );
    }
    for level in ["warn", "INFO", "info,holdfast::sync=debug", "info, hyper=off"] {
        assert_eq!(accepted(&format!("[log]\nlevel = {level:?}\n")).log.level, level);
    }
}

#[test]
fn a_node_name_that_kubernetes_would_refuse_is_refused_here() {
    let long = "a".repeat(254);
    for name in ["A_B c", "", "Shop", "-a", "a-", "a..b", ".a", long.as_str()] {
        let told = faults(&format!("[kubernetes]\nnode_name = {name:?}\n"));
        let begin =
            format!("node.toml:2: kubernetes.node_name: {name:?} is not a name that Kubernetes takes: ");
        assert!(told.starts_with(&begin), "{told}");
        assert!(told.contains("small letters, digits, '-' and '.'"), "{told}");
    }
    for name in ["shop-17", "shop-17.example.com", "1"] {
        let settings = accepted(&format!("[kubernetes]\nnode_name = {name:?}\n"));
        assert_eq!(settings.kubernetes.node_name.as_deref(), Some(name));
    }
}

#[test]
fn an_empty_program_is_refused() {
    for binary in ["", " "] {
        let told = faults(&format!("[kubernetes]\nbinary = {binary:?}\n"));
        let begin = format!("node.toml:2: kubernetes.binary: {binary:?} is not a program: give a path");
        assert!(told.starts_with(&begin), "{told}");
    }
}

#[test]
fn only_regular_files_of_bounded_size_are_read() {
    let root = tempfile::tempdir().unwrap();
    let large = root.path().join("large.toml");
    let fitting = root.path().join("fitting.toml");
    put(&large, &"#".repeat((1 << 20) + 1));
    put(&fitting, &"#".repeat(1 << 20));
    let pipe = root.path().join("pipe.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (path, reason) in [
        (Path::new("/dev/zero"), "it is not a regular file"),
        (pipe.as_path(), "it is not a regular file"),
        (root.path(), "it is not a regular file"),
        (large.as_path(), "it is larger than 1MiB"),
    ] {
        let error = Sources::Files(vec![path.to_owned()]).load().unwrap_err();
        assert!(matches!(error, SettingsError::Unreadable { .. }), "{error}");
        let told = error.to_string();
        let begin = format!("cannot read the settings in {}: {reason}", path.display());
        assert!(told.starts_with(&begin), "{told}");
    }
    assert_eq!(Sources::Files(vec![fitting]).load().unwrap(), Settings::default());
}

#[test]
fn each_key_is_documented_with_its_default() {
    let text = holdfast::settings::markdown();
    for key in [
        "`state_dir`",
        "`keep_alive`",
        "`outbox_max_bytes`",
        "`config`",
        "`listen`",
    ] {
        assert!(text.contains(&format!("\n| {key} | ")), "{key}");
    }
    assert!(text.contains(
        "| `heartbeat` | duration, such as \"250ms\", \"60s\", \"5m\", \"6h\" or \"7d\" | `\"6h\"` |"
    ));
}
