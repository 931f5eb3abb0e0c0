//! Documents that fail go back to the last good one; people at the box pause and go back by hand; newer documents take over anywhere.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result, ensure};
use engine_support::{app, broker::Hub, config_map, deployment, namespace, node::Node};
use holdfast::{
    codes,
    local_api::view::{PauseOrder, RollbackOrder},
};
use holdfast_core::codes as core_codes;
use holdfast_harness::wait;
use holdfast_protocol::{
    Generation,
    event::EventKind,
    report::{Health, Phase, StatusReport},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::{Value, json};
use std::time::Duration;

const GOOD: &str = "registry.example/web:1";
const BAD: &str = "registry.invalid/web:2";

fn generation(counter: u64) -> Generation {
    Generation { epoch: 1, counter }
}

/// A document of one app in the node's own namespace.
fn document(node: &Node, counter: u64, objects: &[Value], policy: Value) -> Value {
    let mut all = vec![namespace(&node.name)];
    all.extend_from_slice(objects);
    let mut document = node.document(counter, &[app("web", &node.name, &all)]);
    document["policy"] = policy;
    document
}

fn is_rolled_back(status: &StatusReport) -> bool {
    status.generation.phase == Phase::RolledBack
}

async fn publish(node: &Node, hub: &Hub, counter: u64, objects: &[Value], policy: Value) -> Result<()> {
    node.publish_document(hub, &document(node, counter, objects, policy))
        .await
}

async fn image(node: &Node) -> Result<Value> {
    let web = node
        .object(&node.name, "deployment", "web")
        .await?
        .context("web")?;
    Ok(web["spec"]["template"]["spec"]["containers"][0]["image"].clone())
}

#[tokio::test]
async fn pain_13_apps_that_never_get_ready_are_rolled_back_with_the_first_cause() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = Node::start(&hub, "back").await?;
    publish(
        &node,
        &hub,
        1,
        &[deployment("web", GOOD), config_map("old", "1")],
        json!({}),
    )
    .await?;
    node.until_proven(1).await?;

    let objects = [deployment("web", BAD), config_map("new", "1")];
    publish(&node, &hub, 2, &objects, json!({"readyDeadlineSeconds": 3})).await?;
    let status = node.until("it is rolled back", is_rolled_back).await?;
    let cause = status.generation.cause.clone().context("a cause")?;
    ensure!(
        cause.message.contains("registry.invalid"),
        "not the first cause: {cause}"
    );
    assert_eq!(status.generation.accepted, Some(generation(2)));
    assert_eq!(status.generation.running, Some(generation(1)));
    assert_eq!(status.generation.proven, Some(generation(1)));
    assert_eq!(status.health, Health::Degraded, "it is not what the hub wants");
    assert_eq!(image(&node).await?, GOOD);
    assert!(node.object("back", "configmap", "old").await?.is_some());
    assert!(node.object("back", "configmap", "new").await?.is_none());
    let failed = hub.hear_event(EventKind::DocumentFailed).await?;
    assert_eq!(failed.generation, Some(generation(2)));
    assert_eq!(
        failed.problem.as_ref().map(|problem| &problem.code),
        Some(&cause.code)
    );
    hub.hear_event(EventKind::DocumentRolledBack).await?;

    // It is never tried again, not even after a restart; what runs is kept right.
    node.stop().await?;
    node.run().await?;
    node.until("it is known as rolled back", is_rolled_back).await?;
    node.kubectl
        .run(&["-n", "back", "delete", "configmap", "old"])
        .await?;
    wait::until("what runs is kept up", engine_support::PATIENCE, async || {
        node.object("back", "configmap", "old").await
    })
    .await?;
    assert_eq!(image(&node).await?, GOOD);
    let failures = hub.heard().events;
    let failures = failures
        .iter()
        .filter(|event| event.kind == EventKind::DocumentFailed);
    assert_eq!(failures.count(), 1);

    publish(&node, &hub, 3, &[deployment("web", GOOD)], json!({})).await?;
    let status = node.until_proven(3).await?;
    assert_eq!(status.generation.cause, None);
    assert_eq!(status.generation.running, Some(generation(3)));
    Ok(())
}

#[tokio::test]
async fn pain_13_an_app_that_gets_ready_and_then_fails_is_caught_by_the_stability_period() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "stable").await?;
    publish(&node, &hub, 1, &[config_map("old", "1")], json!({})).await?;
    node.until_proven(1).await?;
    let policy = json!({"readyDeadlineSeconds": 12, "stabilitySeconds": 8});
    publish(&node, &hub, 2, &[deployment("web", GOOD)], policy).await?;
    node.until("the app is ready, and must stay so", |status| {
        status.generation.phase == Phase::Verifying
            && status.generation.until.is_some()
            && status.apps.iter().all(|app| app.health == Health::Healthy)
    })
    .await?;
    let pods = [
        "-n",
        "stable",
        "annotate",
        "pod",
        "--all",
        "testcluster.holdfast/unready=true",
    ];
    node.kubectl.run(&pods).await?;
    let status = node.until("it is rolled back", is_rolled_back).await?;
    assert_eq!(status.generation.running, Some(generation(1)));
    assert_eq!(
        status.generation.proven,
        Some(generation(1)),
        "2 never counted as good"
    );
    Ok(())
}

#[tokio::test]
async fn an_app_that_may_fail_alone_does_not_drag_the_others_back() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "alone").await?;
    publish(&node, &hub, 1, &[config_map("old", "1")], json!({})).await?;
    node.until_proven(1).await?;
    let mut never_ready = deployment("broken", BAD);
    never_ready["spec"]["progressDeadlineSeconds"] = json!(3);
    let mut broken = app("broken", "alone", &[never_ready]);
    broken["onFailure"] = json!("isolate");
    let mut both = document(
        &node,
        2,
        &[deployment("web", GOOD)],
        json!({"readyDeadlineSeconds": 5}),
    );
    both["apps"].as_array_mut().unwrap().push(broken);
    node.publish_document(&hub, &both).await?;
    let status = node.until_proven(2).await?;
    assert_eq!(status.generation.running, Some(generation(2)));
    let event = hub.hear_event(EventKind::AppFailed).await?;
    ensure!(event.message.contains("broken"), "{event:?}");
    node.until("it shows on its app", |status| {
        status
            .apps
            .iter()
            .any(|app| app.name == "broken" && app.health == Health::Degraded && app.cause.is_some())
    })
    .await?;
    Ok(())
}

fn pause(seconds: u64) -> PauseOrder {
    PauseOrder {
        seconds,
        reason: "the till is open".into(),
    }
}

#[tokio::test]
async fn a_pause_holds_even_urgent_documents_over_restarts_until_it_is_ended() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = Node::start(&hub, "pause").await?;
    publish(&node, &hub, 1, &[config_map("settings", "1")], json!({})).await?;
    node.until_proven(1).await?;

    let paused = node
        .handle()?
        .pause(pause(3_600))
        .await
        .map_err(|problem| anyhow::anyhow!(problem))?;
    publish(
        &node,
        &hub,
        2,
        &[config_map("settings", "2")],
        json!({"urgent": true}),
    )
    .await?;
    let held = |status: &StatusReport| {
        status.generation.phase == Phase::WaitingForWindow
            && status.generation.accepted == Some(generation(2))
            && status.generation.paused_until == Some(paused.paused_until)
            && status.generation.until == Some(paused.paused_until)
    };
    let status = node.until("it is held", held).await?;
    assert_eq!(status.generation.running, Some(generation(1)));
    assert_eq!(
        status.generation.cause.context("a cause")?.code,
        core_codes::CHANGES_PAUSED
    );
    let told = hub.hear_event(EventKind::Paused).await?;
    ensure!(told.message.contains("the till is open"), "{}", told.message);

    node.stop().await?;
    node.run().await?;
    node.until("it is held after a restart", held).await?;
    let settings = node
        .object("pause", "configmap", "settings")
        .await?
        .context("settings")?;
    assert_eq!(settings["data"]["key"], "1");

    let resumed = node
        .handle()?
        .resume()
        .await
        .map_err(|problem| anyhow::anyhow!(problem))?;
    assert!(resumed.was_paused);
    let status = node.until_proven(2).await?;
    assert_eq!(status.generation.paused_until, None);
    let again = node
        .handle()?
        .resume()
        .await
        .map_err(|problem| anyhow::anyhow!(problem))?;
    assert!(!again.was_paused);
    Ok(())
}

#[tokio::test]
async fn a_pause_ends_by_itself() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "pause-ends").await?;
    node.handle()?
        .pause(pause(2))
        .await
        .map_err(|problem| anyhow::anyhow!(problem))?;
    publish(&node, &hub, 1, &[config_map("settings", "1")], json!({})).await?;
    let status = node.until_proven(1).await?;
    assert_eq!(status.generation.paused_until, None);
    let refused = node.handle()?.pause(pause(0)).await.unwrap_err();
    assert_eq!(refused.code, holdfast_protocol::codes::BAD_REQUEST);
    Ok(())
}

#[tokio::test]
async fn a_person_goes_back_and_a_newer_document_takes_over_again() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = Node::start(&hub, "by-hand").await?;
    let to = |counter: Option<u64>| RollbackOrder {
        generation: counter.map(generation),
    };
    let refused = node.handle()?.roll_back(to(None)).await.unwrap_err();
    assert_eq!(refused.code, codes::ROLLBACK_IMPOSSIBLE, "{refused}");
    for counter in 1..=3 {
        let value = counter.to_string();
        publish(&node, &hub, counter, &[config_map("settings", &value)], json!({})).await?;
        node.until_proven(counter).await?;
        if counter == 1 {
            let refused = node.handle()?.roll_back(to(None)).await.unwrap_err();
            assert_eq!(refused.code, codes::ROLLBACK_IMPOSSIBLE, "{refused}");
        }
    }
    let unknown = node.handle()?.roll_back(to(Some(9))).await.unwrap_err();
    ensure!(
        unknown.message.contains("1.2, 1.1"),
        "those that are kept are not named: {unknown}"
    );
    let there = node.handle()?.roll_back(to(Some(3))).await.unwrap_err();
    assert_eq!(there.code, codes::ALREADY_RUNNING, "{there}");

    let begun = node
        .handle()?
        .roll_back(to(Some(1)))
        .await
        .map_err(|problem| anyhow::anyhow!(problem))?;
    assert_eq!((begun.from, begun.to), (generation(3), generation(1)));
    let settled =
        |status: &StatusReport| is_rolled_back(status) && status.generation.running == Some(generation(1));
    let status = node.until("it went back", settled).await?;
    assert_eq!(
        status.generation.cause.context("a cause")?.code,
        codes::ROLLED_BACK_BY_HAND
    );
    hub.hear_event(EventKind::DocumentRolledBack).await?;
    let there = node.handle()?.roll_back(to(Some(1))).await.unwrap_err();
    assert_eq!(there.code, codes::ALREADY_RUNNING, "{there}");
    node.stop().await?;
    node.run().await?;
    node.until("it stays so over a restart", settled).await?;
    let settings = node
        .object("by-hand", "configmap", "settings")
        .await?
        .context("settings")?;
    assert_eq!(settings["data"]["key"], "1");

    publish(&node, &hub, 4, &[config_map("settings", "4")], json!({})).await?;
    node.until_proven(4).await?;
    Ok(())
}

/// A policy whose only window opens in two hours.
fn closed() -> Value {
    let opens = Timestamp::now().to_zoned(TimeZone::UTC) + SignedDuration::from_hours(2);
    let closes = &opens + SignedDuration::from_hours(1);
    json!({"windows": [{
        "start": opens.strftime("%H:%M").to_string(),
        "end": closes.strftime("%H:%M").to_string(),
    }]})
}

#[tokio::test]
async fn outside_its_window_a_document_waits_and_an_urgent_one_does_not() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "window").await?;
    publish(&node, &hub, 1, &[config_map("settings", "1")], json!({})).await?;
    node.until_proven(1).await?;
    publish(&node, &hub, 2, &[config_map("settings", "2")], closed()).await?;
    let status = node
        .until("it waits for its window", |status| {
            status.generation.phase == Phase::WaitingForWindow && status.generation.until.is_some()
        })
        .await?;
    let wait = status
        .generation
        .until
        .context("until")?
        .duration_since(status.reported_at);
    ensure!(
        wait > SignedDuration::from_mins(118) && wait <= SignedDuration::from_mins(120),
        "{wait}"
    );
    let mut policy = closed();
    policy["urgent"] = json!(true);
    publish(&node, &hub, 3, &[config_map("settings", "3")], policy).await?;
    node.until_proven(3).await?;
    Ok(())
}

#[tokio::test]
async fn pain_20_a_newer_document_takes_over_wherever_the_older_one_is_stuck() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "stuck").await?;
    let slow = |value: &str| {
        let mut web = deployment("web", GOOD);
        web["spec"]["template"]["metadata"]["annotations"] =
            json!({"testcluster.holdfast/start-delay": "45s", "value": value});
        web
    };
    let mut counter = 0;
    let mut next = || {
        counter += 1;
        counter
    };
    let reaches = async |counter: u64, phase: Phase| {
        node.until(&format!("1.{counter} is {phase:?}"), |status| {
            status.generation.accepted == Some(generation(counter)) && status.generation.phase == phase
        })
        .await
    };
    let good = next();
    publish(&node, &hub, good, &[config_map("settings", "1")], json!({})).await?;
    node.until_proven(good).await?;

    // Its blob is nowhere.
    let stuck = next();
    let mut fetching = document(&node, stuck, &[], json!({}));
    let digest = holdfast_protocol::Digest::of(b"nowhere");
    fetching["apps"][0]["manifests"] = json!([{"blob": {"digest": digest, "size": 7}}]);
    node.publish_document(&hub, &fetching).await?;
    reaches(stuck, Phase::Fetching).await?;

    let stuck = next();
    publish(&node, &hub, stuck, &[config_map("settings", "2")], closed()).await?;
    reaches(stuck, Phase::WaitingForWindow).await?;

    let stuck = next();
    publish(&node, &hub, stuck, &[slow("a")], json!({})).await?;
    reaches(stuck, Phase::Verifying).await?;

    let good = next();
    publish(&node, &hub, good, &[deployment("web", GOOD)], json!({})).await?;
    node.until_proven(good).await?;

    // The way back itself is stuck: what it goes back to takes long to start.
    let slow_one = next();
    let mut quick = slow("b");
    quick["spec"]["template"]["metadata"]["annotations"]["testcluster.holdfast/start-delay"] = json!("3s");
    publish(&node, &hub, slow_one, &[quick], json!({})).await?;
    node.until_proven(slow_one).await?;
    let stuck = next();
    publish(
        &node,
        &hub,
        stuck,
        &[deployment("web", BAD)],
        json!({"readyDeadlineSeconds": 2}),
    )
    .await?;
    reaches(stuck, Phase::RollingBack).await?;
    let good = next();
    publish(&node, &hub, good, &[config_map("settings", "last")], json!({})).await?;
    node.until_proven(good).await?;
    assert!(node.object("stuck", "deployment", "web").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn progress_costs_no_reports() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "quiet").await?;
    publish(&node, &hub, 1, &[config_map("settings", "1")], json!({})).await?;
    node.until_proven(1).await?;
    hub.hear("the report of it", |heard| {
        heard
            .reports
            .last()
            .is_some_and(|report| report.generation.phase == Phase::Committed)
    })
    .await?;
    // Something may happen beside it that is worth a report; if looking made it talk, it would talk each time.
    for _ in 0..10 {
        let before = hub.heard().reports.len();
        for _ in 0..50 {
            node.status()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if hub.heard().reports.len() == before {
            return Ok(());
        }
    }
    anyhow::bail!("looking makes it talk")
}
