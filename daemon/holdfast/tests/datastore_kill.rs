//! A process that works on the datastore's files is killed at any moment; what it leaves is whole.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use anyhow::{Context as _, Result, ensure};
use holdfast::kubernetes::datastore::{Place, Snapshots, database};
use holdfast_protocol::document::Datastore;
use rusqlite::Connection;
use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Says to a process of this test that it is the one to be killed, and where to work.
const VICTIM: &str = "HOLDFAST_TEST_VICTIM";
const KILLS: u32 = 60;

struct Files {
    data: PathBuf,
    memory: PathBuf,
    snapshots: Snapshots,
    place: Place,
}

impl Files {
    fn of(disk: &Path, memory: &Path) -> Self {
        let data = disk.join("k3s");
        let snapshots = Snapshots::new(disk.join("snapshots"));
        let memory = memory.join("db");
        Self {
            place: Place::new(&data, memory.clone(), snapshots.clone()),
            data,
            memory,
            snapshots,
        }
    }

    /// A database as kine makes it.
    fn fill(&self) -> Result<()> {
        let path = self.data.join("server/db/state.db");
        fs::create_dir_all(path.parent().context("a parent")?)?;
        Connection::open(path)?.execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER, deleted INTEGER,
                create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB);
             INSERT INTO kine (name, created, deleted, prev_revision) VALUES ('compact_rev_key', 1, 0, 0);",
        )?;
        self.write("first")
    }

    fn write(&self, name: &str) -> Result<()> {
        let connection = Connection::open(self.data.join("server/db/state.db"))?;
        connection.execute(
            "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value) VALUES (?1, 1, 0, 0, 0, 0, zeroblob(100000))",
            [name],
        )?;
        // SQLite would remove the log when this connection ends: with k3s killed, nothing does.
        std::mem::forget(connection);
        Ok(())
    }

    fn has(&self, name: &str) -> Result<bool> {
        let path = self.data.join("server/db/state.db");
        database::check(&path)?;
        let connection = Connection::open(path)?;
        let found: i64 =
            connection.query_row("SELECT count(*) FROM kine WHERE name = ?1", [name], |row| {
                row.get(0)
            })?;
        Ok(found > 0)
    }
}

/// Lets a process of this very test work until it has told `after` rounds, and some more microseconds; then kills it.
fn kill_within(test: &str, disk: &Path, memory: &Path, micros: u64) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(VICTIM, format!("{}|{}", disk.display(), memory.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // The first words that are not the test runner's say that the work has begun.
    let mut output = child.stdout.take().context("its output")?;
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"begun") {
        ensure!(
            output.read(&mut byte)? > 0,
            "it ended by itself: {}",
            String::from_utf8_lossy(&seen)
        );
        seen.push(byte[0]);
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn victim() -> Option<Files> {
    let text = std::env::var(VICTIM).ok()?;
    let (disk, memory) = text.split_once('|')?;
    Some(Files::of(Path::new(disk), Path::new(memory)))
}

#[test]
fn a_kill_at_any_moment_of_a_snapshot_leaves_an_intact_one() -> Result<()> {
    let live = |files: &Files| files.data.join("server/db/state.db");
    if let Some(files) = victim() {
        println!("begun");
        loop {
            files.snapshots.take(&live(&files))?;
        }
    }
    let (disk, memory) = (TempDir::new()?, TempDir::new_in("/dev/shm")?);
    let files = Files::of(disk.path(), memory.path());
    files.fill()?;
    files.snapshots.take(&live(&files))?;
    let restored = disk.path().join("restored.db");
    for kill in 0..KILLS {
        let name = "a_kill_at_any_moment_of_a_snapshot_leaves_an_intact_one";
        kill_within(name, disk.path(), memory.path(), u64::from(kill) * 397)?;
        let list = files.snapshots.list();
        ensure!((1..=3).contains(&list.len()), "{list:?}");
        let found = files.snapshots.restore(&restored)?;
        assert_eq!(found.damaged, Vec::<String>::new(), "kill {kill}");
        assert_eq!(found.from.as_ref(), list.first(), "kill {kill}");
        fs::remove_file(&restored)?;
    }
    Ok(())
}

#[test]
fn a_kill_at_any_moment_of_a_move_loses_nothing() -> Result<()> {
    if let Some(files) = victim() {
        println!("begun");
        loop {
            files.place.prepare(Datastore::Ram)?;
            files.place.prepare(Datastore::Persistent)?;
        }
    }
    let (disk, memory) = (TempDir::new()?, TempDir::new_in("/dev/shm")?);
    let files = Files::of(disk.path(), memory.path());
    files.fill()?;
    for kill in 0..KILLS {
        let name = "a_kill_at_any_moment_of_a_move_loses_nothing";
        kill_within(name, disk.path(), memory.path(), u64::from(kill) * 499)?;
        // Every third time the power goes with it: what was in memory alone is gone, and nothing was.
        if kill % 3 == 0 {
            let _ = fs::remove_dir_all(&files.memory);
        }
        let wanted = if kill % 2 == 0 {
            Datastore::Ram
        } else {
            Datastore::Persistent
        };
        files.place.prepare(wanted)?;
        ensure!(files.has("first")?, "kill {kill}");
        // k3s goes on, and the next move takes along what it has written.
        let written = format!("written-{kill}");
        files.write(&written)?;
        files.place.prepare(Datastore::Persistent)?;
        ensure!(files.has(&written)?, "kill {kill}: what was written is gone");
    }
    Ok(())
}
