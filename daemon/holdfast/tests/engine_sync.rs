//! The link against a real mosquitto: nothing is lost, nothing is acknowledged early, everything comes back.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::Result;
use engine_support::{app, broker::Hub, config_map, namespace, node::Node};
use holdfast_protocol::{codes, event::EventKind};

#[tokio::test]
async fn a_rejected_document_is_reported_by_name_and_comes_only_once() -> Result<()> {
    let mut hub = Hub::start().await?;
    let node = Node::start(&hub, "rejecting").await?;
    hub.publish("rejecting", b"not an envelope".to_vec()).await?;
    let event = hub.hear_event(EventKind::DocumentRejected).await?;
    assert_eq!(event.problem.unwrap().code, codes::DOCUMENT_MALFORMED);
    hub.hear("the condition", |heard| {
        heard.reports.last().is_some_and(|report| {
            report
                .conditions
                .iter()
                .any(|one| one.problem.code == codes::DOCUMENT_MALFORMED)
        })
    })
    .await?;

    // The retained message comes again with the next session; it is told of once.
    let sessions = hub.heard().presence.len();
    hub.kill_broker().await?;
    hub.start_broker().await?;
    hub.hear("the node is back", |heard| heard.presence.len() > sessions)
        .await?;
    node.publish(&hub, 1, &[]).await?;
    node.until_proven(1).await?;
    hub.hear("the condition is over", |heard| {
        heard
            .reports
            .last()
            .is_some_and(|report| report.conditions.is_empty() && report.generation.proven.is_some())
    })
    .await?;
    let rejected = hub
        .heard()
        .events
        .iter()
        .filter(|event| event.kind == EventKind::DocumentRejected)
        .count();
    assert_eq!(rejected, 1);
    Ok(())
}

#[tokio::test]
async fn each_bad_document_gets_its_own_name_and_changes_nothing() -> Result<()> {
    let hub = Hub::start().await?;
    let other_hub = Hub::start().await?;
    let node = Node::start(&hub, "strict").await?;
    let objects = [namespace("strict"), config_map("settings", "1")];
    let good = [app("hello", "strict", &objects)];
    node.publish(&hub, 5, &good).await?;
    node.until_proven(5).await?;

    let mut wrong_node = node.document(6, &good);
    wrong_node["node"] = "another".into();
    let mut major = node.document(6, &good);
    major["schema"] = "2.0".into();
    let mut unsigned = hub.sign(&node.document(6, &good));
    unsigned.signatures.clear();
    let cases = [
        (hub.sign(&wrong_node).to_json(), codes::WRONG_NODE),
        (hub.sign(&major).to_json(), codes::SCHEMA_UNSUPPORTED),
        (unsigned.to_json(), codes::DOCUMENT_UNSIGNED),
        (
            other_hub.sign(&node.document(6, &good)).to_json(),
            codes::SIGNATURE_INVALID,
        ),
        (
            hub.sign(&node.document(4, &good)).to_json(),
            codes::GENERATION_OLDER,
        ),
        (
            hub.sign(&node.document(5, &[])).to_json(),
            codes::GENERATION_CONFLICT,
        ),
        (
            vec![b' '; holdfast_protocol::MAX_ENVELOPE_BYTES + 1],
            codes::ENVELOPE_TOO_LARGE,
        ),
    ];
    for (bytes, code) in cases {
        hub.publish("strict", bytes).await?;
        hub.hear(code, |heard| {
            heard.events.iter().any(|event| {
                event.kind == EventKind::DocumentRejected
                    && event.problem.as_ref().is_some_and(|problem| problem.code == code)
            })
        })
        .await?;
    }
    let status = node.status()?;
    assert_eq!(
        status.generation.accepted.map(|generation| generation.counter),
        Some(5)
    );
    assert!(node.object("strict", "configmap", "settings").await?.is_some());
    Ok(())
}

#[tokio::test]
async fn pain_19_nothing_is_missed_while_the_broker_is_away() -> Result<()> {
    let mut hub = Hub::start().await?;
    let node = Node::start(&hub, "dark").await?;
    let document = |counter: u64| {
        [app(
            "hello",
            "dark",
            &[namespace("dark"), config_map("settings", &counter.to_string())],
        )]
    };
    node.publish(&hub, 1, &document(1)).await?;
    node.until_proven(1).await?;
    hub.hear_event(EventKind::DocumentProven).await?;

    let sessions = hub.heard().presence.len();
    hub.kill_broker().await?;
    node.until("the link is seen as lost", |_| {
        node.handle().is_ok_and(|handle| !handle.link().connected)
    })
    .await?;
    // Drift while dark: put back, and told of later.
    node.kubectl
        .run(&["-n", "dark", "delete", "configmap", "settings"])
        .await?;
    node.until("the event waits", |_| {
        node.handle().is_ok_and(|handle| handle.link().waiting_events > 0)
    })
    .await?;

    hub.start_broker().await?;
    hub.hear_event(EventKind::DriftCorrected).await?;
    hub.hear("presence", |heard| {
        heard.presence.len() > sessions && heard.presence.last() == Some(&true)
    })
    .await?;
    node.publish(&hub, 2, &document(2)).await?;
    node.until_proven(2).await?;
    hub.hear("the proof of document 2", |heard| {
        heard.events.iter().any(|event| {
            event.kind == EventKind::DocumentProven
                && event.generation.is_some_and(|generation| generation.counter == 2)
        })
    })
    .await?;
    // No gap in the sequence: nothing was dropped on the way.
    let mut sequences: Vec<_> = hub.heard().events.iter().map(|event| event.sequence).collect();
    sequences.sort_unstable();
    sequences.dedup();
    assert!(
        sequences.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{sequences:?}"
    );
    node.until("the outbox is empty", |_| {
        node.handle()
            .is_ok_and(|handle| handle.link().waiting_events == 0)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn events_wait_for_a_hub_that_listens() -> Result<()> {
    let mut hub = Hub::start().await?;
    // Without a session of the hub's, the broker would take events and drop them.
    hub.disconnect();
    hub.kill_broker().await?;
    hub.forget("mosquitto.db")?;
    hub.start_broker().await?;
    let node = Node::start(&hub, "patient").await?;
    node.until("the node has a session", |_| {
        node.handle().is_ok_and(|handle| handle.link().connected)
    })
    .await?;
    assert!(node.handle()?.link().waiting_events > 0);
    hub.connect().await?;
    hub.hear_event(EventKind::Started).await?;
    Ok(())
}

#[tokio::test]
async fn a_node_says_when_it_goes_and_its_last_will_says_when_it_cannot() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = Node::start(&hub, "leaving").await?;
    hub.hear("online", |heard| heard.presence.last() == Some(&true))
        .await?;
    node.stop().await?;
    hub.hear("offline", |heard| heard.presence.last() == Some(&false))
        .await?;
    node.run().await?;
    hub.hear("online again", |heard| heard.presence.last() == Some(&true))
        .await?;
    node.abandon();
    hub.hear("offline by the last will", |heard| {
        heard.presence.last() == Some(&false)
    })
    .await?;
    Ok(())
}
