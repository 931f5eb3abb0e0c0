//! What a broker owes both sides: nothing acknowledged before it is stored, nothing lost while somebody is away, presence as it
//! is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod broker_support;

use broker_support::{
    Kind, Rig,
    client::{Options, presence},
    within,
};
use bytes::Bytes;
use holdfast_protocol::topic::{Down, Topic, Up};
use rmqtt::codec::v5::{DisconnectReasonCode, PublishAckReason, SubscribeAckReason};

both! {
    async fn a_message_that_could_not_be_stored_comes_again(rig: Rig) {
        let mut node = rig.node("shop-17").await;
        rig.hub.with(|state| state.fail_next = 1);
        let answer = node.say(Up::Event, "the one").await;
        match rig.kind {
            Kind::Embedded => {
                // Not acknowledged: the session is ended, and the node sends it again on the next one.
                assert_eq!(answer, None);
                assert!(rig.hub.said("shop-17", Up::Event).is_empty());
                rig.hub.until_online("shop-17", false).await;
                let identity = node.identity.clone();
                node = rig.node_with("shop-17", identity).await;
                assert_eq!(node.say(Up::Event, "the one").await, Some(PublishAckReason::Success));
            }
            // Mosquitto has taken it over; it is the hub that does not acknowledge, and gets it again.
            Kind::Mosquitto => assert_eq!(answer, Some(PublishAckReason::Success)),
        }
        rig.hub.until_stored("shop-17", "the one").await;
        assert_eq!(rig.hub.with(|state| state.failed), 1);
        assert_eq!(rig.hub.said("shop-17", Up::Event), ["the one"]);
        rig.assert_untouched(&mut node, "after").await;
    }

    async fn messages_are_stored_in_the_order_they_were_sent(rig: Rig) {
        let mut node = rig.node("shop-17").await;
        // A failure in the middle must not let later ones overtake.
        for round in 0..20 {
            if round == 10 && rig.kind == Kind::Mosquitto {
                rig.hub.with(|state| state.fail_next = 1);
            }
            assert_eq!(
                node.say(Up::Event, round.to_string()).await,
                Some(PublishAckReason::Success)
            );
        }
        rig.hub.until_stored("shop-17", "19").await;
        let mut said = rig.hub.said("shop-17", Up::Event);
        // What was stored and whose acknowledgement was lost may come twice.
        said.dedup();
        let numbers: Vec<usize> = said.iter().map(|text| text.parse().unwrap()).collect();
        let first_times: Vec<usize> = numbers
            .iter()
            .enumerate()
            .filter(|(place, number)| !numbers[..*place].contains(number))
            .map(|(_, number)| *number)
            .collect();
        assert_eq!(first_times, (0..20).collect::<Vec<_>>());
    }

    async fn the_desired_state_is_there_for_a_new_subscriber(rig: Rig) {
        let id = "shop-17".parse().unwrap();
        rig.desire(&id, "one").await;
        rig.desire(&id, "two").await;
        let mut node = rig.node("shop-17").await;
        let (topic, payload) = node.client.message().await;
        assert_eq!(topic, Topic::down(&id, Down::Desired).to_string());
        assert_eq!(payload, "two");
    }

    async fn the_desired_state_survives_a_restart_of_the_broker(rig: Rig) {
        let mut rig = rig;
        let id = "shop-17".parse().unwrap();
        rig.desire(&id, "kept").await;
        rig.restart().await;
        let mut node = rig.node("shop-17").await;
        node.client.message_with("kept").await;
        rig.assert_untouched(&mut node, "after").await;
    }

    async fn what_was_published_while_the_broker_was_down_arrives(rig: Rig) {
        let mut rig = rig;
        let id = "shop-17".parse().unwrap();
        rig.desire(&id, "old").await;
        // Only the database learns of it: the broker is filled again from there.
        let topic = Topic::down(&id, Down::Desired);
        rig.hub.with(|state| state.retained.insert(topic, Bytes::from_static(b"new")));
        rig.restart().await;
        let mut node = rig.node("shop-17").await;
        node.client.message_with("new").await;
    }

    async fn pain_19_nothing_published_while_a_node_is_offline_is_lost(rig: Rig) {
        let node = rig.node("shop-17").await;
        let (id, identity) = (node.id.clone(), node.identity.clone());
        // The link is cut: no goodbye.
        drop(node);
        rig.hub.until_online("shop-17", false).await;
        for payload in ["one", "two", "three"] {
            rig.desire(&id, payload).await;
        }
        let mut node = rig.node_with("shop-17", identity).await;
        node.client.message_with("three").await;
        rig.assert_untouched(&mut node, "after").await;
    }

    async fn a_node_that_comes_and_goes_misses_nothing(rig: Rig) {
        let id = "shop-17".parse().unwrap();
        let identity = rig.authority.node("shop-17");
        for payload in ["one", "two", "three", "four", "five"] {
            let mut node = rig.node_with("shop-17", identity.clone()).await;
            rig.desire(&id, payload).await;
            node.client.message_with(payload).await;
        }
    }

    async fn a_removed_desired_state_is_not_sent(rig: Rig) {
        let id = "shop-17".parse().unwrap();
        rig.desire(&id, "gone").await;
        let topic = Topic::down(&id, Down::Desired);
        rig.hub.with(|state| state.retained.remove(&topic));
        rig.broker.clear_retained(&topic).await.unwrap();
        let mut node = rig.node("shop-17").await;
        assert_eq!(node.client.ping().await, Some(Vec::new()));
    }

    async fn a_lost_link_makes_a_node_offline(rig: Rig) {
        let node = rig.node("shop-17").await;
        drop(node);
        rig.hub.until_online("shop-17", false).await;
    }

    async fn a_take_over_leaves_the_node_online(rig: Rig) {
        let identity = rig.authority.node("shop-17");
        let mut sessions = Vec::new();
        for _ in 0..5 {
            sessions.push(rig.node_with("shop-17", identity.clone()).await);
        }
        let mut newest = sessions.pop().unwrap();
        for mut older in sessions {
            let reason = older.client.ended().await;
            // Mosquitto does not always get its last word through.
            let silent = rig.kind == Kind::Mosquitto && reason.is_none();
            assert!(silent || reason == Some(DisconnectReasonCode::SessionTakenOver), "{reason:?}");
        }
        rig.assert_untouched(&mut newest, "after").await;
        // Not even for a moment.
        let never_offline = rig.hub.with(|state| state.presence.iter().all(|(_, online)| *online));
        assert!(never_offline, "a replaced session made the node look offline");
    }

    async fn a_node_that_flaps_gets_in_every_time(rig: Rig) {
        let identity = rig.authority.node("shop-17");
        let mut newest = None;
        for _ in 0..100 {
            // The old connection is still there when the new one comes, or has just gone: both happen.
            let node = rig.node_with("shop-17", identity.clone()).await;
            drop(newest.replace(node));
        }
        rig.assert_untouched(&mut newest.unwrap(), "after").await;
    }

    async fn nodes_do_not_share_their_desired_states(rig: Rig) {
        let mut one = rig.node("one").await;
        let mut two = rig.node("two").await;
        rig.desire(&one.id, "for one").await;
        rig.desire(&two.id, "for two").await;
        assert_eq!(one.client.message().await.1, "for one");
        assert_eq!(two.client.message().await.1, "for two");
        assert_eq!(one.client.ping().await, Some(Vec::new()));
        assert_eq!(two.client.ping().await, Some(Vec::new()));
    }

    async fn the_largest_envelope_goes_both_ways(rig: Rig) {
        let large: &'static str = Box::leak("x".repeat(holdfast_protocol::MAX_ENVELOPE_BYTES).into_boxed_str());
        let mut node = rig.node("shop-17").await;
        rig.desire(&node.id, large).await;
        assert_eq!(node.client.message().await.1.len(), large.len());
        assert_eq!(node.say(Up::Status, large).await, Some(PublishAckReason::Success));
        rig.hub.until_stored("shop-17", large).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_subscribe_to_all_of_its_own_down_topics() {
    let rig = Rig::start(Kind::Embedded).await;
    let mut node = rig.node("shop-17").await;
    rig.desire(&node.id, "here").await;
    node.client.message_with("here").await;
    assert_eq!(
        node.client.subscribe(&["hf/v1/shop-17/down/#"]).await,
        Some(vec![SubscribeAckReason::GrantedQos1])
    );
    node.client.message_with("here").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_will_is_stored_and_a_proper_goodbye_has_none() {
    let rig = Rig::start(Kind::Embedded).await;
    let node = rig.node("shop-17").await;
    let identity = node.identity.clone();
    node.client.leave().await;
    rig.hub.until_online("shop-17", false).await;
    let offline = String::from_utf8(presence(false).to_vec()).unwrap();
    assert!(!rig.hub.said("shop-17", Up::Presence).contains(&offline));

    drop(rig.node_with("shop-17", identity).await);
    rig.hub
        .until("the last will", |state| {
            state
                .stored
                .iter()
                .any(|(_, channel, payload)| *channel == Up::Presence && *payload == presence(false))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_tells_nodes_and_gives_the_port_free() {
    let mut rig = Rig::start(Kind::Embedded).await;
    let mut node = rig.node("shop-17").await;
    let restarted = rig.restart();
    let (reason, ()) = tokio::join!(node.client.ended(), restarted);
    assert_eq!(reason, Some(DisconnectReasonCode::ServerShuttingDown));
    assert_eq!(
        rig.hub.with(|state| state.online.get(&node.id).copied()),
        Some(false)
    );
    let mut node = rig.node_with("shop-17", node.identity.clone()).await;
    rig.assert_untouched(&mut node, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_brokers_run_in_one_process() {
    let rigs = futures::future::join_all((0..4).map(|_| Rig::start(Kind::Embedded))).await;
    for rig in &rigs {
        let mut node = rig.node("same-name").await;
        rig.assert_untouched(&mut node, "mine").await;
    }
    let ports: std::collections::HashSet<u16> = rigs.iter().map(|rig| rig.port).collect();
    assert_eq!(ports.len(), rigs.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hub_starts_without_its_external_broker() {
    use holdfast_hub::broker::{
        Broker, BrokerError,
        external::{External, ExternalSettings},
    };
    let directory = tempfile::tempdir().unwrap();
    let authority = broker_support::certificates::Authority::new();
    // A port where nobody listens.
    let port = holdfast_harness::port::reserve().unwrap();
    let settings = ExternalSettings {
        host: "127.0.0.1".to_owned(),
        port,
        tls: authority.hub(directory.path()),
        keep_alive: std::time::Duration::from_secs(60),
        revocation_command: Vec::new(),
    };
    let hub = std::sync::Arc::new(broker_support::hub::Recorder::new(true));
    let external = External::start(settings, hub).unwrap();
    let topic = Topic::down(&"shop-17".parse().unwrap(), Down::Desired);
    let answer = external.publish_retained(&topic, Bytes::from_static(b"x")).await;
    assert!(matches!(answer, Err(BrokerError::Unavailable(_))), "{answer:?}");
    within("the broker's end", external.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pain_19_what_nodes_say_while_the_hub_is_away_arrives_when_it_is_back() {
    let mut rig = Rig::start(Kind::Mosquitto).await;
    let mut node = rig.node("shop-17").await;
    rig.without_hub(async {
        for event in ["one", "two", "three"] {
            assert_eq!(node.say(Up::Event, event).await, Some(PublishAckReason::Success));
        }
    })
    .await;
    rig.hub.until_stored("shop-17", "three").await;
    assert_eq!(rig.hub.said("shop-17", Up::Event), ["one", "two", "three"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_command_that_fails_is_reported() {
    use holdfast_hub::broker::{
        Broker, BrokerError,
        external::{External, ExternalSettings},
    };
    let mut rig = Rig::start(Kind::Mosquitto).await;
    let directory = tempfile::tempdir().unwrap();
    let touched = directory.path().join("reloaded");
    let (port, files, hub) = (rig.port, rig.hub_files(), rig.hub.clone());
    // Without the one that runs: both have the same session at the broker, and would take it from each other again and again.
    rig.without_hub(async {
        for (command, works) in [
            (vec!["touch".to_owned(), touched.display().to_string()], true),
            (vec!["false".to_owned()], false),
            (vec!["/no/such/program".to_owned()], false),
        ] {
            let settings = ExternalSettings {
                host: "127.0.0.1".to_owned(),
                port,
                tls: files.clone(),
                keep_alive: std::time::Duration::from_secs(60),
                revocation_command: command,
            };
            let external = External::start(settings, hub.clone()).unwrap();
            let mut connected = external.connected();
            within("the hub to connect", connected.wait_for(|connected| *connected))
                .await
                .unwrap();
            let answer = external.disconnect(&"shop-17".parse().unwrap()).await;
            if works {
                answer.unwrap();
            } else {
                assert!(matches!(answer, Err(BrokerError::Refused(_))), "{answer:?}");
            }
            external.stop().await;
        }
    })
    .await;
    assert!(touched.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_name_is_not_needed() {
    let rig = Rig::start(Kind::Embedded).await;
    let identity = rig.authority.node("shop-17");
    let options = Options {
        user_name: None,
        ..Options::node("shop-17")
    };
    assert!(rig.connect(&identity, options).await.is_ok());
}
