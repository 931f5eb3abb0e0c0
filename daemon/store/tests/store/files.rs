//! Files, modes and the lock.

use crate::support::open;
use holdfast_store::{LockError, StateLock, codes, fs};
use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::{Command, Stdio},
};

#[test]
fn a_file_is_whole_and_private_even_over_a_leftover() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    fs::write_atomic(&directory.path().join(".key.tmp"), b"left by a crash", 0o666).unwrap();
    fs::write_atomic(&path, b"one", fs::PRIVATE_FILE).unwrap();
    let first = std::fs::metadata(&path).unwrap();
    assert_eq!(first.permissions().mode() & 0o7777, 0o600);
    fs::write_atomic(&path, b"two", fs::PUBLIC_FILE).unwrap();
    let second = std::fs::metadata(&path).unwrap();
    assert_eq!(second.permissions().mode() & 0o7777, 0o644);
    assert_ne!(first.ino(), second.ino(), "the file was written in place");
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    fs::remove(&path).unwrap();
    fs::remove(&path).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_write_that_fails_leaves_the_former_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::create_dir_all(path.join("not-empty")).unwrap();
    assert!(fs::write_atomic(&path, b"x", fs::PRIVATE_FILE).is_err());
    assert!(path.is_dir());
    assert!(!directory.path().join(".file.tmp").exists());
}

#[test]
fn everything_of_the_store_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let _store = open(&state);
    for (path, mode) in [
        ("", 0o700),
        ("store", 0o700),
        ("store/node.db", 0o600),
        ("store/floor.json", 0o600),
    ] {
        let found = std::fs::metadata(state.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path} has mode {found:o}");
    }
}

#[test]
fn a_second_daemon_is_refused_with_the_number_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let lock = StateLock::acquire(directory.path()).unwrap();
    let refused = StateLock::acquire(directory.path()).unwrap_err();
    assert!(
        matches!(refused, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()),
        "{refused}"
    );
    assert_eq!(refused.problem().code, codes::STATE_LOCKED);
    drop(lock);
    StateLock::acquire(directory.path()).unwrap();
}

#[test]
fn a_daemon_that_was_killed_leaves_no_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lock");
    // One process, which holds the lock by an open file as a daemon does.
    let mut child = Command::new("sh")
        .args(["-c", "exec 9>>\"$0\"; flock 9; echo locked; exec cat"])
        .arg(&path)
        // It ends with this test in any case: its input does.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    assert_eq!(line, "locked\n");
    assert!(StateLock::acquire(directory.path()).is_err());
    child.kill().unwrap();
    child.wait().unwrap();
    StateLock::acquire(directory.path()).unwrap();
}
