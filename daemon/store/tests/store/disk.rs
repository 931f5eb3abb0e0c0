//! Full and read-only disks.
//!
//! With the right to mount, each is a real file system in a mount namespace of the test's own thread. Without, a full disk is a limit on the
//! size of files in a child process, and a read-only one is a directory without write permission.

use crate::support::{document, event, now, open};
use holdfast_protocol::{codes as protocol_codes, event::Severity};
use holdfast_store::{BlobError, Blobs, Options, Store, StoreError, codes};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

/// Names the state directory to the child process.
const CHILD: &str = "HOLDFAST_STORE_TEST_LIMITED";

/// Whether this thread now has mounts of its own.
fn private_mounts() -> bool {
    unshare(CloneFlags::CLONE_NEWNS).is_ok()
        && mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_PRIVATE | MsFlags::MS_REC,
            None::<&str>,
        )
        .is_ok()
}

fn mount_tmpfs(directory: &Path, size: &str) {
    mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(format!("size={size}").as_str()),
    )
    .unwrap();
}

/// Commits until the disk is full, then looks whether all that was acknowledged is there and nothing else changed.
fn fill(directory: &Path) -> StoreError {
    let mut acknowledged = 0;
    let error = {
        let store = open(directory);
        loop {
            let next = document(&format!("1.{}", acknowledged + 1), 60_000);
            match store.commit(&next, &[event(Severity::Info, "accepted")], now()) {
                Ok(()) => {
                    // So that envelopes pile up: the newest, the applied and the proven one are kept.
                    acknowledged += 1;
                    if let Err(error) = store.push_events(&vec![event(Severity::Alarm, &"x".repeat(900)); 20])
                    {
                        break error;
                    }
                }
                Err(error) => break error,
            }
            assert!(acknowledged < 1_000, "the disk never fills");
        }
    };
    assert!(acknowledged > 0, "not one document fitted: {error}");
    let store = open(directory);
    let newest = store.newest().unwrap().expect("an acknowledged document is lost");
    assert_eq!(newest.generation.counter, acknowledged);
    error
}

/// The child process of the test below; on its own it commits a little in a directory without a limit.
#[test]
fn a_store_without_a_limit_takes_documents() {
    match std::env::var_os(CHILD) {
        Some(directory) => {
            let error = fill(Path::new(&directory));
            println!("refused with {}", error.problem().code);
        }
        None => {
            let directory = tempfile::tempdir().unwrap();
            open(directory.path())
                .commit(&document("1.1", 60_000), &[], now())
                .unwrap();
        }
    }
}

#[test]
fn pain_11_a_full_disk_loses_nothing_and_is_told_by_name() {
    let directory = tempfile::tempdir().unwrap();
    if private_mounts() {
        mount_tmpfs(directory.path(), "900k");
        let error = fill(directory.path());
        assert_eq!(error.problem().code, protocol_codes::DISK_FULL, "{error}");

        // Room again is all it takes, and reading needs none.
        let ballast = directory.path().join("ballast");
        let fill_up = Command::new("dd")
            .args(["if=/dev/zero", "bs=4k", &format!("of={}", ballast.display())])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!fill_up.success(), "the disk is not full");
        let store = open(directory.path());
        let refused = store.push_events(&[event(Severity::Alarm, &"x".repeat(5_000))]);
        if let Err(error) = refused {
            assert_eq!(error.problem().code, protocol_codes::DISK_FULL, "{error}");
        }
        let blobs = Blobs::open(directory.path());
        let refused = blobs.map(|blobs| blobs.put(&vec![7; 100_000]).unwrap_err());
        assert!(
            matches!(
                &refused,
                Ok(BlobError::Store(StoreError::DiskFull { .. })) | Err(StoreError::DiskFull { .. })
            ),
            "{refused:?}"
        );
        std::fs::remove_file(ballast).unwrap();
        store
            .push_events(&[event(Severity::Alarm, "room again")])
            .unwrap();
    }
    // Without a mount, and beside it: a limit on the size of every file.
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "disk::a_store_without_a_limit_takes_documents",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // The system says "file too large" here, which is an error of the disk and not a full one.
    assert!(
        text.contains(&format!("refused with {}", codes::DISK_ERROR)),
        "{text}"
    );
}

#[test]
fn a_read_only_disk_is_told_by_name_and_what_is_there_stays() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |code: &str| {
        let error = Store::open_or_quarantine(directory.path(), Options::default(), now())
            .err()
            .expect("a store on a read-only disk is opened");
        assert_eq!(error.problem().code, code, "{error}");
        let error = holdfast_store::fs::write_atomic(&directory.path().join("file"), b"x", 0o600)
            .expect_err("a file is written to a read-only disk");
        assert_eq!(error.problem().code, code, "{error}");
    };
    if private_mounts() {
        mount_tmpfs(directory.path(), "4m");
        open(directory.path())
            .commit(&document("1.1", 0), &[], now())
            .unwrap();
        let remount = |flags: MsFlags| {
            mount(
                None::<&str>,
                directory.path(),
                None::<&str>,
                MsFlags::MS_REMOUNT | flags,
                None::<&str>,
            )
            .unwrap();
        };
        remount(MsFlags::MS_RDONLY);
        refused(protocol_codes::DISK_READ_ONLY);
        remount(MsFlags::empty());
    } else {
        open(directory.path())
            .commit(&document("1.1", 0), &[], now())
            .unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&directory.path().join("store/node.db"), 0o400);
        mode(&directory.path().join("store"), 0o500);
        mode(directory.path(), 0o500);
        if nix::unistd::geteuid().is_root() {
            // Root without the right to mount: permissions do not bind it, but /sys does.
            let error = Store::open(Path::new("/sys/holdfast-test"), Options::default())
                .err()
                .expect("a directory is made in /sys");
            let code = error.problem().code;
            assert!(
                code == protocol_codes::DISK_READ_ONLY || code == codes::STORE_FORBIDDEN,
                "{error}"
            );
        } else {
            refused(codes::STORE_FORBIDDEN);
        }
        mode(directory.path(), 0o700);
        mode(&directory.path().join("store"), 0o700);
        mode(&directory.path().join("store/node.db"), 0o600);
    }
    assert_eq!(
        open(directory.path())
            .newest()
            .unwrap()
            .unwrap()
            .generation
            .to_string(),
        "1.1"
    );
}
