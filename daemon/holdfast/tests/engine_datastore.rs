//! The datastore in memory, its snapshots, and damage of it: with a real kine under a real API server.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result, ensure};
use engine_support::{PATIENCE, app, broker::Hub, config_map, namespace, node::Node};
use holdfast::{
    codes,
    kubernetes::{care::snapshot_directory, datastore::Snapshots},
};
use holdfast_harness::{Kubectl, paths, wait};
use holdfast_protocol::{
    event::EventKind,
    report::{Health, Phase, StatusReport},
};
use holdfast_store::{Options, Store};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// A node with a Kubernetes of its own, whose processes and memory go with it.
struct Machine {
    node: Node,
    memory: TempDir,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(pid) = recorded(&self.node.settings.kubernetes_pid_file()) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

fn recorded(file: &Path) -> Result<Pid> {
    let record: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let pid = record["pid"].as_i64().context("the record has a process id")?;
    Ok(Pid::from_raw(i32::try_from(pid)?))
}

impl Machine {
    async fn new(hub: &Hub, name: &str, datastore: &str) -> Result<Self> {
        let mut node = Node::enrolled(hub, name).await?;
        // A tmpfs on every Linux.
        let memory = tempfile::Builder::new()
            .prefix("datastore-")
            .tempdir_in("/dev/shm")?;
        let data = node.path("kubernetes");
        let kubernetes = &mut node.settings.kubernetes;
        kubernetes.supervise = true;
        kubernetes.binary = paths::k3s()?.display().to_string();
        kubernetes.data_dir = data.join("data");
        kubernetes.kubeconfig = data.join("k3s.yaml");
        kubernetes.https_port = holdfast_harness::port::reserve()?;
        kubernetes.log_file = Some(data.join("log"));
        kubernetes.restart_min = Duration::from_millis(100);
        kubernetes.datastore = datastore.into();
        kubernetes.datastore_ram_dir = memory.path().join("db");
        kubernetes.cni_state_dir = data.join("cni");
        node.kubectl = Kubectl {
            kubeconfig: kubernetes.kubeconfig.clone(),
            ..node.kubectl
        };
        Ok(Self { node, memory })
    }

    fn database(&self) -> PathBuf {
        self.node.settings.kubernetes.data_dir.join("server/db/state.db")
    }

    fn snapshots(&self) -> Snapshots {
        Snapshots::new(snapshot_directory(&self.node.settings))
    }

    async fn until_ready(&self) -> Result<StatusReport> {
        self.node
            .until("Kubernetes is ready", |status| {
                status.kubernetes.health == Health::Healthy
            })
            .await
    }

    /// Everything ends at once, and what was in memory is gone.
    async fn cut_power(&mut self) -> Result<()> {
        let pid = recorded(&self.node.settings.kubernetes_pid_file())?;
        self.node.abandon();
        kill(pid, Signal::SIGKILL)?;
        let _ = fs::remove_dir_all(self.memory.path().join("db"));
        // The tasks of a node in this process end a moment later.
        wait::until("the node is gone", PATIENCE, async || {
            Ok(Store::open(&self.node.settings.state_dir, Options::default())
                .ok()
                .map(drop))
        })
        .await
    }

    /// Ends k3s alone.
    fn kill_kubernetes(&self) -> Result<()> {
        Ok(kill(
            recorded(&self.node.settings.kubernetes_pid_file())?,
            Signal::SIGKILL,
        )?)
    }

    async fn identity_of(&self, name: &str) -> Result<Option<String>> {
        let object = self.node.object("default", "configmap", name).await?;
        Ok(object.and_then(|object| object["metadata"]["uid"].as_str().map(str::to_owned)))
    }

    async fn create(&self, name: &str) -> Result<String> {
        self.node
            .kubectl
            .run(&["create", "configmap", name, "-n", "default"])
            .await?;
        self.identity_of(name).await?.context("just created")
    }

    async fn until_there(&self, name: &str) -> Result<Value> {
        let what = format!("{name} is there");
        let there = wait::until(&what, PATIENCE, async || {
            self.node.object("default", "configmap", name).await
        });
        there.await.with_context(|| format!("{:#?}", self.node.status()))
    }
}

/// A way to damage a file.
type Damage = fn(&Path) -> Result<()>;

fn damage(path: &Path, offset: u64, length: usize) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(&vec![0xa5; length])?;
    Ok(())
}

fn hello(value: &str) -> [Value; 1] {
    [app("hello", "default", &[config_map("settings", value)])]
}

#[tokio::test]
async fn a_datastore_in_memory_comes_back_after_a_power_cut() -> Result<()> {
    let hub = Hub::start().await?;
    let mut machine = Machine::new(&hub, "memory", "ram").await?;
    machine.node.run().await?;
    machine.until_ready().await?;
    ensure!(
        fs::read_link(machine.database())?.starts_with(machine.memory.path()),
        "the datastore is not in memory"
    );
    let foreign = machine.create("foreign").await?;
    machine.node.publish(&hub, 1, &hello("1")).await?;
    machine.node.until_proven(1).await?;
    let ours = machine.identity_of("settings").await?.context("ours")?;
    let snapshots = machine.snapshots();
    wait::until("a snapshot is taken", PATIENCE, async || {
        Ok(snapshots.list().first().map(drop))
    })
    .await?;
    let before = machine
        .node
        .object("default", "configmap", "settings")
        .await?
        .context("ours")?;

    machine.cut_power().await?;
    machine.node.run().await?;
    machine.until_ready().await?;
    assert_eq!(machine.identity_of("foreign").await?, Some(foreign.clone()));
    assert_eq!(machine.identity_of("settings").await?, Some(ours));
    // Later revisions than were ever given out, so that no client takes the past for the present.
    machine.create("later").await?;
    let later = machine.until_there("later").await?;
    let revision = |object: &Value| {
        object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    ensure!(revision(&later) > revision(&before) + 900_000_000, "{later}");
    machine.node.publish(&hub, 2, &hello("2")).await?;
    machine.node.until_proven(2).await?;
    wait::until("another snapshot is taken", PATIENCE, async || {
        Ok((snapshots.list().len() == 2).then_some(()))
    })
    .await?;

    // The newest snapshot is damaged on the disk: the older one serves, and the cache brings what is newer.
    machine.cut_power().await?;
    let newest = snapshots.list().remove(0);
    damage(&newest.path, 50_000, 10)?;
    machine.node.run().await?;
    machine.until_ready().await?;
    assert_eq!(machine.identity_of("foreign").await?, Some(foreign));
    wait::until("the newest document is back", PATIENCE, async || {
        let object = machine.node.object("default", "configmap", "settings").await?;
        Ok(object.filter(|object| object["data"]["key"] == "2").map(drop))
    })
    .await?;

    // None is left intact: Kubernetes begins empty, and the cache fills it without the hub.
    hub_is_gone(&mut machine).await?;
    for snapshot in snapshots.list() {
        fs::OpenOptions::new()
            .write(true)
            .open(&snapshot.path)?
            .set_len(5_000)?;
    }
    machine.node.run().await?;
    machine.until_ready().await?;
    let object = machine.until_there("settings").await?;
    assert_eq!(object["data"]["key"], "2");
    assert_eq!(machine.identity_of("foreign").await?, None);
    machine.node.stop().await
}

async fn hub_is_gone(machine: &mut Machine) -> Result<()> {
    machine.cut_power().await?;
    machine.node.settings.sync.enabled = false;
    Ok(())
}

#[tokio::test]
async fn a_datastore_that_goes_back_in_time_under_a_running_node_is_brought_up_to_date() -> Result<()> {
    let hub = Hub::start().await?;
    let mut machine = Machine::new(&hub, "back", "ram").await?;
    machine.node.run().await?;
    machine.until_ready().await?;
    machine.node.publish(&hub, 1, &hello("1")).await?;
    machine.node.until_proven(1).await?;
    let snapshots = machine.snapshots();
    wait::until("a snapshot is taken", PATIENCE, async || {
        Ok(snapshots.list().first().map(drop))
    })
    .await?;
    let kept = machine.memory.path().join("kept");
    fs::create_dir(&kept)?;
    let first = snapshots.list().remove(0).path;
    fs::copy(&first, kept.join(first.file_name().context("a name")?))?;
    // Fields of an object say to the second when they were written: two contents of one second are told apart by nothing else.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    machine.node.publish(&hub, 2, &hello("2")).await?;
    machine.node.until_proven(2).await?;
    // It is taken beside everything else: one that came later than what follows would hold the second document.
    wait::until("another snapshot is taken", PATIENCE, async || {
        Ok((snapshots.list().len() == 2).then_some(()))
    })
    .await?;

    // Only the snapshot of before the second document is left, and what is in memory is lost with k3s.
    for snapshot in snapshots.list() {
        fs::remove_file(snapshot.path)?;
    }
    fs::copy(kept.join(first.file_name().context("a name")?), &first)?;
    let _ = fs::remove_dir_all(machine.memory.path().join("db"));
    machine.kill_kubernetes()?;
    machine
        .node
        .until("it was started again", |status| {
            status.kubernetes.restarts == 2 && status.kubernetes.health == Health::Healthy
        })
        .await?;
    let back = wait::until("the newest document is back", PATIENCE, async || {
        let object = machine.node.object("default", "configmap", "settings").await?;
        Ok(object.filter(|object| object["data"]["key"] == "2").map(drop))
    });
    if let Err(error) = back.await {
        let object = machine.node.object("default", "configmap", "settings").await;
        anyhow::bail!("{error:#}: {object:#?} {:#?}", machine.node.status()?);
    }
    // It was back in time, and not only never changed.
    let event = hub.hear_event(EventKind::DriftCorrected).await?;
    ensure!(event.message.contains("settings"), "{}", event.message);
    machine.node.stop().await
}

#[tokio::test]
async fn the_datastore_moves_between_disk_and_memory_with_all_that_is_in_it() -> Result<()> {
    let hub = Hub::start().await?;
    let mut machine = Machine::new(&hub, "moving", "persistent").await?;
    machine.node.run().await?;
    machine.until_ready().await?;
    let foreign = machine.create("foreign").await?;
    for (counter, mode) in [(1, "ram"), (2, "persistent"), (3, "ram")] {
        let mut document = machine.node.document(counter, &hello("1"));
        document["k3s"] = json!({"datastore": mode});
        hub.publish("moving", hub.sign(&document).to_json()).await?;
        machine.node.until_proven(counter).await?;
        assert_eq!(machine.database().is_symlink(), mode == "ram", "{mode}");
        assert_eq!(
            machine.identity_of("foreign").await?.as_deref(),
            Some(foreign.as_str()),
            "{mode}"
        );
    }
    machine.node.stop().await
}

#[tokio::test]
async fn memory_that_is_none_is_refused_by_name() -> Result<()> {
    let hub = Hub::start().await?;
    let mut machine = Machine::new(&hub, "nomemory", "ram").await?;
    machine.node.settings.kubernetes.datastore_ram_dir = machine.node.path("on-disk");
    machine.node.run().await?;
    machine
        .node
        .until("it is named", |status| {
            let cause = status.kubernetes.cause.as_ref();
            cause.is_some_and(|cause| cause.code == codes::DATASTORE_NOT_IN_MEMORY)
        })
        .await?;
    machine.node.stop().await
}

#[tokio::test]
async fn a_document_that_wants_memory_where_there_is_none_is_refused_before_k3s_is_touched() -> Result<()> {
    let hub = Hub::start().await?;
    let mut machine = Machine::new(&hub, "nomemorylater", "persistent").await?;
    let directory = machine.node.path("on-disk/k3s-db");
    machine
        .node
        .settings
        .kubernetes
        .datastore_ram_dir
        .clone_from(&directory);
    machine.node.run().await?;
    machine.until_ready().await?;
    let started = machine.node.status()?.kubernetes.restarts;
    let mut document = machine.node.document(1, &hello("1"));
    document["k3s"] = json!({"datastore": "ram"});
    hub.publish("nomemorylater", hub.sign(&document).to_json())
        .await?;
    let status = machine
        .node
        .until("it is refused", |status| status.generation.phase == Phase::Failed)
        .await?;
    let cause = status.generation.cause.context("a cause")?;
    assert_eq!(cause.code, codes::DATASTORE_NOT_IN_MEMORY);
    assert!(cause.message.contains(&*directory.to_string_lossy()), "{cause}");
    assert!(cause.action.starts_with("mount a tmpfs there"), "{cause:?}");
    assert_eq!(status.kubernetes.restarts, started, "k3s was not touched");
    assert!(!directory.exists(), "nothing is made by a check");
    machine.node.stop().await
}

#[tokio::test]
async fn pain_08_a_damaged_datastore_is_set_aside_and_filled_from_the_cache_without_a_network() -> Result<()>
{
    let hub = Hub::start().await?;
    let mut machine = Machine::new(&hub, "damaged", "persistent").await?;
    machine.node.run().await?;
    machine.until_ready().await?;
    machine.node.publish(&hub, 1, &hello("1")).await?;
    machine.node.until_proven(1).await?;
    let database = machine.database();
    let log = database.with_file_name("state.db-wal");
    let ways: [(&str, Damage); 3] = [
        ("header", |path| damage(path, 0, 4096)),
        ("pages in the middle", |path| damage(path, 5 * 4096, 20 * 4096)),
        ("no content", |path| Ok(fs::write(path, "")?)),
    ];
    for (index, (way, damage)) in ways.into_iter().enumerate() {
        machine.cut_power().await?;
        if index > 0 {
            // What is told waits in the outbox; the link is not needed for anything.
            machine.node.settings.sync.enabled = false;
        }
        // It holds newer pages than the database, among them those that are about to be damaged.
        fs::remove_file(&log)?;
        damage(&database)?;
        machine.node.run().await?;
        machine.until_ready().await.context(way)?;
        let object = machine.until_there("settings").await.context(way)?;
        assert_eq!(object["data"]["key"], "1", "{way}");
        if index == 0 {
            let event = hub.hear_event(EventKind::KubernetesHealed).await?;
            ensure!(
                event.message.contains("the datastore was damaged"),
                "{}",
                event.message
            );
        }
        let aside = holdfast::kubernetes::heal::quarantine::all(&database);
        assert_eq!(aside.len(), index + 1, "{way}: {aside:?}");
    }

    // The fourth time within a day, it is left as it is and told.
    machine.cut_power().await?;
    fs::remove_file(&log)?;
    damage(&database, 0, 4096)?;
    machine.node.run().await?;
    machine
        .node
        .until("the limit is told", |status| {
            status
                .conditions
                .iter()
                .any(|condition| condition.problem.code == codes::KUBERNETES_HEAL_LIMIT)
        })
        .await?;
    ensure!(database.exists(), "it was set aside all the same");
    machine.node.stop().await
}

#[tokio::test]
async fn pain_08_ends_for_no_known_reason_lead_to_nothing_being_set_aside() -> Result<()> {
    let hub = Hub::start().await?;
    let mut machine = Machine::new(&hub, "unknown", "persistent").await?;
    machine.node.run().await?;
    machine.until_ready().await?;
    machine.node.publish(&hub, 1, &hello("1")).await?;
    machine.node.until_proven(1).await?;
    let uid = machine.identity_of("settings").await?;
    for count in 2..=4 {
        machine.kill_kubernetes()?;
        machine
            .node
            .until("it is ready again", |status| {
                status.kubernetes.restarts == count && status.kubernetes.health == Health::Healthy
            })
            .await?;
    }
    assert_eq!(machine.identity_of("settings").await?, uid);
    assert_eq!(
        holdfast::kubernetes::heal::quarantine::all(&machine.database()),
        []
    );
    machine.node.stop().await
}

/// With `HOLDFAST_TEST_LOG=1`, the nodes of these tests say what they do.
fn log() {
    if std::env::var_os("HOLDFAST_TEST_LOG").is_some() {
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_test_writer()
            .try_init();
    }
}

#[tokio::test]
async fn a_namespace_and_its_objects_come_back_into_an_empty_datastore() -> Result<()> {
    log();
    let hub = Hub::start().await?;
    let mut machine = Machine::new(&hub, "empty", "ram").await?;
    machine.node.run().await?;
    machine.until_ready().await?;
    let objects = [namespace("shop"), config_map("settings", "1")];
    machine
        .node
        .publish(&hub, 1, &[app("shop", "shop", &objects)])
        .await?;
    machine.node.until_proven(1).await?;
    machine.cut_power().await?;
    fs::remove_dir_all(snapshot_directory(&machine.node.settings))?;
    machine.node.run().await?;
    machine.until_ready().await?;
    wait::until("the app is back", PATIENCE, async || {
        machine.node.object("shop", "configmap", "settings").await
    })
    .await?;
    machine.node.stop().await
}
