//! The real process: starts, restarts, power cuts, and what it refuses to start on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use holdfast_hub::codes as hub_codes;
use holdfast_protocol::operator::{AuditEvent, NodeInfo, Operator, ReleaseInfo, TokenInfo};
use reqwest::Method;
use rumqttc::{
    TlsConfiguration, Transport,
    v5::{AsyncClient, Event, Incoming, MqttOptions, mqttbytes::QoS},
};
use serde_json::{Value, json};
use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, sync::Arc};
use support::{Hub, Node, Site, eventually, release, write};
use tokio::process::{Child, Command};

async fn fill(hub: &Hub) -> Node {
    let node = hub.node("shop-17").await;
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases", release("r1", "one"))
        .await;
    let _: Value = hub
        .ask(
            Method::POST,
            "/api/v1/releases/r1/assign",
            json!({ "nodes": ["shop-17"] }),
        )
        .await;
    let _: Value = hub.ask(Method::POST, "/api/v1/tokens", json!({})).await;
    node
}

async fn everything(
    hub: &Hub,
) -> (
    Vec<NodeInfo>,
    Vec<ReleaseInfo>,
    Vec<TokenInfo>,
    Vec<Operator>,
    Vec<AuditEvent>,
) {
    (
        hub.get("/api/v1/nodes").await,
        hub.get("/api/v1/releases").await,
        hub.get("/api/v1/tokens").await,
        hub.get("/api/v1/operators").await,
        hub.get("/api/v1/audit?limit=1000").await,
    )
}

#[tokio::test]
async fn a_restart_and_a_power_cut_keep_everything() {
    let site = Site::new();
    let hub = site.start().await;
    let node = fill(&hub).await;
    let before = everything(&hub).await;
    assert_eq!(before.0.len(), 1);
    let (ca, token) = (hub.ca.clone(), hub.token.clone());
    hub.stop().await;
    let hub = site.start().await;
    assert_eq!(everything(&hub).await, before);
    hub.kill().await;
    let hub = site.start().await;
    assert_eq!(everything(&hub).await, before);
    assert_eq!((&hub.ca, &hub.token), (&ca, &token));
    // The first administrator is made once.
    assert_eq!(
        before
            .4
            .iter()
            .filter(|event| event.action == "operator.create")
            .count(),
        1
    );
    // What the node was given before still opens the hub.
    let request = node.device.renewal(&node.answer.certificate, &node.device.key);
    let renewed = node
        .client()
        .post(format!("{}/v1/renew", hub.api))
        .json(&request)
        .send()
        .await
        .unwrap();
    assert!(renewed.status().is_success());
}

#[tokio::test]
async fn init_makes_everything_and_run_uses_it() {
    let site = Site::new();
    site.configure(&[]);
    let output = site.command(&["init"]).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let file = String::from_utf8(output.stdout).unwrap();
    let token = std::fs::read_to_string(file.trim()).unwrap();
    let mode = std::fs::metadata(file.trim()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let hub = site.start().await;
    assert_eq!(hub.token, token.trim());
    // Nothing private is readable by others.
    for file in [
        "hub.db",
        "hub.db-wal",
        "keys/ca.key",
        "keys/documents.key",
        "keys/time.key",
        "keys/hub.key",
    ] {
        let mode = std::fs::metadata(site.data_dir().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }
}

#[tokio::test]
async fn a_restored_hub_speaks_in_a_new_epoch() {
    let site = Site::new();
    let hub = site.start().await;
    let node = fill(&hub).await;
    hub.stop().await;
    let backup = site.directory.path().join("backup.db");
    std::fs::copy(site.data_dir().join("hub.db"), &backup).unwrap();
    // After the backup the hub goes on, and is lost.
    let hub = site.start().await;
    for name in ["r2", "r3"] {
        let _: Value = hub
            .ask(Method::POST, "/api/v1/releases", release(name, name))
            .await;
        let path = format!("/api/v1/releases/{name}/assign");
        let _: Value = hub.ask(Method::POST, &path, json!({ "selector": "" })).await;
    }
    let before: NodeInfo = hub.get("/api/v1/nodes/shop-17").await;
    let refused = site.command(&["restored"]).output().await.unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    hub.stop().await;
    std::fs::copy(&backup, site.data_dir().join("hub.db")).unwrap();
    let done = site.command(&["restored"]).output().await.unwrap();
    assert_eq!(
        String::from_utf8(done.stdout).unwrap(),
        "epoch 2, 1 documents signed anew\n"
    );
    let hub = site.start().await;
    let after: NodeInfo = hub.get("/api/v1/nodes/shop-17").await;
    assert_eq!(after.release.as_deref(), Some("r1"));
    assert!(
        after.wanted > before.wanted,
        "{:?} {:?}",
        after.wanted,
        before.wanted
    );
    let request = node.device.renewal(&node.answer.certificate, &node.device.key);
    let response = hub
        .client
        .post(format!("{}/v1/renew", hub.api))
        .json(&request)
        .send()
        .await
        .unwrap();
    assert!(response.status().is_success());
    let assigned: Value = hub
        .ask(
            Method::POST,
            "/api/v1/releases/r1/assign",
            json!({ "selector": "" }),
        )
        .await;
    assert_eq!(
        assigned["generations"]["shop-17"],
        after.wanted.unwrap().to_string()
    );
}

#[tokio::test]
async fn a_wide_key_mode_is_refused_by_name() {
    let site = Site::new();
    site.start().await.stop().await;
    for key in ["ca.key", "documents.key", "time.key"] {
        let path = site.data_dir().join("keys").join(key);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let text = site.refused().await;
        assert!(
            text.contains(hub_codes::KEY_MODE_TOO_WIDE)
                && text.contains(&format!("chmod 600 {}", path.display())),
            "{text}"
        );
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
    site.start().await.stop().await;
}

#[tokio::test]
async fn lost_keys_are_not_replaced_while_the_database_is_there() {
    let site = Site::new();
    site.start().await.stop().await;
    std::fs::remove_file(site.data_dir().join("keys/ca.key")).unwrap();
    let text = site.refused().await;
    assert!(text.contains(hub_codes::KEYS_MISSING), "{text}");
    assert!(!site.data_dir().join("keys/ca.key").exists());
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let site = Site::new();
    site.start().await.stop().await;
    let file = site.data_dir().join("hub.db");
    let database = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display()))
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9000, 'later', 1, x'00', 0)",
    )
    .execute(&database)
    .await
    .unwrap();
    database.close().await;
    let before = std::fs::read(&file).unwrap();
    let text = site.refused().await;
    assert!(
        text.contains(hub_codes::DATABASE_NEWER) && text.contains("9000"),
        "{text}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn a_damaged_database_is_refused_by_name() {
    let site = Site::new();
    site.start().await.stop().await;
    write(&site.data_dir().join("hub.db"), &[0x5a; 8192]);
    let text = site.refused().await;
    assert!(text.contains(hub_codes::DATABASE_CORRUPT), "{text}");
}

#[tokio::test]
async fn a_second_hub_on_the_same_data_is_refused() {
    let site = Site::new();
    let hub = site.start().await;
    let text = site.refused().await;
    assert!(
        text.contains("another holdfast-hub uses the data directory"),
        "{text}"
    );
    hub.stop().await;
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_by_name() {
    let site = Site::new();
    for (text, expected) in [
        (
            "[api]\nlisten_on = \"127.0.0.1:0\"\n",
            "unknown key \"api.listen_on\"; did you mean \"api.listen\"?",
        ),
        ("[api]\nplain_listen = \"0.0.0.0:0\"\n", "api.plain_listen"),
        ("[log]\nlevel = \"loud\"\n", "log.level"),
        ("data_dir = \"/proc/none\"\n", "data directory /proc/none"),
    ] {
        write(&site.directory.path().join("hub.toml"), text.as_bytes());
        let said = site.refused().await;
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn the_documentation_comes_from_the_code() {
    for (page, expected) in [
        (
            "configuration",
            "| `api.plain_allow_remote` | true or false | `false` |",
        ),
        ("cli", "### `holdfast-hub operator create`"),
        ("metrics", "| `holdfast_hub_outbox_pending` | gauge |"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_holdfast-hub"))
            .args(["docs", page])
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(expected), "{text}");
    }
}

/// A mosquitto that lets the hub's CA in; what it may do is the business of the tests of the shipped configuration.
fn mosquitto(directory: &Path, certificates: &Path, port: u16) -> Child {
    let file = directory.join("mosquitto.conf");
    let path = |name: &str| certificates.join(name).display().to_string();
    let text = format!(
        "listener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\nallow_anonymous true\nuser root\n",
        path("ca.pem"),
        path("broker.pem"),
        path("broker.key"),
    );
    write(&file, text.as_bytes());
    let program = Path::new("/usr/sbin/mosquitto");
    Command::new(if program.exists() {
        program
    } else {
        Path::new("mosquitto")
    })
    .arg("-c")
    .arg(file)
    .stderr(Stdio::null())
    .kill_on_drop(true)
    .spawn()
    .expect("mosquitto is needed: apt-get install mosquitto")
}

#[tokio::test]
async fn what_was_committed_is_published_after_a_power_cut() {
    let site = Site::new();
    let port = holdfast_harness::port::reserve().unwrap();
    // A broker that is not there: the release is committed, and cannot be published.
    let address = format!("kind = \"external\"\naddress = \"127.0.0.1:{port}\"");
    let hub = site.start_with(&[("broker", &address)]).await;
    let node = fill(&hub).await;
    assert_eq!(hub.figure("holdfast_hub_outbox_pending").await, Some(1.0));
    assert_eq!(hub.figure("holdfast_hub_broker_connected").await, Some(0.0));
    assert!(
        node.answer.brokers[0].ends_with(&port.to_string()),
        "{:?}",
        node.answer.brokers
    );
    hub.kill().await;

    let certificates = site.directory.path().join("certificates");
    let issued = site
        .command(&[
            "broker-certificate",
            "127.0.0.1",
            "--out",
            certificates.to_str().unwrap(),
        ])
        .output()
        .await
        .unwrap();
    assert!(issued.status.success(), "{issued:?}");
    let _mosquitto = mosquitto(site.directory.path(), &certificates, port);
    let hub = site.start_with(&[("broker", &address)]).await;
    eventually("the outbox to empty", async || {
        (hub.figure("holdfast_hub_outbox_pending").await == Some(0.0)).then_some(())
    })
    .await;

    assert_eq!(hub.figure("holdfast_hub_broker_connected").await, Some(1.0));

    // The node that connects now is given it.
    let mut options = MqttOptions::new("shop-17", "127.0.0.1", port);
    options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(node.tls()))));
    options.set_max_packet_size(Some(2 * 1024 * 1024));
    let (client, mut events) = AsyncClient::new(options, 8);
    client
        .subscribe("hf/v1/shop-17/down/desired", QoS::AtLeastOnce)
        .await
        .unwrap();
    let envelope = tokio::time::timeout(support::PATIENCE, async {
        loop {
            if let Event::Incoming(Incoming::Publish(message)) = events.poll().await.unwrap() {
                return message;
            }
        }
    })
    .await
    .unwrap();
    assert!(envelope.retain);
    let envelope = holdfast_protocol::envelope::Envelope::from_json(&envelope.payload).unwrap();
    envelope
        .verify(&node.answer.trust, holdfast_protocol::trust::Role::DesiredState)
        .unwrap();
    hub.stop().await;
}
