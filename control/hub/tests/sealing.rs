//! Sealed values at a real hub: keys of nodes, secrets of operators, and how the boxes of a site come together.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use holdfast_hub::codes as hub_codes;
use holdfast_protocol::{
    codes,
    document::{DesiredState, K3sRole},
    operator::{CreateToken, NodeInfo, SecretInfo, StoredSecret},
    seal::{SealError, SealingKey, seal},
    sealing::{JOIN_TOKEN_NAME, secret_name},
    trust::Role,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Device, Hub, Node, Site, release};

async fn document(hub: &Hub, node: &Node) -> DesiredState {
    let token = hub
        .token(CreateToken {
            node_name: Some(node.answer.node.clone()),
            // A box that enrols again gets the labels of its new token.
            labels: hub
                .get::<NodeInfo>(&format!("/api/v1/nodes/{}", node.id()))
                .await
                .labels,
            ..CreateToken::default()
        })
        .await;
    let envelope = hub
        .try_enrol(&token, &node.device)
        .await
        .unwrap()
        .desired
        .unwrap();
    envelope.verify(&node.answer.trust, Role::DesiredState).unwrap();
    let document: DesiredState = serde_json::from_slice(&envelope.payload).unwrap();
    document.validate().unwrap();
    document
}

async fn labelled(hub: &Hub, name: &str, labels: &Value) -> Node {
    let node = hub.node(name).await;
    let path = format!("/api/v1/nodes/{name}/labels");
    let _: Value = hub.ask(Method::PATCH, &path, json!({ "labels": labels })).await;
    node
}

fn key(node: &Node) -> &SealingKey {
    node.device.sealing.as_ref().unwrap()
}

async fn set(hub: &Hub, name: &str, nodes: &[(&Node, &[u8])]) -> StoredSecret {
    let values: Value = nodes
        .iter()
        .map(|(node, value)| {
            let sealed = seal(&key(node).public(), &secret_name(name), value).unwrap();
            (node.id().to_owned(), serde_json::to_value(sealed).unwrap())
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    hub.ask(
        Method::PUT,
        &format!("/api/v1/secrets/{name}"),
        json!({ "values": values }),
    )
    .await
}

fn with_secret(name: &str) -> Value {
    let mut release = release(name, "one");
    release["content"]["apps"][0]["secrets"] =
        json!([{"name": "till", "data": {"password": {"source": "till-password"}}}]);
    release
}

fn of_site(name: &str, site: &Value) -> Value {
    let mut release = release(name, "one");
    release["content"]["k3s"] = json!({ "site": site });
    release
}

fn opened(document: &DesiredState, key: &SealingKey) -> Result<Vec<u8>, SealError> {
    let value = &document.apps[0].secrets[0].data["password"];
    let opened = key.open(&secret_name(&value.source), value.sealed.as_ref().unwrap());
    opened.map(|value| value.to_vec())
}

fn assign(nodes: &[&str]) -> Value {
    json!({ "nodes": nodes })
}

#[tokio::test]
async fn the_hub_knows_the_sealing_key_of_a_node_and_takes_a_new_one_with_a_renewal_only() {
    let site = Site::new();
    let hub = site.start().await;
    let mut node = hub.node("shop-17").await;
    let shown = async || hub.get::<NodeInfo>("/api/v1/nodes/shop-17").await.sealing_key;
    assert_eq!(shown().await, Some(key(&node).public()));

    // A box of an older version has none, and an operator who seals to it is told so.
    let old = Device {
        sealing: None,
        ..Device::new()
    };
    let token = hub
        .token(CreateToken {
            node_name: Some("old".parse().unwrap()),
            ..CreateToken::default()
        })
        .await;
    hub.try_enrol(&token, &old).await.unwrap();
    assert_eq!(hub.get::<NodeInfo>("/api/v1/nodes/old").await.sealing_key, None);

    // A statement that another key signed counts for nothing.
    let mut request = node.device.renewal(&node.answer.certificate, &node.device.key);
    request.sealing_key.as_mut().unwrap().key = SealingKey::generate().public();
    let (status, problem) = hub
        .refused(Method::POST, "/v1/renew", serde_json::to_value(&request).unwrap())
        .await;
    assert_eq!(
        (status, problem.code.as_ref()),
        (StatusCode::BAD_REQUEST, hub_codes::SEALING_KEY_INVALID)
    );

    let before = key(&node).public();
    node.device.sealing = Some(SealingKey::generate());
    assert_eq!(shown().await, Some(before));
    let request = node.device.renewal(&node.answer.certificate, &node.device.key);
    let _: Value = hub
        .ask(Method::POST, "/v1/renew", serde_json::to_value(&request).unwrap())
        .await;
    assert_eq!(shown().await, Some(key(&node).public()));
}

#[tokio::test]
async fn a_node_gets_its_own_sealed_value_and_a_new_generation_when_it_is_sealed_again() {
    let site = Site::new();
    let hub = site.start().await;
    let (one, two) = (hub.node("shop-1").await, hub.node("shop-2").await);
    let _: Value = hub.ask(Method::POST, "/api/v1/releases", with_secret("r1")).await;

    let (status, problem) = hub
        .refused(Method::POST, "/api/v1/releases/r1/assign", assign(&["shop-1"]))
        .await;
    assert_eq!(
        (status, problem.code.as_ref()),
        (StatusCode::UNPROCESSABLE_ENTITY, hub_codes::SECRET_MISSING)
    );
    assert!(
        problem.message.contains("shop-1") && problem.message.contains("till-password"),
        "{problem}"
    );

    let stored = set(&hub, "till-password", &[(&one, b"hunter-1"), (&two, b"hunter-2")]).await;
    assert_eq!(stored.nodes.len(), 2);
    assert!(
        stored.generations.is_empty(),
        "no node runs a release with it yet"
    );
    let _: Value = hub
        .ask(
            Method::POST,
            "/api/v1/releases/r1/assign",
            assign(&["shop-1", "shop-2"]),
        )
        .await;
    let (first, second) = (document(&hub, &one).await, document(&hub, &two).await);
    assert_eq!(opened(&first, key(&one)).unwrap(), b"hunter-1");
    assert_eq!(opened(&second, key(&two)).unwrap(), b"hunter-2");
    assert!(matches!(
        opened(&first, key(&two)),
        Err(SealError::OtherKey { .. })
    ));

    // Given again, it says the same; sealed again, it is another generation, for that node alone.
    let again: Value = hub
        .ask(Method::POST, "/api/v1/releases/r1/assign", assign(&["shop-1"]))
        .await;
    assert_eq!(again["generations"]["shop-1"], first.generation.to_string());
    let stored = set(&hub, "till-password", &[(&one, b"hunter-3")]).await;
    assert_eq!(stored.generations.len(), 1);
    let newer = document(&hub, &one).await;
    assert_eq!(stored.generations[&one.answer.node], newer.generation);
    assert!(newer.generation > first.generation);
    assert_eq!(opened(&newer, key(&one)).unwrap(), b"hunter-3");
    assert_eq!(document(&hub, &two).await.generation, second.generation);

    // What is used cannot be deleted.
    let path = "/api/v1/secrets/till-password";
    let (status, problem) = hub.refused(Method::DELETE, path, Value::Null).await;
    assert_eq!(
        (status, problem.code.as_ref()),
        (StatusCode::CONFLICT, codes::CONFLICT)
    );
    let listed: Vec<SecretInfo> = hub.get("/api/v1/secrets").await;
    assert!(listed[0].nodes.values().all(|to| to.current), "{listed:?}");

    // No value is anywhere at rest.
    hub.stop().await;
    for entry in std::fs::read_dir(site.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            assert!(
                !bytes.windows(7).any(|part| part == b"hunter-"),
                "{}",
                path.display()
            );
        }
    }
}

#[tokio::test]
async fn a_value_for_another_key_than_the_nodes_is_refused() {
    let site = Site::new();
    let hub = site.start().await;
    let mut node = hub.node("shop-1").await;
    let put = async |values: Value| {
        hub.refused(
            Method::PUT,
            "/api/v1/secrets/till-password",
            json!({ "values": values }),
        )
        .await
    };
    let other = seal(
        &SealingKey::generate().public(),
        &secret_name("till-password"),
        b"x",
    )
    .unwrap();
    let (status, problem) = put(json!({ "shop-1": other })).await;
    assert_eq!(
        (status, problem.code.as_ref()),
        (StatusCode::CONFLICT, hub_codes::SEALED_TO_OTHER_KEY)
    );
    let plain = json!({"shop-1": {"key": key(&node).public().digest(), "encapsulated": "", "ciphertext": "aHVudGVyMg"}});
    assert_eq!(put(plain).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(put(json!({})).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(put(json!({ "nobody": other })).await.0, StatusCode::NOT_FOUND);

    // A node that changed its key lacks what is sealed to the old one: said when a release is given to it.
    set(&hub, "till-password", &[(&node, b"x")]).await;
    let _: Value = hub.ask(Method::POST, "/api/v1/releases", with_secret("r1")).await;
    node.device.sealing = Some(SealingKey::generate());
    let request = node.device.renewal(&node.answer.certificate, &node.device.key);
    let _: Value = hub
        .ask(Method::POST, "/v1/renew", serde_json::to_value(&request).unwrap())
        .await;
    let (_, problem) = hub
        .refused(Method::POST, "/api/v1/releases/r1/assign", assign(&["shop-1"]))
        .await;
    assert_eq!(problem.code, hub_codes::SEALED_TO_OTHER_KEY);
    assert!(
        problem
            .action
            .contains("holdfastctl secret set till-password --node shop-1"),
        "{problem}"
    );
}

/// The join secret that a document holds for a node.
fn join_secret(document: &DesiredState, key: &SealingKey) -> Vec<u8> {
    let join = document.k3s.as_ref().unwrap().join.as_ref().unwrap();
    key.open(JOIN_TOKEN_NAME, &join.token).unwrap().to_vec()
}

#[tokio::test]
async fn agents_of_a_site_join_its_server_and_no_other_site_gets_their_secret() {
    let site = Site::new();
    let hub = site.start().await;
    let server = labelled(
        &hub,
        "b-server",
        &json!({"site": "berlin", "k3s-role": "server", "node-address": "10.7.0.1"}),
    )
    .await;
    let one = labelled(
        &hub,
        "a-agent",
        &json!({"site": "berlin", "k3s-role": "agent", "node-address": "10.7.0.2"}),
    )
    .await;
    let two = labelled(&hub, "c-agent", &json!({"site": "berlin", "k3s-role": "agent"})).await;
    let far = labelled(&hub, "far", &json!({"site": "bremen", "k3s-role": "server"})).await;
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases", of_site("r1", &json!({})))
        .await;
    let all = ["a-agent", "b-server", "c-agent", "far"];
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases/r1/assign", assign(&all))
        .await;

    let document_of = async |node| document(&hub, node).await;
    let (at_server, at_one, at_two, at_far) = (
        document_of(&server).await,
        document_of(&one).await,
        document_of(&two).await,
        document_of(&far).await,
    );
    let k3s = at_server.k3s.as_ref().unwrap();
    assert_eq!(
        (k3s.role, k3s.node_address),
        (K3sRole::Server, Some("10.7.0.1".parse().unwrap()))
    );
    let join = k3s.join.as_ref().unwrap();
    assert_eq!((join.server.as_deref(), join.etcd), (None, false));
    assert!(
        k3s.site.is_none(),
        "a document says what to do, not how it was found out"
    );
    for (document, address) in [(&at_one, Some("10.7.0.2")), (&at_two, None)] {
        let k3s = document.k3s.as_ref().unwrap();
        assert_eq!(k3s.role, K3sRole::Agent);
        assert_eq!(k3s.node_address, address.map(|address| address.parse().unwrap()));
        assert_eq!(
            k3s.join.as_ref().unwrap().server.as_deref(),
            Some("https://10.7.0.1:6443")
        );
    }
    let secret = join_secret(&at_server, key(&server));
    assert!(secret.len() >= 32);
    assert_eq!(join_secret(&at_one, key(&one)), secret);
    assert_eq!(join_secret(&at_two, key(&two)), secret);
    assert_ne!(
        join_secret(&at_far, key(&far)),
        secret,
        "another site, another secret"
    );
    let token = &at_one.k3s.as_ref().unwrap().join.as_ref().unwrap().token;
    assert!(key(&far).open(JOIN_TOKEN_NAME, token).is_err());

    // Nothing changed, so nothing is sent again.
    let again: Value = hub
        .ask(Method::POST, "/api/v1/releases/r1/assign", assign(&all))
        .await;
    assert_eq!(again["generations"]["a-agent"], at_one.generation.to_string());
    // The secret is derived from the hub's keys: a hub that starts again knows the same one.
    hub.stop().await;
    let hub = site.start().await;
    let late = labelled(&hub, "d-agent", &json!({"site": "berlin", "k3s-role": "agent"})).await;
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases/r1/assign", assign(&["d-agent"]))
        .await;
    assert_eq!(join_secret(&document(&hub, &late).await, key(&late)), secret);
}

#[tokio::test]
async fn three_servers_share_etcd_and_the_first_stays_the_first() {
    let site = Site::new();
    let hub = site.start().await;
    let rules = json!({"servers": 3});
    let labels = |address: &str| json!({"site": "ship", "k3s-role": "server", "node-address": address});
    let first = labelled(&hub, "z-first", &labels("10.7.0.1")).await;
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases", of_site("r1", &rules))
        .await;
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases/r1/assign", assign(&["z-first"]))
        .await;
    let join = |document: &DesiredState| {
        let join = document.k3s.as_ref().unwrap().join.clone().unwrap();
        (join.server, join.etcd)
    };
    // It begins the cluster before the others are there, and their names do not matter.
    assert_eq!(join(&document(&hub, &first).await), (None, true));
    let second = labelled(&hub, "a-second", &labels("10.7.0.2")).await;
    let third = labelled(&hub, "b-third", &labels("10.7.0.3")).await;
    let all = ["a-second", "b-third", "z-first"];
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases/r1/assign", assign(&all))
        .await;
    for node in [&second, &third] {
        let joined = (Some("https://10.7.0.1:6443".to_owned()), true);
        assert_eq!(join(&document(&hub, node).await), joined);
    }
    assert_eq!(join(&document(&hub, &first).await), (None, true));

    // A fourth server would be one too many, and is named.
    labelled(&hub, "c-fourth", &labels("10.7.0.4")).await;
    let (status, problem) = hub
        .refused(Method::POST, "/api/v1/releases/r1/assign", assign(&["c-fourth"]))
        .await;
    assert_eq!(
        (status, problem.code.as_ref()),
        (StatusCode::UNPROCESSABLE_ENTITY, hub_codes::SITE_INVALID)
    );
    assert!(
        problem.message.contains("c-fourth") && problem.message.contains("4 servers"),
        "{problem}"
    );
}

#[tokio::test]
async fn a_site_that_cannot_come_together_is_refused_when_the_release_is_given() {
    let site = Site::new();
    let hub = site.start().await;
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases", of_site("r1", &json!({})))
        .await;
    for (name, labels, expected) in [
        ("no-site", json!({}), "it has no label site"),
        ("no-role", json!({"site": "a"}), "it has no label k3s-role"),
        (
            "odd-role",
            json!({"site": "b", "k3s-role": "boss"}),
            "write server or agent",
        ),
        (
            "alone",
            json!({"site": "c", "k3s-role": "agent"}),
            "site c has no server",
        ),
        (
            "bad-address",
            json!({"site": "d", "k3s-role": "server", "node-address": "here"}),
            "which is no address",
        ),
    ] {
        labelled(&hub, name, &labels).await;
        let (status, problem) = hub
            .refused(Method::POST, "/api/v1/releases/r1/assign", assign(&[name]))
            .await;
        assert_eq!(
            (status, problem.code.as_ref()),
            (StatusCode::UNPROCESSABLE_ENTITY, hub_codes::SITE_INVALID)
        );
        assert!(
            problem.message.contains(expected) && problem.message.contains(name),
            "{problem}"
        );
    }
    labelled(&hub, "server", &json!({"site": "c", "k3s-role": "server"})).await;
    let (_, problem) = hub
        .refused(Method::POST, "/api/v1/releases/r1/assign", assign(&["alone"]))
        .await;
    assert!(problem.message.contains("nobody says where to join"), "{problem}");
    let mut named = of_site("r2", &json!({"server": "https://[fd00::1]:6443"}));
    named["content"]["apps"][0]["name"] = "other".into();
    let _: Value = hub.ask(Method::POST, "/api/v1/releases", named).await;
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases/r2/assign", assign(&["alone"]))
        .await;
}
