//! An exchange that is good, and one that is not.

use crate::{
    appliance::{MIB, key},
    board::{Board, images},
    engine_support::{
        PATIENCE,
        broker::Hub,
        config_map, deployment,
        k3s::{Server, program},
        namespace,
    },
};
use anyhow::{Context as _, Result, ensure};
use holdfast::codes;
use holdfast_harness::wait;
use holdfast_os::{Architecture, Chunk, Part, sign};
use holdfast_protocol::{
    Digest,
    event::{Event, EventKind},
};
use serde_json::Value;
use std::{collections::BTreeMap, fs};

const OLD: &str = "v1.36.3+k3s1";
const NEW: &str = "v1.37.0+k3s1";

/// A box with a Kubernetes of its own, where each version of the system brings another one; document 1 is good on version 1.
async fn on_version_1(hub: &Hub, name: &str) -> Result<Board> {
    let programs = BTreeMap::from([
        ("1".to_owned(), program(OLD, Server::Runs("old"))?),
        ("2".to_owned(), program(NEW, Server::Runs("new"))?),
    ]);
    let mut board = Board::new(hub, name, programs).await?;
    board.leave(hub, 1, "1", &objects(name, "1"), 3600)?;
    ensure!(board.power_on().await? == "1");
    board.until("1.1", "committed", "1").await?;
    make(&board, "before").await?;
    written_by(&board, "old").await?;
    Ok(board)
}

fn objects(name: &str, value: &str) -> [Value; 3] {
    [
        namespace(name),
        config_map("settings", value),
        deployment("web", "registry.example/web:1"),
    ]
}

async fn make(board: &Board, name: &str) -> Result<()> {
    let create = ["-n", "default", "create", "configmap", name];
    board.node.kubectl.run(&create).await.map(drop)
}

async fn has(board: &Board, name: &str) -> Result<bool> {
    Ok(board.node.object("default", "configmap", name).await?.is_some())
}

/// Waits until the k3s of this version has written its label to the datastore.
async fn written_by(board: &Board, label: &str) -> Result<()> {
    wait::until(&format!("{label} has written"), 5 * PATIENCE, async || {
        let node = board.node.object("default", "node", &board.node.name).await?;
        let node = node.context("the node")?;
        Ok((node["metadata"]["labels"]["written-by"] == label).then_some(()))
    })
    .await
}

fn count(events: &[Event], kind: &EventKind) -> usize {
    events.iter().filter(|event| event.kind == *kind).count()
}

async fn setting(board: &Board) -> Result<Value> {
    let settings = board
        .node
        .object(&board.node.name, "configmap", "settings")
        .await?
        .context("settings")?;
    Ok(settings["data"]["key"].clone())
}

#[tokio::test]
async fn pain_15_a_switch_to_the_other_slot_takes_the_datastore_along_and_is_committed_once_it_is_good()
-> Result<()> {
    let hub = Hub::start().await?;
    let mut board = on_version_1(&hub, "os-good").await?;
    board.stop_daemon().await?;
    board.leave(&hub, 2, "2", &objects("os-good", "2"), 3600)?;
    board.until("1.2", "committed", "2").await?;

    assert_eq!(board.appliance.kernels()?, ["holdfast_1.efi", "holdfast_2.efi"]);
    board.appliance.holds(&images()[1])?;
    written_by(&board, "new").await?;
    assert!(has(&board, "before").await?, "the datastore did not come along");
    assert_eq!(setting(&board).await?, "2");
    let report = board.report().await?;
    assert_eq!(
        (&report["os"]["slot"], &report["os"]["other"]),
        (&"b".into(), &"1".into())
    );
    board.power_off().await?;
    let record = board.record();
    assert!(record.trial.is_none() && record.bad.is_empty(), "{record:?}");
    assert_eq!(record.switches.len(), 1);
    let events = board.events()?;
    for kind in [EventKind::OsStaged, EventKind::OsSwitched] {
        assert_eq!(count(&events, &kind), 1, "{kind:?}");
    }
    assert_eq!(count(&events, &EventKind::OsRolledBack), 0);

    // It stays: the next start of the machine takes it, and counts nothing.
    assert_eq!(board.power_on().await?, "2");
    board.until("1.2", "committed", "2").await?;
    assert_eq!(board.appliance.kernels()?, ["holdfast_1.efi", "holdfast_2.efi"]);
    board.power_off().await
}

#[tokio::test]
async fn pain_13_a_system_whose_apps_do_not_come_up_is_left_with_datastore_and_apps_as_they_were()
-> Result<()> {
    let hub = Hub::start().await?;
    let mut board = on_version_1(&hub, "os-bad").await?;
    board.stop_daemon().await?;
    board.leave(&hub, 2, "2", &objects("os-bad", "2"), 3600)?;
    board.has_gate = false;
    board
        .live("version 2 is tried", None, |report| {
            report["os"]["version"] == "2"
        })
        .await?;
    // The new system's k3s writes to the datastore, and the app does not get along with the new system.
    written_by(&board, "new").await?;
    make(&board, "after").await?;
    board
        .node
        .kubectl
        .run(&[
            "-n",
            "os-bad",
            "annotate",
            "pods",
            "--all",
            "testcluster.holdfast/unready=true",
        ])
        .await?;
    wait::until("the app is not ready", 5 * PATIENCE, async || {
        let report = board.report().await?;
        let apps = report["apps"].as_array().context("apps")?;
        Ok(apps.iter().any(|app| app["health"] != "healthy").then_some(()))
    })
    .await?;
    ensure!(!board.judge("2s").await?, "a bad try stays up");
    // Two more tries, which come to nothing: the power goes.
    for _ in 0..2 {
        board.power_off().await?;
        assert_eq!(board.power_on().await?, "2");
    }
    board.power_off().await?;
    assert_eq!(board.power_on().await?, "1");
    board.has_gate = true;
    board.until("1.1", "rolled-back", "1").await?;

    written_by(&board, "old").await?;
    assert!(has(&board, "before").await?);
    assert!(
        !has(&board, "after").await?,
        "the old k3s runs on the new one's datastore"
    );
    assert_eq!(setting(&board).await?, "1");
    let report = board.report().await?;
    assert_eq!(report["os"]["bad"], serde_json::json!(["2"]));
    let healthy = |app: &Value| app["health"] == "healthy";
    assert!(report["apps"].as_array().context("apps")?.iter().all(healthy));
    board.power_off().await?;
    let record = board.record();
    assert!(record.trial.is_none(), "{record:?}");
    let bad = record.bad.first().context("version 2 is not remembered as bad")?;
    assert_eq!(
        (bad.version.as_str(), &*bad.problem.code),
        ("2", codes::OS_FELL_BACK)
    );
    assert!(
        bad.problem.message.contains("app web is not ready"),
        "{}",
        bad.problem
    );
    let events = board.events()?;
    assert_eq!(count(&events, &EventKind::OsRolledBack), 1);
    assert_eq!(count(&events, &EventKind::OsSwitched), 0);

    // The same image in a newer document is refused, once, and nothing restarts for it.
    let starts = board.boots().read()?.len();
    board.leave(&hub, 3, "2", &objects("os-bad", "3"), 3600)?;
    assert_eq!(board.power_on().await?, "1");
    board
        .live("the bad image is refused", None, |report| {
            let seen = &report["generation"];
            seen["accepted"] == "1.3" && seen["phase"] == "failed" && seen["running"] == "1.1"
        })
        .await?;
    board.power_off().await?;
    assert_eq!(board.boots().read()?.len(), starts + 1);
    assert_eq!(count(&board.events()?, &EventKind::OsStaged), 1);
    Ok(())
}

/// A box on a Kubernetes that is not its own, on version 2 by its own exchange.
async fn on_version_2(hub: &Hub, name: &str) -> Result<Board> {
    let mut board = Board::new(hub, name, BTreeMap::new()).await?;
    board.leave(hub, 1, "1", &objects(name, "1"), 3600)?;
    board.power_on().await?;
    board.until("1.1", "committed", "1").await?;
    board.stop_daemon().await?;
    board.leave(hub, 2, "2", &objects(name, "2"), 3600)?;
    board.until("1.2", "committed", "2").await?;
    board.power_off().await?;
    Ok(board)
}

#[tokio::test]
async fn how_the_last_good_start_of_a_version_ended_is_not_told_as_the_reason_for_leaving_it() -> Result<()> {
    let hub = Hub::start().await?;
    let mut board = on_version_2(&hub, "os-silent").await?;
    // Its starts ended in the initrd until no try was left: none of them wrote anything down.
    board.rename("holdfast_2.efi", "holdfast_2+0-2.efi")?;
    assert_eq!(board.power_on().await?, "1");
    board.has_gate = true;
    board.until("1.2", "committed", "1").await?;
    board.power_off().await?;
    let events = board.events()?;
    let told = events.iter().find(|event| event.kind == EventKind::OsRolledBack);
    assert!(
        told.is_some_and(|event| event.message.contains("the kernel or its disk did not come up")),
        "{told:?}"
    );
    Ok(())
}

#[tokio::test]
async fn pain_14_a_version_that_was_good_is_left_only_when_it_does_not_come_up_any_more() -> Result<()> {
    let hub = Hub::start().await?;
    let mut board = on_version_2(&hub, "os-worn").await?;
    // Nothing counts power cycles, however quick and many.
    for _ in 0..20 {
        assert_eq!(board.power_on().await?, "2");
    }
    assert_eq!(board.appliance.kernels()?, ["holdfast_1.efi", "holdfast_2.efi"]);

    // One start ends in the initrd, which counts from then on. The next is well, but for an app: that is no reason to leave.
    board.rename("holdfast_2.efi", "holdfast_2+2.efi")?;
    assert_eq!(board.power_on().await?, "2");
    board.has_gate = false;
    let annotate = |value: &'static str| ["-n", "os-worn", "annotate", "pods", "--all", value];
    board
        .node
        .kubectl
        .run(&annotate("testcluster.holdfast/unready=true"))
        .await?;
    board
        .live("the app is not ready", None, |report| {
            let apps = report["apps"].as_array();
            apps.is_some_and(|apps| apps.iter().any(|app| app["health"] != "healthy"))
                && report["kubernetes"]["health"] == "healthy"
        })
        .await?;
    ensure!(board.judge("2s").await?, "it is left because of an app");
    assert_eq!(board.appliance.kernels()?, ["holdfast_1.efi", "holdfast_2.efi"]);
    board
        .node
        .kubectl
        .run(&annotate("testcluster.holdfast/unready-"))
        .await?;
    board.power_off().await?;

    // Every start ends in the initrd: the other slot it is, and that is told.
    board.rename("holdfast_2.efi", "holdfast_2+2.efi")?;
    for expected in ["2", "2", "1"] {
        assert_eq!(board.power_on().await?, expected);
    }
    board.has_gate = true;
    board.until("1.2", "committed", "1").await?;
    assert_eq!(board.report().await?["os"]["bad"], serde_json::json!(["2"]));
    board.power_off().await?;
    assert_eq!(count(&board.events()?, &EventKind::OsRolledBack), 1);
    assert_eq!(board.power_on().await?, "1");
    board.until("1.2", "committed", "1").await?;
    board.power_off().await?;
    assert_eq!(
        count(&board.events()?, &EventKind::OsRolledBack),
        1,
        "it is told again"
    );
    Ok(())
}

#[tokio::test]
async fn pain_12_an_image_that_cannot_work_is_refused_before_the_first_write_and_not_in_a_loop() -> Result<()>
{
    let hub = Hub::start().await?;
    let name = "os-refused";
    let mut board = Board::new(&hub, name, BTreeMap::new()).await?;
    board.leave(&hub, 1, "1", &objects(name, "1"), 3600)?;
    board.power_on().await?;
    board.until("1.1", "committed", "1").await?;
    board.stop_daemon().await?;
    let disk = board.appliance.disk_digest()?;
    let good = &images()[1].manifest;
    let blocks = |part: &mut Part, size: u64| {
        let block = Chunk {
            size: 4096,
            digest: Digest::of(b"block"),
            ..part.chunks[0]
        };
        while part.size <= size {
            part.chunks.push(block);
            part.size += 4096;
        }
    };
    let mut large = good.clone();
    blocks(&mut large.usr, 8 * MIB);
    let mut other = good.clone();
    other.architecture = match Architecture::current() {
        Some(Architecture::Amd64) => Architecture::Arm64,
        _ => Architecture::Amd64,
    };
    let mut same = good.clone();
    same.version = "1".into();
    let cases = [
        ("2", large, 1, codes::OS_SLOT_TOO_SMALL),
        ("2", other, 1, codes::OS_WRONG_ARCHITECTURE),
        ("2", good.clone(), 7, holdfast_os::codes::OS_MANIFEST_UNTRUSTED),
        ("1", same, 1, codes::OS_SAME_VERSION),
    ];
    for (counter, (version, manifest, signer, code)) in (2..).zip(cases) {
        board.leave_manifest(
            &hub,
            counter,
            version,
            &sign(&manifest, &[&key(signer)])?,
            &objects(name, "2"),
            3600,
        )?;
        let accepted = format!("1.{counter}");
        let refused = |report: &Value| {
            let seen = &report["generation"];
            seen["accepted"] == accepted.as_str()
                && seen["phase"] == "failed"
                && seen["cause"]["code"] == code
                && seen["running"] == "1.1"
        };
        board.live(code, None, refused).await?;
        board.stop_daemon().await?;
        // Another start does not try it again.
        board.live(code, None, refused).await?;
        board.stop_daemon().await?;
        assert_eq!(board.appliance.disk_digest()?, disk, "{code}");
        assert_eq!(board.appliance.kernels()?, ["holdfast_1.efi"], "{code}");
    }
    assert_eq!(count(&board.events()?, &EventKind::DocumentFailed), 4);
    assert_eq!(count(&board.events()?, &EventKind::OsStaged), 0);
    // What can work is taken after all of that.
    board.leave(&hub, 9, "2", &objects(name, "2"), 3600)?;
    board.until("1.9", "committed", "2").await?;
    board.power_off().await
}

#[tokio::test]
async fn a_node_that_finds_the_store_of_a_newer_one_goes_on_with_the_copy_and_tells_it() -> Result<()> {
    let hub = Hub::start().await?;
    let name = "os-older";
    let mut board = Board::new(&hub, name, BTreeMap::new()).await?;
    board.leave(&hub, 1, "1", &objects(name, "1"), 3600)?;
    board.power_on().await?;
    board.until("1.1", "committed", "1").await?;
    board.power_off().await?;
    // Opening it has its log written back: what follows is the whole database.
    let told = board.events()?.len();
    let store = board.node.settings.state_dir.join("store");
    let mut database = fs::read(store.join("node.db"))?;
    // "User version" of the database header.
    let version = u32::from_be_bytes(database[60..64].try_into()?);
    fs::write(store.join(format!("node.db.schema-{version}")), &database)?;
    database[60..64].copy_from_slice(&(version + 1).to_be_bytes());
    fs::write(store.join("node.db"), database)?;

    board.power_on().await?;
    board.until("1.1", "committed", "1").await?;
    board.power_off().await?;
    let events = board.events()?;
    assert!(events.len() > told, "what waited for the hub is lost");
    let event = events
        .iter()
        .find(|event| event.kind == EventKind::StoreQuarantined)
        .context("it is not told")?;
    assert!(
        event.message.contains("the copy from before"),
        "{}",
        event.message
    );
    Ok(())
}
