//! Damage that a power cut leaves, on real files and in the words of the real containerd.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use anyhow::{Context as _, Result, ensure};
use holdfast::{
    codes,
    kubernetes::{
        datastore::{Place, Snapshots, database, growth, growth::Limits},
        heal::{
            Healer, Outcome, Paths,
            quarantine::{self, Aside, set_aside},
            signs::{Damage, signs},
        },
    },
    settings::ByteSize,
};
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

fn damages(text: &str) -> Vec<Damage> {
    signs(text).into_iter().map(|sign| sign.damage).collect()
}

/// containerd on files of its own.
struct Containerd {
    directory: TempDir,
    data: PathBuf,
}

impl Containerd {
    fn new() -> Result<Self> {
        let directory = TempDir::new()?;
        let data = directory.path().join("k3s");
        fs::create_dir_all(data.join("agent/containerd"))?;
        let text = format!(
            "version = 2\nroot = \"{0}/agent/containerd\"\nstate = \"{1}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = \"{1}/socket\"\n",
            data.display(),
            directory.path().display()
        );
        fs::write(directory.path().join("config.toml"), text)?;
        Ok(Self { directory, data })
    }

    fn log(&self) -> PathBuf {
        self.data.join("agent/containerd/containerd.log")
    }

    fn metadata(&self) -> PathBuf {
        self.data
            .join("agent/containerd/io.containerd.metadata.v1.bolt/meta.db")
    }

    fn snapshots(&self) -> PathBuf {
        self.data
            .join("agent/containerd/io.containerd.snapshotter.v1.native/metadata.db")
    }

    /// Runs it until `ready` says so or it ends; what it says is appended to its log, as k3s does it.
    fn run(&self, during: impl Fn(&Self) -> bool) -> Result<()> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())?;
        let mut child: Child = Command::new("containerd")
            .arg("-c")
            .arg(self.directory.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("containerd is not installed: apt-get install containerd")?;
        let begun = Instant::now();
        while child.try_wait()?.is_none() && !during(self) {
            ensure!(
                begun.elapsed() < Duration::from_secs(60),
                "containerd says nothing"
            );
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait()?;
        Ok(())
    }

    fn booted(&self, times: usize) -> bool {
        fs::read_to_string(self.log())
            .is_ok_and(|text| text.matches("containerd successfully booted").count() >= times)
    }

    fn ask(&self, arguments: &[&str]) -> Result<std::process::Output> {
        Ok(Command::new("ctr")
            .arg("-a")
            .arg(self.directory.path().join("socket"))
            .args(arguments)
            .output()?)
    }

    fn healer(&self) -> Healer {
        let paths = Paths {
            data_dir: self.data.clone(),
            network: self.directory.path().join("cni"),
            log: None,
        };
        let place = Place::new(
            &self.data,
            self.directory.path().join("memory"),
            Snapshots::new(self.directory.path().join("snapshots")),
        );
        Healer::new(paths, place, 3)
    }
}

/// A way to damage a file.
type Way = fn(&Path) -> Result<()>;

fn overwrite(path: &Path, offset: u64, length: usize) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path)?;
    Ok(file.write_all_at(&vec![0x5a; length], offset)?)
}

#[test]
fn pain_08_damaged_containerd_metadata_is_known_by_containerds_own_words_and_set_aside() -> Result<()> {
    let ways: [(&str, Way); 4] = [
        ("header", |path| overwrite(path, 0, 8192)),
        ("pages", |path| overwrite(path, 8192, 16384)),
        ("cut short", |path| {
            Ok(fs::OpenOptions::new().write(true).open(path)?.set_len(5000)?)
        }),
        ("cut to its header", |path| {
            Ok(fs::OpenOptions::new().write(true).open(path)?.set_len(8192)?)
        }),
    ];
    for (way, damage) in ways {
        let containerd = Containerd::new()?;
        containerd.run(|it| it.booted(1))?;
        let mut healer = containerd.healer();
        ensure!(!healer.look(), "{way}: a sound one is taken for damaged");
        damage(&containerd.metadata())?;
        containerd.run(|it| it.booted(2))?;
        ensure!(healer.look(), "{way}: {}", fs::read_to_string(containerd.log())?);
        let found: Vec<_> = healer.take().into_iter().map(|sign| sign.damage).collect();
        assert_eq!(found, [Damage::ContainerdMetadata], "{way}");
        let outcome = healer.heal(found[0], Timestamp::now());
        ensure!(matches!(outcome, Outcome::Healed { .. }), "{way}: {outcome:?}");
        ensure!(!containerd.metadata().exists());
        assert_eq!(quarantine::all(&containerd.metadata()).len(), 1);
        healer.begun();
        let booted = fs::read_to_string(containerd.log())?
            .matches("containerd successfully booted")
            .count();
        containerd.run(|it| it.booted(booted + 1))?;
        ensure!(!healer.look(), "{way}: {}", fs::read_to_string(containerd.log())?);
        ensure!(containerd.metadata().exists(), "{way}: it was not made anew");
    }
    Ok(())
}

#[test]
fn pain_08_damaged_snapshots_of_containerd_are_set_aside_with_the_metadata_that_names_them() -> Result<()> {
    let containerd = Containerd::new()?;
    containerd.run(|it| {
        it.booted(1) && {
            let _ = it.ask(&["snapshots", "--snapshotter", "native", "prepare", "one"]);
            it.snapshots().exists()
        }
    })?;
    let mut healer = containerd.healer();
    overwrite(&containerd.snapshots(), 8192, 24576)?;
    // It is opened when it is needed, and then containerd panics.
    containerd.run(|it| {
        if it.booted(2) {
            let _ = it.ask(&["snapshots", "--snapshotter", "native", "prepare", "two"]);
        }
        false
    })?;
    ensure!(healer.look(), "{}", fs::read_to_string(containerd.log())?);
    let found: Vec<_> = healer.take().into_iter().map(|sign| sign.damage).collect();
    assert_eq!(found, [Damage::ContainerdSnapshots]);
    let outcome = healer.heal(found[0], Timestamp::now());
    ensure!(matches!(outcome, Outcome::Healed { .. }), "{outcome:?}");
    ensure!(!containerd.snapshots().exists() && !containerd.metadata().exists());
    containerd.run(|it| {
        it.booted(3)
            && it
                .ask(&["snapshots", "--snapshotter", "native", "prepare", "three"])
                .is_ok_and(|answer| answer.status.success())
    })?;
    ensure!(containerd.snapshots().exists());
    Ok(())
}

#[test]
fn pain_08_words_of_k3s_and_kine_are_known_and_others_lead_to_nothing() {
    let fatal = "time=\"2024-07-04T09:21:35Z\" level=fatal msg=\"starting kubernetes: preparing server: start managed database: building kine: database disk image is malformed\"";
    assert_eq!(damages(fatal), [Damage::Datastore]);
    assert_eq!(
        damages("building kine: setup db: file is not a database"),
        [Damage::Datastore]
    );
    assert_eq!(
        damages(
            "level=fatal msg=\"/var/lib/rancher/k3s/server/cred/passwd newer than datastore and could cause a cluster outage. Remove the file(s) from disk\""
        ),
        [Damage::DatastoreBehindFiles]
    );
    assert_eq!(
        damages(
            "failed to destroy network for sandbox \"5530\": failed to get network \"cbr0\" cached result: decoding version from network config: unexpected end of JSON input"
        ),
        [Damage::NetworkResults]
    );
    assert_eq!(
        damages(
            "failed to allocate for range 0: no IP addresses available in range set: 10.42.2.1-10.42.2.254"
        ),
        [Damage::NetworkAddresses]
    );
    for harmless in [
        "level=fatal msg=\"listen tcp :6443: bind: address already in use\"",
        "panic: runtime error: invalid memory address or nil pointer dereference\n\ngoroutine 1 [running]:\nmain.main()\n",
        "level=error msg=\"disk I/O error: no such file or directory\"",
        "level=fatal msg=\"x509: certificate has expired or is not yet valid\"",
        "could not unmarshal: unexpected end of JSON input",
    ] {
        assert_eq!(damages(harmless), [], "{harmless}");
    }
}

#[test]
fn pain_08_nothing_is_set_aside_more_often_than_the_limit_of_a_day_and_nothing_young_is_deleted() -> Result<()>
{
    let directory = TempDir::new()?;
    let file = directory.path().join("state.db");
    let paths = [file.clone(), directory.path().join("state.db-wal")];
    let begin: Timestamp = "1970-01-01T00:10:00Z".parse()?;
    for count in 0..3 {
        fs::write(&file, [count])?;
        let now = begin + SignedDuration::from_hours(i64::from(count));
        ensure!(matches!(set_aside(&paths, 3, now)?, Aside::Moved(_)));
    }
    fs::write(&file, "again")?;
    let now = begin + SignedDuration::from_hours(4);
    assert_eq!(set_aside(&paths, 3, now)?, Aside::TooOften(3));
    assert_eq!(fs::read_to_string(&file)?, "again");
    // A clock that goes back forgets none of them.
    assert_eq!(
        set_aside(&paths, 3, begin - SignedDuration::from_mins(5))?,
        Aside::TooOften(3)
    );
    // The next day there is room for one more, and the oldest goes.
    let tomorrow = begin + SignedDuration::from_hours(25);
    ensure!(matches!(set_aside(&paths, 3, tomorrow)?, Aside::Moved(_)));
    assert_eq!(quarantine::all(&file).len(), 3);
    assert_eq!(set_aside(&paths, 3, tomorrow)?, Aside::Nothing);
    Ok(())
}

#[test]
fn pain_08_network_state_without_an_owner_is_moved_away_and_that_of_pods_is_not() -> Result<()> {
    let containerd = Containerd::new()?;
    let network = containerd.directory.path().join("cni");
    let (alive, dead) = ("a".repeat(64), "d".repeat(64));
    for name in ["networks/cbr0", "results", "flannel"] {
        fs::create_dir_all(network.join(name))?;
    }
    let addresses = network.join("networks/cbr0");
    fs::write(addresses.join("10.42.0.2"), format!("{alive}\r\neth0"))?;
    fs::write(addresses.join("10.42.0.3"), format!("{dead}\r\neth0"))?;
    fs::write(addresses.join("10.42.0.4"), "")?;
    fs::write(addresses.join("last_reserved_ip.0"), "10.42.0.4")?;
    fs::write(addresses.join("lock"), "")?;
    fs::write(
        network.join(format!("results/cbr0-{alive}-eth0")),
        "{\"kind\":\"cniCacheV1\"}",
    )?;
    fs::write(network.join(format!("results/cbr0-{dead}-eth0")), "")?;
    fs::write(network.join(format!("flannel/{alive}")), "{}")?;
    fs::write(network.join(format!("flannel/{dead}")), "{\"cut")?;
    let mut healer = containerd.healer();
    let now = Timestamp::now();
    ensure!(matches!(
        healer.heal(Damage::NetworkResults, now),
        Outcome::Healed { .. }
    ));
    ensure!(matches!(
        healer.heal(Damage::NetworkAddresses, now),
        Outcome::Healed { .. }
    ));
    let names = |directory: &Path| -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&addresses), ["10.42.0.2", "last_reserved_ip.0", "lock"]);
    assert_eq!(names(&network.join("results")), [format!("cbr0-{alive}-eth0")]);
    assert_eq!(names(&network.join("flannel")), [alive]);
    assert_eq!(names(&network.join("damaged")).len(), 4);
    assert_eq!(healer.heal(Damage::NetworkResults, now), Outcome::Sound);
    Ok(())
}

/// A database as kine makes it, with `rows` rows.
fn kine(path: &Path, rows: i64) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER, deleted INTEGER,
            create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB);
         CREATE INDEX kine_name_id_index ON kine (name, id);
         INSERT INTO kine (name, created, deleted, prev_revision) VALUES ('compact_rev_key', 1, 0, 0);",
    )?;
    for row in 0..rows {
        write(&connection, &format!("/registry/configmaps/default/c{row}"), 0)?;
    }
    Ok(connection)
}

fn write(connection: &Connection, name: &str, deleted: i64) -> Result<()> {
    connection.execute(
        "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value) VALUES (?1, 1, ?2, 0, 0, 0, zeroblob(4096))",
        (name, deleted),
    )?;
    Ok(())
}

#[test]
fn what_changes_by_itself_is_no_reason_for_a_snapshot_and_all_else_is() -> Result<()> {
    let directory = TempDir::new()?;
    let path = directory.path().join("state.db");
    let live = kine(&path, 10)?;
    let first = database::fingerprint(&path)?;
    for name in [
        "/registry/leases/kube-node-lease/shop",
        "/registry/events/default/e1",
        "/registry/masterleases/10.0.0.1",
        "/registry/minions/shop",
    ] {
        write(&live, name, 0)?;
    }
    live.execute(
        "UPDATE kine SET prev_revision = 5 WHERE name = 'compact_rev_key'",
        [],
    )?;
    assert_eq!(database::fingerprint(&path)?, first);
    write(&live, "/registry/configmaps/default/c1", 0)?;
    let second = database::fingerprint(&path)?;
    assert_ne!(second, first);
    // A deletion stays seen after kine has compacted all that told of it.
    write(&live, "/registry/configmaps/default/c1", 1)?;
    live.execute(
        "DELETE FROM kine WHERE name = '/registry/configmaps/default/c1'",
        [],
    )?;
    assert_ne!(database::fingerprint(&path)?, second);
    assert_ne!(database::fingerprint(&path)?, first);
    Ok(())
}

#[test]
fn a_snapshot_is_restored_whole_or_not_at_all_wherever_it_was_damaged() -> Result<()> {
    let directory = TempDir::new()?;
    let live = directory.path().join("state.db");
    let connection = kine(&live, 50)?;
    let snapshots = Snapshots::new(directory.path().join("snapshots"));
    let first = snapshots.take(&live)?;
    write(&connection, "/registry/configmaps/default/new", 0)?;
    let second = snapshots.take(&live)?;
    write(&connection, "/registry/configmaps/default/newer", 0)?;
    let third = snapshots.take(&live)?;
    assert_eq!(snapshots.list(), [third.clone(), second.clone()]);
    ensure!(!first.path.exists(), "the third generation is kept");
    // What a power cut leaves of one that was being written is in nobody's way.
    fs::write(directory.path().join("snapshots/.unfinished"), "half")?;

    let whole = fs::read(&third.path)?;
    let target = directory.path().join("restored.db");
    let sizes = [0, 1, 100, 4096, whole.len() / 2, whole.len() - 1];
    for size in sizes {
        fs::write(&third.path, &whole[..size])?;
        let restored = snapshots.restore(&target)?;
        assert_eq!(restored.from, Some(second.clone()), "cut to {size} bytes");
        assert_eq!(restored.damaged.len(), 1);
        database::check(&target)?;
        fs::remove_file(&target)?;
        fs::write(&third.path, &whole)?;
    }
    for offset in (0..whole.len()).step_by(whole.len() / 23) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x40;
        fs::write(&third.path, &bytes)?;
        assert_eq!(
            snapshots.restore(&target)?.from,
            Some(second.clone()),
            "a bit at {offset}"
        );
        fs::remove_file(&target)?;
        fs::write(&third.path, &whole)?;
    }
    // A damaged database does not push out what is intact.
    drop(connection);
    fs::write(&live, vec![7; 8192])?;
    ensure!(snapshots.take(&live).is_err());
    assert_eq!(snapshots.restore(&target)?.from, Some(third));
    Ok(())
}

#[test]
fn pain_07_a_grown_datastore_is_told_of_and_made_small_when_it_is_quiet() -> Result<()> {
    let directory = TempDir::new()?;
    let path = directory.path().join("state.db");
    let connection = kine(&path, 0)?;
    connection.execute_batch("PRAGMA wal_autocheckpoint = 0;")?;
    for row in 0..2_000 {
        write(
            &connection,
            &format!("/registry/configmaps/default/c{}", row % 20),
            0,
        )?;
    }
    let limits = Limits {
        database: ByteSize(1 << 20),
        log: ByteSize(1 << 20),
    };
    let grown = growth::size(&path);
    ensure!(grown.log > 4 << 20, "{grown:?}");
    let problem = limits.problem(&path, grown).context("it is too large")?;
    assert_eq!(problem.code, codes::DATASTORE_LOG_LARGE);
    ensure!(limits.compact(&path)?);
    let size = growth::size(&path);
    assert_eq!(size.log, 0);
    // The log is in the database now, which is too large itself, and full.
    assert_eq!(
        limits.problem(&path, size).context("it is too large")?.code,
        codes::DATASTORE_LARGE
    );
    ensure!(!limits.compact(&path)?, "there was nothing to give back");
    // kine compacts: old revisions go, and their pages are free.
    connection.execute(
        "DELETE FROM kine WHERE id NOT IN (SELECT max(id) FROM kine GROUP BY name)",
        [],
    )?;
    ensure!(limits.compact(&path)?);
    let size = growth::size(&path);
    assert_eq!(limits.problem(&path, size), None, "{size:?}");
    // Below the limits nothing is touched.
    ensure!(!limits.compact(&path)?);
    Ok(())
}
