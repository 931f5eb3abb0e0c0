//! k3s goes from one version to another, and back with its datastore, whatever happens on the way.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result, ensure};
use engine_support::{
    PATIENCE, app,
    broker::Hub,
    config_map, deployment,
    k3s::{EndsWithTest, Server, process, program, section, supervised, write_program},
    node::Node,
};
use holdfast::{codes, kubernetes::switch::Current};
use holdfast_harness::wait;
use holdfast_protocol::{
    Generation,
    report::{Health, Phase},
};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use std::fs;

const OLD: &str = "v1.36.3+k3s1";
const NEW: &str = "v1.37.0+k3s1";

fn current(node: &Node) -> Result<Current> {
    let text = fs::read(node.settings.state_dir.join("k3s/current.json"))?;
    Ok(serde_json::from_slice(&text)?)
}

fn version(node: &Node) -> Result<Option<String>> {
    Ok(current(node)?.binary.version)
}

/// Which versions have written to the datastore: the label that each leaves.
async fn written_by(node: &Node) -> Result<Value> {
    let seen = node
        .object("default", "node", &node.name)
        .await?
        .context("the node")?;
    Ok(seen["metadata"]["labels"]["written-by"].clone())
}

/// k3s writes the label some time after its API answers.
async fn until_written_by(node: &Node, version: &str) -> Result<()> {
    wait::until(&format!("{version} has written"), PATIENCE, async || {
        Ok((written_by(node).await? == version).then_some(()))
    })
    .await
}

async fn make(node: &Node, name: &str) -> Result<()> {
    node.kubectl
        .run(&["-n", "default", "create", "configmap", name])
        .await
        .map(drop)
}

async fn has(node: &Node, name: &str) -> Result<bool> {
    Ok(node.object("default", "configmap", name).await?.is_some())
}

async fn publish(
    node: &Node,
    hub: &Hub,
    counter: u64,
    k3s: &Value,
    objects: &[Value],
    deadline: u32,
) -> Result<()> {
    let mut document = node.document(counter, &[app("hello", "default", objects)]);
    document["k3s"] = k3s.clone();
    document["policy"] = json!({"readyDeadlineSeconds": deadline, "stabilitySeconds": 0});
    hub.publish(&node.name, hub.sign(&document).to_json()).await
}

async fn until_rolled_back(node: &Node) -> Result<()> {
    node.until("it is back on the first document", |status| {
        // The box as a whole is not called healthy while it does not run the newest document; what runs on it is.
        status.generation.phase == Phase::RolledBack
            && status.kubernetes.health == Health::Healthy
            && !status.apps.is_empty()
            && status.apps.iter().all(|app| app.health == Health::Healthy)
    })
    .await
    .map(drop)
}

/// A node that runs document 1 with the old version, and an object that nobody but a person made.
async fn on_the_old_version(hub: &Hub, name: &str) -> Result<(Node, EndsWithTest)> {
    let mut node = supervised(hub, name).await?;
    let end = EndsWithTest(node.settings.kubernetes_pid_file());
    let old = section(&node, OLD, &program(OLD, Server::Runs("old"))?)?;
    node.settings.kubernetes.binary = "/nowhere/k3s".into();
    node.run().await?;
    publish(&node, hub, 1, &old, &[config_map("settings", "1")], 120).await?;
    node.until_proven(1).await?;
    make(&node, "before").await?;
    ensure!(version(&node)?.as_deref() == Some(OLD), "{:?}", current(&node)?);
    until_written_by(&node, "old").await?;
    Ok((node, end))
}

#[tokio::test]
async fn an_upgrade_keeps_the_datastore_and_the_pair_it_came_from() -> Result<()> {
    let hub = Hub::start().await?;
    let (mut node, _end) = on_the_old_version(&hub, "upgraded").await?;
    let first = process(&node)?;
    let new = section(&node, NEW, &program(NEW, Server::Runs("new"))?)?;
    publish(&node, &hub, 2, &new, &[config_map("settings", "2")], 120).await?;
    node.until_proven(2).await?;

    assert_ne!(process(&node)?, first);
    assert_eq!(version(&node)?.as_deref(), Some(NEW));
    until_written_by(&node, "new").await?;
    assert!(has(&node, "before").await?);
    let home = node.settings.state_dir.join("k3s");
    assert_eq!(fs::read_link(home.join("current"))?, current(&node)?.binary.path);
    let previous = current(&node)?.previous.context("the former program")?;
    assert_eq!(fs::read_link(home.join("previous"))?, previous.path);
    assert!(previous.path.is_file(), "what a way back needs is gone");
    assert!(home.join("snapshots/1.2/state.db").is_file());

    // The same k3s in another document, and another start of the daemon, leave it alone.
    let second = process(&node)?;
    publish(&node, &hub, 3, &new, &[config_map("settings", "3")], 120).await?;
    node.until_proven(3).await?;
    node.stop().await?;
    node.run().await?;
    node.until_proven(3).await?;
    assert_eq!(process(&node)?, second);
    node.stop().await
}

#[tokio::test]
async fn an_upgrade_whose_apps_never_get_ready_takes_k3s_and_datastore_back_as_a_pair() -> Result<()> {
    let hub = Hub::start().await?;
    let (mut node, _end) = on_the_old_version(&hub, "unready").await?;
    let new = section(&node, NEW, &program(NEW, Server::Runs("new"))?)?;
    let never = [
        config_map("settings", "2"),
        deployment("web", "registry.invalid/web:1"),
    ];
    publish(&node, &hub, 2, &new, &never, 45).await?;
    node.until("the new version is looked at", |status| {
        status.generation.phase == Phase::Verifying
    })
    .await?;
    assert_eq!(version(&node)?.as_deref(), Some(NEW));
    until_written_by(&node, "new").await?;
    make(&node, "after").await?;

    until_rolled_back(&node).await?;
    assert_eq!(version(&node)?.as_deref(), Some(OLD));
    assert_eq!(
        written_by(&node).await?,
        "old",
        "the datastore is that of the new version"
    );
    assert!(has(&node, "before").await?);
    assert!(!has(&node, "after").await?, "the datastore did not go back");
    let settings = node
        .object("default", "configmap", "settings")
        .await?
        .context("settings")?;
    assert_eq!(settings["data"]["key"], "1");
    let status = node.status()?;
    assert_eq!(
        status.generation.proven,
        Some(Generation { epoch: 1, counter: 1 })
    );
    assert!(!node.settings.state_dir.join("k3s/restoring.json").exists());
    node.stop().await
}

async fn goes_back_from(server: Server, name: &str) -> Result<()> {
    let hub = Hub::start().await?;
    let (mut node, _end) = on_the_old_version(&hub, name).await?;
    let new = section(&node, NEW, &program(NEW, server)?)?;
    publish(&node, &hub, 2, &new, &[config_map("settings", "2")], 10).await?;
    until_rolled_back(&node).await?;
    ensure!(version(&node)?.as_deref() == Some(OLD), "{:?}", current(&node)?);
    ensure!(has(&node, "before").await?, "the datastore is another one");
    ensure!(written_by(&node).await? == "old");
    node.stop().await
}

#[tokio::test]
async fn a_version_that_never_answers_is_left_again() -> Result<()> {
    goes_back_from(Server::Hangs, "hanging").await
}

#[tokio::test]
async fn a_version_that_crashes_all_the_time_is_left_again() -> Result<()> {
    goes_back_from(Server::Crashes, "crashing").await
}

#[tokio::test]
async fn a_k3s_that_cannot_follow_is_refused_and_nothing_is_touched() -> Result<()> {
    let hub = Hub::start().await?;
    let (mut node, _end) = on_the_old_version(&hub, "refusing").await?;
    let running = process(&node)?;
    let cases = [
        ("v1.38.0+k3s1", "v1.38.0+k3s1", codes::KUBERNETES_VERSION_SKIPPED),
        ("v1.35.9+k3s1", "v1.35.9+k3s1", codes::KUBERNETES_DOWNGRADE),
        (NEW, "v1.36.4+k3s1", codes::KUBERNETES_WRONG_VERSION),
        (NEW, "nothing", codes::KUBERNETES_VERSION_UNKNOWN),
    ];
    for (counter, (wanted, says, code)) in (2..).zip(cases) {
        let other = section(&node, wanted, &program(says, Server::Runs("other"))?)?;
        publish(&node, &hub, counter, &other, &[config_map("settings", "2")], 30).await?;
        node.until(&format!("{wanted} is refused as {code}"), |status| {
            let generation = &status.generation;
            generation.accepted == Some(Generation { epoch: 1, counter })
                && generation.phase == Phase::Failed
                && (generation.cause.as_ref()).is_some_and(|cause| cause.code == code)
        })
        .await?;
        assert_eq!(process(&node)?, running, "{wanted}");
        assert_eq!(version(&node)?.as_deref(), Some(OLD));
    }
    node.stop().await
}

/// A node with the old version at the place that its settings name, known as such, and an object that nobody but a person made.
async fn on_the_program_of_the_box(hub: &Hub, name: &str) -> Result<(Node, EndsWithTest)> {
    let mut node = supervised(hub, name).await?;
    let end = EndsWithTest(node.settings.kubernetes_pid_file());
    let baked = node.path("k3s");
    node.settings.kubernetes.binary = baked.display().to_string();
    write_program(&baked, &program(OLD, Server::Runs("old"))?)?;
    node.run().await?;
    publish(&node, hub, 1, &json!({}), &[config_map("settings", "1")], 120).await?;
    node.until_proven(1).await?;
    make(&node, "before").await?;
    wait::until("the version is known", PATIENCE, async || {
        Ok((version(&node)?.as_deref() == Some(OLD)).then_some(()))
    })
    .await?;
    Ok((node, end))
}

/// The node stays as it is; k3s alone ends, and is started again.
async fn end_kubernetes(node: &Node) -> Result<()> {
    let running = process(node)?;
    kill(running, Signal::SIGKILL)?;
    wait::until("Kubernetes was started again", PATIENCE, async || {
        Ok((process(node)? != running).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_program_that_is_exchanged_under_a_running_k3s_meets_a_datastore_of_its_own_version() -> Result<()>
{
    let hub = Hub::start().await?;
    let (mut node, _end) = on_the_program_of_the_box(&hub, "exchanged").await?;
    let baked = node.path("k3s");

    // Exchanged while k3s runs: nothing happens until it ends.
    let first = process(&node)?;
    write_program(&baked, &program(NEW, Server::Runs("new"))?)?;
    publish(&node, &hub, 2, &json!({}), &[config_map("settings", "2")], 120).await?;
    node.until_proven(2).await?;
    assert_eq!(process(&node)?, first);
    assert_eq!(version(&node)?.as_deref(), Some(OLD));
    end_kubernetes(&node).await?;
    assert_eq!(version(&node)?.as_deref(), Some(NEW), "it was started unseen");
    let pair = node.settings.state_dir.join(format!("k3s/snapshots/image-{NEW}"));
    assert!(
        pair.join("state.db").is_file(),
        "the datastore was not kept before"
    );
    until_written_by(&node, "new").await?;
    assert!(has(&node, "before").await?);
    make(&node, "after").await?;

    // And back: the old program never runs on what the new one wrote.
    write_program(&baked, &program(OLD, Server::Runs("old"))?)?;
    end_kubernetes(&node).await?;
    assert_eq!(version(&node)?.as_deref(), Some(OLD));
    node.until("the app is there again", |status| {
        status.health == Health::Healthy
    })
    .await?;
    until_written_by(&node, "old").await?;
    assert!(has(&node, "before").await?);
    assert!(
        !has(&node, "after").await?,
        "the old k3s runs on the new one's datastore"
    );
    node.stop().await
}

#[tokio::test]
async fn a_document_may_want_the_version_that_was_put_in_the_place_of_the_one_that_runs() -> Result<()> {
    let hub = Hub::start().await?;
    let (mut node, _end) = on_the_program_of_the_box(&hub, "demanded").await?;
    write_program(&node.path("k3s"), &program(NEW, Server::Runs("new"))?)?;
    let wanted = json!({"version": NEW});
    publish(&node, &hub, 2, &wanted, &[config_map("settings", "2")], 120).await?;
    node.until_proven(2).await?;
    assert_eq!(version(&node)?.as_deref(), Some(NEW));
    until_written_by(&node, "new").await?;
    let pair = node.settings.state_dir.join("k3s/snapshots/1.2/state.db");
    assert!(pair.is_file(), "the datastore was not kept before");
    node.stop().await
}

/// Ends k3s and the node, as a reboot does.
async fn reboot(node: &mut Node) -> Result<()> {
    node.stop().await?;
    let kubernetes = process(node)?;
    kill(kubernetes, Signal::SIGKILL)?;
    // It is this process's child, so nothing but its end is left of it; until then it could still be adopted, which no reboot allows.
    wait::until("Kubernetes has ended", PATIENCE, async || {
        let stat = fs::read_to_string(format!("/proc/{kubernetes}/stat")).unwrap_or_default();
        Ok((stat.is_empty() || stat.contains(") Z ")).then_some(()))
    })
    .await
}

#[tokio::test]
async fn pain_15_an_image_that_goes_back_finds_the_datastore_of_its_own_k3s() -> Result<()> {
    let hub = Hub::start().await?;
    let (mut node, _end) = on_the_program_of_the_box(&hub, "slots").await?;
    let baked = node.path("k3s");

    // The other slot, with another k3s.
    reboot(&mut node).await?;
    write_program(&baked, &program(NEW, Server::Runs("new"))?)?;
    node.run().await?;
    node.until("Kubernetes is ready", |status| {
        status.kubernetes.health == Health::Healthy
    })
    .await?;
    until_written_by(&node, "new").await?;
    assert!(has(&node, "before").await?);
    make(&node, "after").await?;

    // It was no good: the box is back in the first slot.
    reboot(&mut node).await?;
    write_program(&baked, &program(OLD, Server::Runs("old"))?)?;
    node.run().await?;
    node.until("Kubernetes is ready", |status| {
        status.kubernetes.health == Health::Healthy
    })
    .await?;
    assert_eq!(version(&node)?.as_deref(), Some(OLD));
    assert!(has(&node, "before").await?);
    assert!(
        !has(&node, "after").await?,
        "the old k3s runs on the new one's datastore"
    );
    assert_eq!(written_by(&node).await?, "old");
    node.until("the app is known", |status| status.health == Health::Healthy)
        .await?;
    node.stop().await
}
