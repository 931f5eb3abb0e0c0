//! A hostile client with a valid certificate of another node, and clients without one: nothing they do reaches a victim.

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
    certificates::Authority,
    client::{Client, Options, Refused, presence},
};
use holdfast_protocol::topic::{Down, Topic, Up};
use rmqtt::codec::v5::{ConnectAckReason, DisconnectReasonCode, PublishAckReason, SubscribeAckReason};

both! {
    async fn a_node_cannot_publish_to_what_is_not_its_own(rig: Rig) {
        let mut victim = rig.node("victim").await;
        let mut attacker = rig.node("attacker").await;
        for topic in [
            "hf/v1/victim/up/status",
            "hf/v1/victim/up/event",
            "hf/v1/victim/up/presence",
            "hf/v1/victim/down/desired",
            "hf/v1/attacker/down/desired",
            "$SYS/broker/version",
            "hf/v1/holdfast.hub/up/status",
            "hf/v1/attacker",
            "else",
        ] {
            let answer = attacker.client.publish(topic, "forged").await;
            assert_eq!(answer, Some(PublishAckReason::NotAuthorized), "{topic}");
        }
        rig.assert_untouched(&mut victim, "after").await;
        rig.assert_untouched(&mut attacker, "after").await;
        assert!(rig.hub.with(|state| state.stored.iter().all(|(_, _, payload)| payload != "forged")));
    }

    async fn a_retained_state_can_be_neither_removed_nor_replaced_by_another_node(rig: Rig) {
        let victim = rig.node("victim").await;
        let (id, identity) = (victim.id.clone(), victim.identity.clone());
        rig.desire(&id, "kept").await;
        victim.client.leave().await;
        let mut attacker = rig.node("attacker").await;
        let topic = Topic::down(&id, Down::Desired).to_string();
        for payload in ["", "forged"] {
            let answer = attacker.client.publish(&topic, payload).await;
            assert_eq!(answer, Some(PublishAckReason::NotAuthorized));
        }
        let mut victim = rig.node_with("victim", identity).await;
        assert_eq!(victim.client.message().await.1, "kept");
        // A broker with a stored session may send it twice.
        let more = victim.client.ping().await.unwrap();
        assert!(more.iter().all(|(_, payload)| payload == "kept"), "{more:?}");
    }

    async fn a_node_cannot_publish_with_wildcards(rig: Rig) {
        let mut victim = rig.node("victim").await;
        for topic in ["hf/v1/+/up/status", "hf/v1/#", "#", "hf/v1/attacker/up/#"] {
            let mut attacker = rig.node("attacker").await;
            let answer = attacker.client.publish(topic, "forged").await;
            assert_ne!(answer, Some(PublishAckReason::Success), "{topic}");
        }
        rig.assert_untouched(&mut victim, "after").await;
        assert!(rig.hub.with(|state| state.stored.iter().all(|(_, _, payload)| payload != "forged")));
    }

    async fn a_node_hears_nothing_of_others(rig: Rig) {
        let mut victim = rig.node("victim").await;
        rig.desire(&victim.id, "secret before").await;
        let mut attacker = rig.node("attacker").await;
        for filter in [
            "hf/v1/victim/down/desired",
            "hf/v1/victim/#",
            "hf/v1/+/down/desired",
            "hf/v1/+/up/status",
            "hf/v1/#",
            "#",
            "+",
            "+/+/+/+/+",
            "$SYS/#",
            "$share/g/hf/v1/victim/down/desired",
            "$share/g/hf/v1/+/down/desired",
            "$share/g/#",
            "$share/holdfast/hf/v1/+/up/#",
        ] {
            let Some(answer) = attacker.client.subscribe(&[filter]).await else {
                // Closed: as good as a refusal.
                attacker = rig.node("attacker").await;
                continue;
            };
            if rig.kind == Kind::Embedded {
                let refused = if filter.starts_with("$share") {
                    // rmqtt is built without shared subscriptions.
                    answer == [SubscribeAckReason::TopicFilterInvalid] || answer == [SubscribeAckReason::NotAuthorized]
                } else {
                    answer == [SubscribeAckReason::NotAuthorized]
                };
                assert!(refused, "{filter}: {answer:?}");
            }
        }
        rig.desire(&victim.id, "secret after").await;
        victim.client.message_with("secret after").await;
        victim.say(Up::Status, "secret status").await;
        let heard = attacker.client.ping().await.expect("the attacker's session");
        assert_eq!(heard, [], "the attacker hears of others");
        rig.assert_untouched(&mut victim, "after").await;
    }

    async fn a_shared_subscription_to_ones_own_topic_takes_nothing_from_anybody(rig: Rig) {
        let mut victim = rig.node("victim").await;
        let mut attacker = rig.node("attacker").await;
        let _ = attacker.client.subscribe(&["$share/g/hf/v1/attacker/down/desired"]).await;
        rig.assert_untouched(&mut victim, "after").await;
    }

    async fn a_last_will_on_a_foreign_topic_is_refused(rig: Rig) {
        let mut victim = rig.node("victim").await;
        let identity = rig.authority.node("attacker");
        for topic in [
            Topic::up(&victim.id, Up::Presence).to_string(),
            Topic::down(&victim.id, Down::Desired).to_string(),
            "$SYS/broker/version".to_owned(),
        ] {
            let options = Options {
                will: Some((topic.clone(), presence(false))),
                ..Options::node("attacker")
            };
            match rig.connect(&identity, options).await {
                Err(Refused::Answer(ConnectAckReason::NotAuthorized)) => {}
                Err(refused) => panic!("{topic}: {refused:?}"),
                // Where a broker lets it in, the will must not be published.
                Ok(client) => {
                    assert_eq!(rig.kind, Kind::Mosquitto, "{topic} was let in");
                    drop(client);
                }
            }
        }
        rig.assert_untouched(&mut victim, "after").await;
        assert!(!rig.hub.with(|state| state.presence.contains(&(victim.id.clone(), false))));
    }

    async fn a_foreign_client_id_does_not_push_its_owner_off(rig: Rig) {
        let mut victim = rig.node("victim").await;
        let identity = rig.authority.node("attacker");
        for user_name in [Some("attacker"), Some("victim"), None] {
            let options = Options {
                client_id: "victim".to_owned(),
                user_name: user_name.map(str::to_owned),
                will: None,
                ..Options::node("attacker")
            };
            let answer = rig.connect(&identity, options).await;
            if rig.kind == Kind::Embedded {
                assert!(
                    matches!(answer, Err(Refused::Answer(ConnectAckReason::ClientIdentifierNotValid))),
                    "{user_name:?}"
                );
            } else if let Ok(mut attacker) = answer {
                // Mosquitto gives it its own name instead.
                assert_eq!(
                    attacker.publish("hf/v1/victim/up/status", "forged").await,
                    Some(PublishAckReason::NotAuthorized)
                );
            }
        }
        rig.assert_untouched(&mut victim, "after").await;
    }

    async fn a_foreign_user_name_gives_nothing(rig: Rig) {
        let mut victim = rig.node("victim").await;
        let identity = rig.authority.node("attacker");
        let options = Options {
            user_name: Some("victim".to_owned()),
            will: None,
            ..Options::node("attacker")
        };
        match rig.connect(&identity, options).await {
            Err(Refused::Answer(ConnectAckReason::BadUserNameOrPassword | ConnectAckReason::NotAuthorized)) => {}
            Err(refused) => panic!("{refused:?}"),
            Ok(mut attacker) => {
                assert_eq!(rig.kind, Kind::Mosquitto);
                assert_eq!(
                    attacker.publish("hf/v1/victim/up/status", "forged").await,
                    Some(PublishAckReason::NotAuthorized)
                );
            }
        }
        rig.assert_untouched(&mut victim, "after").await;
    }

    async fn the_hubs_name_is_not_to_be_had(rig: Rig) {
        let mut victim = rig.node("victim").await;
        let identity = rig.authority.node("attacker");
        for (client_id, user_name) in [("holdfast.hub", "holdfast.hub"), ("holdfast.hub", "attacker"), ("attacker", "holdfast.hub")] {
            let options = Options {
                client_id: client_id.to_owned(),
                user_name: Some(user_name.to_owned()),
                will: None,
                ..Options::node("attacker")
            };
            if let Ok(mut attacker) = rig.connect(&identity, options).await {
                assert_eq!(rig.kind, Kind::Mosquitto);
                assert_eq!(
                    attacker.publish("hf/v1/victim/down/desired", "forged").await,
                    Some(PublishAckReason::NotAuthorized)
                );
            }
        }
        rig.assert_untouched(&mut victim, "after").await;
    }

    async fn nobody_gets_in_without_a_certificate_of_the_hubs_authority(rig: Rig) {
        let mut victim = rig.node("victim").await;
        let stranger = Authority::new().node("victim");
        for identity in [None, Some(&stranger)] {
            let answer = Client::connect(rig.port, &rig.authority, identity, Options::node("victim")).await;
            assert!(matches!(answer, Err(Refused::Closed(_))));
        }
        rig.assert_untouched(&mut victim, "after").await;
    }

    async fn an_expired_certificate_is_refused_by_name(rig: Rig) {
        let mut victim = rig.node("victim").await;
        let expired = rig.authority.expired("late");
        match rig.connect(&expired, Options::node("late")).await {
            // The node then renews over HTTPS, which takes an expired certificate.
            Err(Refused::Closed(reason)) => assert!(reason.contains("CertificateExpired"), "{reason}"),
            Err(refused) => panic!("{refused:?}"),
            Ok(_) => panic!("it was let in"),
        }
        rig.assert_untouched(&mut victim, "after").await;
    }

    async fn a_revoked_certificate_is_refused(rig: Rig) {
        let mut rig = rig;
        let mut victim = rig.node("victim").await;
        let revoked = rig.authority.node("revoked");
        rig.node_with("revoked", revoked.clone()).await.client.leave().await;
        rig.revoke(&revoked).await;
        match rig.connect(&revoked, Options::node("revoked")).await {
            Err(Refused::Answer(ConnectAckReason::Banned)) => assert_eq!(rig.kind, Kind::Embedded),
            Err(Refused::Closed(reason)) => {
                assert_eq!(rig.kind, Kind::Mosquitto);
                assert!(reason.contains("CertificateRevoked"), "{reason}");
            }
            Err(refused) => panic!("{refused:?}"),
            Ok(_) => panic!("it was let in"),
        }
        rig.assert_untouched(&mut victim, "after").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_ends_the_live_session_of_the_embedded_broker_at_once() {
    let mut rig = Rig::start(Kind::Embedded).await;
    let mut victim = rig.node("victim").await;
    let mut revoked = rig.node("revoked").await;
    let identity = revoked.identity.clone();
    rig.revoke(&identity).await;
    rig.broker.disconnect(&revoked.id).await.unwrap();
    assert_eq!(
        revoked.client.ended().await,
        Some(DisconnectReasonCode::AdministrativeAction)
    );
    rig.hub.until_online("revoked", false).await;
    rig.assert_untouched(&mut victim, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_mosquitto_ends_the_session_of_a_revoked_node_and_of_no_other_for_long() {
    let mut rig = Rig::start(Kind::Mosquitto).await;
    let victim = rig.node("victim").await;
    let mut revoked = rig.node("revoked").await;
    let identity = revoked.identity.clone();
    rig.revoke(&identity).await;
    // As the README says: a reload alone leaves the live session alone.
    assert!(revoked.client.ping().await.is_some());
    rig.restart().await;
    revoked.client.ended().await;
    assert!(matches!(
        rig.connect(&identity, Options::node("revoked")).await,
        Err(Refused::Closed(_))
    ));
    let mut victim = rig.node_with("victim", victim.identity.clone()).await;
    rig.assert_untouched(&mut victim, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_names_no_node_is_refused() {
    let rig = Rig::start(Kind::Embedded).await;
    for name in ["holdfast.hub", "Upper", "with/slash", "+", "#", ""] {
        let identity = rig.authority.node(name);
        let options = Options {
            client_id: name.to_owned(),
            user_name: None,
            will: None,
            keep_alive: 60,
            clean_start: true,
        };
        match rig.connect(&identity, options).await {
            Err(Refused::Answer(ConnectAckReason::NotAuthorized)) => {}
            Err(refused) => panic!("{name:?}: {refused:?}"),
            Ok(_) => panic!("{name:?} was let in"),
        }
    }
}
