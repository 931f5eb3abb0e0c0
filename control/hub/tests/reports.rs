//! What nodes say over MQTT, with the real broker in the real hub: state, events, presence, and the end of a deleted node.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use holdfast_protocol::{
    Digest, Generation, Problem, SchemaVersion,
    envelope::Envelope,
    event::{Event, EventKind, Severity},
    operator::NodeInfo,
    report::{AppStatus, GenerationStatus, Health, KubernetesStatus, MachineFacts, StatusReport},
};
use reqwest::Method;
use rumqttc::{
    TlsConfiguration, Transport,
    v5::{
        AsyncClient, Event as Mqtt, Incoming, MqttOptions,
        mqttbytes::{QoS, v5::PubAckReason},
    },
};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use support::{Hub, Node, Site, eventually, release};
use tokio::{sync::mpsc, task::JoinHandle};

/// A node's session; it ends when the broker ends it.
struct Session {
    client: AsyncClient,
    incoming: mpsc::UnboundedReceiver<Incoming>,
    ended: JoinHandle<String>,
}

impl Session {
    async fn open(hub: &Hub, node: &Node) -> Self {
        let (host, port) = hub.mqtt.trim_start_matches("mqtts://").split_once(':').unwrap();
        let mut options = MqttOptions::new(node.id(), host, port.parse().unwrap());
        options
            .set_credentials(node.id(), "")
            .set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(node.tls()))))
            .set_clean_start(false)
            .set_max_packet_size(Some(2 * 1024 * 1024));
        let (client, mut events) = AsyncClient::new(options, 64);
        let (sender, incoming) = mpsc::unbounded_channel();
        let ended = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Mqtt::Incoming(packet)) => {
                        let _ = sender.send(packet);
                    }
                    Ok(Mqtt::Outgoing(_)) => {}
                    Err(error) => return error.to_string(),
                }
            }
        });
        let mut session = Self {
            client,
            incoming,
            ended,
        };
        session
            .wait(|packet| matches!(packet, Incoming::ConnAck(_)).then_some(()))
            .await;
        session
    }

    async fn wait<T>(&mut self, mut wanted: impl FnMut(&Incoming) -> Option<T>) -> T {
        tokio::time::timeout(support::PATIENCE, async {
            loop {
                let packet = self.incoming.recv().await.expect("the session ended");
                if let Some(value) = wanted(&packet) {
                    return value;
                }
            }
        })
        .await
        .unwrap()
    }

    /// Publishes, and returns when the hub has stored it.
    async fn say(&mut self, node: &Node, channel: &str, payload: impl Into<Vec<u8>>) {
        let topic = format!("hf/v1/{}/up/{channel}", node.id());
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload.into())
            .await
            .unwrap();
        let reason = self
            .wait(|packet| match packet {
                Incoming::PubAck(ack) => Some(ack.reason),
                _ => None,
            })
            .await;
        assert!(
            matches!(
                reason,
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers
            ),
            "{reason:?}"
        );
    }
}

fn status(node: &Node, sequence: u64, minute: i64) -> StatusReport {
    StatusReport {
        schema: SchemaVersion::CURRENT,
        node: node.answer.node.clone(),
        sequence,
        reported_at: jiff::Timestamp::from_second(1_800_000_000 + minute * 60).unwrap(),
        clock_trusted: true,
        agent: serde_json::from_value(json!({
            "version": "0.1.0", "startedAt": "2026-01-01T00:00:00Z", "bootId": "b", "architecture": "x86_64",
            "operatingSystem": "Debian 13"
        }))
        .unwrap(),
        generation: GenerationStatus {
            accepted: Some("1.2".parse().unwrap()),
            proven: Some("1.1".parse().unwrap()),
            ..GenerationStatus::default()
        },
        health: Health::Degraded,
        os: None,
        kubernetes: KubernetesStatus::default(),
        apps: vec![AppStatus {
            name: "hello".into(),
            health: Health::Degraded,
            ready: 0,
            objects: 1,
            cause: Some(Problem::new(
                "image-pull-failed",
                format!("report {sequence}"),
                "",
            )),
        }],
        conditions: Vec::new(),
        machine: MachineFacts::default(),
        extra: Map::new(),
    }
}

fn event(node: &Node, sequence: u64, message: &str) -> Vec<u8> {
    let event = Event {
        schema: SchemaVersion::CURRENT,
        node: node.answer.node.clone(),
        sequence,
        at: jiff::Timestamp::UNIX_EPOCH,
        kind: EventKind::Started,
        severity: Severity::Info,
        message: message.into(),
        generation: None,
        problem: None,
        details: Map::new(),
    };
    serde_json::to_vec(&event).unwrap()
}

#[tokio::test]
async fn the_latest_report_wins_and_is_honest_about_what_is_proven() {
    let site = Site::new();
    let hub = site.start().await;
    let node = hub.node("shop-17").await;
    let before: NodeInfo = hub.get("/api/v1/nodes/shop-17").await;
    assert_eq!(
        (before.health, before.online, before.last_heard_at),
        (Health::Unknown, false, None)
    );
    let mut session = Session::open(&hub, &node).await;
    let shown = async || hub.get::<NodeInfo>("/api/v1/nodes/shop-17").await;
    let said = |report: &StatusReport| serde_json::to_vec(report).unwrap();
    let generation = |text: &str| Some(text.parse::<Generation>().unwrap());

    session.say(&node, "status", said(&status(&node, 5, 5))).await;
    let info = shown().await;
    assert_eq!(
        (info.accepted, info.proven),
        (generation("1.2"), generation("1.1"))
    );
    assert_eq!(info.cause.unwrap().message, "report 5");
    assert!(info.last_heard_at.is_some());
    // Old news changes nothing; what cannot be used is acknowledged, so that it is not sent for ever.
    session.say(&node, "status", said(&status(&node, 4, 4))).await;
    session.say(&node, "status", "no JSON").await;
    let mut foreign = status(&node, 9, 9);
    foreign.node = "shop-18".parse().unwrap();
    session.say(&node, "status", said(&foreign)).await;
    let mut newer = status(&node, 9, 9);
    newer.schema.major = 2;
    session.say(&node, "status", said(&newer)).await;
    session
        .say(&node, "status", said(&status(&node, u64::MAX, 9)))
        .await;
    assert_eq!(shown().await.status.unwrap().sequence, 5);
    // A newer report wins; and so does a later one of a node that lost its store and counts again.
    session.say(&node, "status", said(&status(&node, 6, 6))).await;
    assert_eq!(shown().await.status.unwrap().sequence, 6);
    session.say(&node, "status", said(&status(&node, 1, 7))).await;
    assert_eq!(shown().await.status.unwrap().sequence, 1);
    assert_eq!(
        hub.figure("holdfast_hub_messages_total{channel=\"status\",result=\"refused\"}")
            .await,
        Some(4.0)
    );
}

#[tokio::test]
async fn a_generation_that_another_document_has_is_never_shown_as_proven() {
    let site = Site::new();
    let hub = site.start().await;
    let node = hub.node("shop-17").await;
    let mut session = Session::open(&hub, &node).await;
    let topic = "hf/v1/shop-17/down/desired";
    session.client.subscribe(topic, QoS::AtLeastOnce).await.unwrap();
    session
        .wait(|packet| matches!(packet, Incoming::SubAck(_)).then_some(()))
        .await;
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases", release("r1", "r1"))
        .await;
    let _: Value = hub
        .ask(
            Method::POST,
            "/api/v1/releases/r1/assign",
            json!({ "selector": "" }),
        )
        .await;
    let sent = session
        .wait(|packet| match packet {
            Incoming::Publish(message) => Some(message.payload.clone()),
            _ => None,
        })
        .await;
    let own = Digest::of(&Envelope::from_json(&sent).unwrap().payload);
    let generation = |text: &str| Some(text.parse::<Generation>().unwrap());
    let mut report = status(&node, 1, 1);
    report.generation.accepted = generation("1.1");
    report.generation.proven = generation("1.1");

    report.generation.accepted_digest = Some(Digest::of(b"another document"));
    session
        .say(&node, "status", serde_json::to_vec(&report).unwrap())
        .await;
    let info: NodeInfo = hub.get("/api/v1/nodes/shop-17").await;
    assert_eq!(
        (info.wanted, info.accepted, info.proven),
        (generation("1.1"), None, None)
    );
    let cause = info.cause.unwrap();
    assert_eq!(cause.code, "generation-conflict");
    assert!(cause.action.contains("`holdfast-hub restored`"), "{cause:?}");
    let all: Vec<NodeInfo> = hub.get("/api/v1/nodes").await;
    assert_eq!(all[0].proven, None);

    report.sequence = 2;
    report.generation.accepted_digest = Some(own);
    session
        .say(&node, "status", serde_json::to_vec(&report).unwrap())
        .await;
    let info: NodeInfo = hub.get("/api/v1/nodes/shop-17").await;
    assert_eq!(
        (info.accepted, info.proven),
        (generation("1.1"), generation("1.1"))
    );
    assert_eq!(info.cause.unwrap().code, "image-pull-failed");
}

#[tokio::test]
async fn events_are_kept_once_in_order_and_bounded() {
    let site = Site::new();
    let hub = site.start_with(&[("retention", "events_per_node = 5")]).await;
    let node = hub.node("shop-17").await;
    let mut session = Session::open(&hub, &node).await;
    let messages = async || {
        let events: Vec<Event> = hub.get("/api/v1/nodes/shop-17/events").await;
        events.into_iter().map(|event| event.message).collect::<Vec<_>>()
    };
    for sequence in [1, 2, 2, 1, 3] {
        session
            .say(&node, "event", event(&node, sequence, &format!("e{sequence}")))
            .await;
    }
    assert_eq!(messages().await, ["e3", "e2", "e1"]);
    // A node that lost its store counts again; nothing of it is taken for a double.
    session.say(&node, "event", event(&node, 1, "again")).await;
    assert_eq!(messages().await, ["again", "e3", "e2", "e1"]);
    for sequence in 10..13 {
        session
            .say(&node, "event", event(&node, sequence, &format!("e{sequence}")))
            .await;
    }
    assert_eq!(messages().await, ["e12", "e11", "e10", "again", "e3"]);
}

#[tokio::test]
async fn presence_follows_the_session_and_a_restart_knows_no_session() {
    let site = Site::new();
    let hub = site.start().await;
    let node = hub.node("shop-17").await;
    let is = async |hub: &Hub, online: bool| {
        eventually(if online { "online" } else { "offline" }, async || {
            let info: NodeInfo = hub.get("/api/v1/nodes/shop-17").await;
            (info.online == online).then_some(())
        })
        .await;
    };
    let session = Session::open(&hub, &node).await;
    is(&hub, true).await;
    session.ended.abort();
    is(&hub, false).await;
    let _session = Session::open(&hub, &node).await;
    is(&hub, true).await;
    hub.kill().await;
    let hub = site.start().await;
    let info: NodeInfo = hub.get("/api/v1/nodes/shop-17").await;
    assert!(!info.online);
}

#[tokio::test]
async fn a_release_reaches_the_connected_node_and_the_one_that_comes_later() {
    let site = Site::new();
    let hub = site.start().await;
    let node = hub.node("shop-17").await;
    let mut session = Session::open(&hub, &node).await;
    let topic = "hf/v1/shop-17/down/desired";
    session.client.subscribe(topic, QoS::AtLeastOnce).await.unwrap();
    session
        .wait(|packet| matches!(packet, Incoming::SubAck(_)).then_some(()))
        .await;
    let mut first = None;
    for (number, name) in ["r1", "r2"].into_iter().enumerate() {
        let _: Value = hub
            .ask(Method::POST, "/api/v1/releases", release(name, name))
            .await;
        let path = format!("/api/v1/releases/{name}/assign");
        let assigned: Value = hub.ask(Method::POST, &path, json!({ "selector": "" })).await;
        assert_eq!(assigned["generations"]["shop-17"], format!("1.{}", number + 1));
        let payload = session
            .wait(|packet| match packet {
                Incoming::Publish(message) => Some(message.payload.clone()),
                _ => None,
            })
            .await;
        assert_ne!(first.replace(Digest::of(&payload)), Some(Digest::of(&payload)));
    }
    drop(session);
    let mut session = Session::open(&hub, &node).await;
    session.client.subscribe(topic, QoS::AtLeastOnce).await.unwrap();
    let payload = session
        .wait(|packet| match packet {
            Incoming::Publish(message) => Some(message.payload.clone()),
            _ => None,
        })
        .await;
    assert_eq!(first, Some(Digest::of(&payload)));
    let envelope = Envelope::from_json(&payload).unwrap();
    let document: Value = serde_json::from_slice(&envelope.payload).unwrap();
    assert_eq!(document["generation"], "1.2");
}

#[tokio::test]
async fn a_deleted_node_is_thrown_out_and_cannot_come_back() {
    let site = Site::new();
    let hub = site.start().await;
    let node = hub.node("shop-17").await;
    let session = Session::open(&hub, &node).await;
    let _: () = hub.ask(Method::DELETE, "/api/v1/nodes/shop-17", ()).await;
    let end = tokio::time::timeout(support::PATIENCE, session.ended)
        .await
        .unwrap()
        .unwrap();
    assert!(!end.is_empty());
    let (host, port) = hub.mqtt.trim_start_matches("mqtts://").split_once(':').unwrap();
    let mut options = MqttOptions::new("shop-17", host, port.parse().unwrap());
    options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(node.tls()))));
    let (_client, mut events) = AsyncClient::new(options, 8);
    let refused = tokio::time::timeout(support::PATIENCE, events.poll())
        .await
        .unwrap();
    assert!(refused.is_err(), "{refused:?}");
}
