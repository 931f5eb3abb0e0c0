//! The record of boots, as units of systemd write it and people read it.

use super::{Daemon, die_at, may_mount, pipe, run, run_without_waiting};
use crate::common::{TestBox, put};
use nix::mount::{MsFlags, mount};
use serde_json::Value;
use std::{fs, process::Output};

fn history(node: &TestBox) -> Vec<Value> {
    let shown = run(node, &["history", "--boots", "-o", "json"]);
    assert!(
        shown.status.success(),
        "{}",
        String::from_utf8_lossy(&shown.stderr)
    );
    serde_json::from_slice(&shown.stdout).unwrap()
}

#[test]
fn a_record_that_is_cut_off_at_any_point_is_gone_on_with() {
    for place in ["boots-before-append", "boots-half-append", "boots-after-append"] {
        let node = TestBox::new("");
        die_at(&node, &["boot-record", "start"], place);
        assert!(run(&node, &["boot-record", "start"]).status.success());
        die_at(&node, &["boot-record", "end"], place);
        assert!(run(&node, &["boot-record", "end"]).status.success());
        let boots = history(&node);
        assert_eq!(boots.len(), 1, "one boot id, one entry, at {place}");
        assert_eq!(boots[0]["number"], 1);
        let notes = boots[0]["notes"].as_array().unwrap();
        let ends = notes
            .iter()
            .filter(|noted| noted["note"]["kind"] == "shut-down")
            .count();
        assert_eq!(ends, 1, "at {place}: {notes:?}");
    }
}

#[test]
fn a_record_that_dies_while_it_is_made_smaller_loses_nothing() {
    let node = TestBox::new("");
    assert!(run(&node, &["boot-record", "start"]).status.success());
    let file = node.path("state/boots/log");
    let line = fs::read(&file).unwrap();
    // The same boot so often that the next write makes the file smaller.
    let mut large = line.repeat(300);
    large.extend_from_slice(&line);
    for place in ["boots-before-compaction", "boots-after-compaction"] {
        holdfast_store::fs::write_atomic(&file, &large, 0o600).unwrap();
        die_at(&node, &["boot-record", "end"], place);
        let size = fs::metadata(&file).unwrap().len();
        assert_eq!(
            size < large.len() as u64,
            place == "boots-after-compaction",
            "at {place}"
        );
        assert!(run(&node, &["boot-record", "end"]).status.success());
        let boots = history(&node);
        assert_eq!(boots.len(), 1, "at {place}");
        let notes = boots[0]["notes"].to_string();
        assert!(notes.contains("shut-down"), "at {place}: {notes}");
    }
}

#[test]
fn a_disk_without_room_is_named_and_the_next_write_finds_a_whole_record() {
    let node = TestBox::new("");
    assert!(run(&node, &["boot-record", "start"]).status.success());
    if !may_mount() {
        // Without the right to mount, a directory that is none stands for a disk that takes nothing.
        fs::remove_dir_all(node.path("state/boots")).unwrap();
        put(&node.path("state/boots"), "");
        assert!(!run(&node, &["boot-record", "end"]).status.success());
        return;
    }
    let boots = node.path("state/boots");
    mount(
        Some("tmpfs"),
        &boots,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=4k,nr_inodes=8"),
    )
    .unwrap();
    let filler = vec![b'x'; 4096];
    holdfast_store::fs::write_atomic(&boots.join("filler"), &filler, 0o600).unwrap();
    let full = run(&node, &["boot-record", "start", "-o", "json"]);
    assert!(!full.status.success());
    let problem: Value = serde_json::from_slice(&full.stderr).unwrap();
    assert_eq!(problem["code"], "disk-full", "{problem}");
    fs::remove_file(boots.join("filler")).unwrap();
    assert!(run(&node, &["boot-record", "start"]).status.success());
    assert_eq!(history(&node).len(), 1);

    mount(
        None::<&str>,
        &boots,
        None::<&str>,
        MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
        None::<&str>,
    )
    .unwrap();
    let read_only = run(&node, &["boot-record", "end", "-o", "json"]);
    let problem: Value = serde_json::from_slice(&read_only.stderr).unwrap();
    assert_eq!(problem["code"], "disk-read-only", "{problem}");
    assert_eq!(history(&node).len(), 1, "reading needs no write");
}

fn problem(done: &Output) -> Value {
    serde_json::from_slice(&done.stderr).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

#[test]
fn a_record_that_is_damaged_throughout_is_told_and_the_node_goes_on() {
    // With ends of lines and without any, as blocks that a disk lost.
    for (content, stays) in [("nonsense\n".repeat(100), true), ("\0".repeat(900), false)] {
        let node = TestBox::new("");
        assert!(run(&node, &["boot-record", "start"]).status.success());
        let file = node.path("state/boots/log");
        put(&file, &content);
        let shown = run(&node, &["history", "--boots", "-o", "json"]);
        assert_eq!(shown.status.code(), Some(1));
        let told = problem(&shown);
        assert_eq!(told["code"], "boot-record-damaged", "{told}");
        let message = told["message"].as_str().unwrap();
        assert!(
            message.contains(file.to_str().unwrap()) && message.contains("900 bytes"),
            "{message}"
        );
        assert!(told["action"].as_str().unwrap().contains("remove"), "{told}");
        let examined = run(&node, &["doctor", "-o", "json"]);
        let examined = String::from_utf8(examined.stdout).unwrap();
        assert!(examined.contains("boot-record-damaged"), "{examined}");

        // What comes after it is noted and shown, with what was lost.
        let _daemon = Daemon::start(&node);
        let boots = history(&node);
        assert_eq!(boots.len(), 1);
        let notes = boots[0]["notes"].to_string();
        assert!(notes.contains(r#""bytes":900"#), "{notes}");
        let shown = run(&node, &["history", "--boots", "-o", "json"]);
        assert_eq!(
            String::from_utf8_lossy(&shown.stderr).contains("boot-record-damaged"),
            stays
        );
    }
}

#[test]
fn pipes_in_the_place_of_the_record_are_refused_at_once_and_the_node_goes_on() {
    for name in ["log", "lock"] {
        let node = TestBox::new("");
        assert!(run(&node, &["boot-record", "start"]).status.success());
        let file = node.path("state/boots").join(name);
        fs::remove_file(&file).unwrap();
        pipe(&file);
        let refused = run_without_waiting(&node, &["boot-record", "end", "-o", "json"]);
        let told = problem(&refused);
        let message = format!("{}: it is no file", file.display());
        assert_eq!(told["message"], message, "{told}");
        if name == "log" {
            let shown = run_without_waiting(&node, &["history", "--boots", "-o", "json"]);
            assert_eq!(problem(&shown)["code"], "boot-record-damaged");
        }
        drop(Daemon::start(&node));
    }
}

#[test]
fn root_is_not_led_to_a_file_of_another_by_a_link_in_the_place_of_the_record() {
    for name in ["boots/log", "boots/lock", "boots"] {
        let node = TestBox::new("");
        assert!(run(&node, &["boot-record", "start"]).status.success());
        let place = node.path("state").join(name);
        let other = node.path("of-another");
        if place.is_dir() {
            fs::remove_dir_all(&place).unwrap();
            fs::create_dir(&other).unwrap();
        } else {
            fs::remove_file(&place).unwrap();
            put(&other, "no record");
        }
        std::os::unix::fs::symlink(&other, &place).unwrap();
        let told = problem(&run(&node, &["boot-record", "start", "-o", "json"]));
        let message = told["message"].as_str().unwrap();
        assert!(
            message.contains(place.to_str().unwrap()) && message.contains("symbolic link"),
            "{message}"
        );
        if other.is_dir() {
            assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
        } else {
            assert_eq!(fs::read_to_string(&other).unwrap(), "no record");
        }
    }
}
