//! The shipped configuration of mosquitto says what the topic schema says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

use holdfast_hub::broker::HUB_IDENTITY;
use holdfast_protocol::{
    MAX_ENVELOPE_BYTES,
    topic::{Down, Filter, ROOT, Topic, Up, publish_pattern, subscribe_pattern},
};
use std::path::Path;

fn shipped(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../mosquitto")
        .join(file);
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_shipped_access_list_is_the_topic_schema() {
    // Every desired state at once: a pattern that no client may subscribe to, made by naming any node.
    let any: holdfast_protocol::NodeId = "any".parse().unwrap();
    let desired = Topic::down(&any, Down::Desired).to_string();
    let every_desired = desired.replacen(&format!("{ROOT}/any/"), &format!("{ROOT}/+/"), 1);
    let mut expected = vec![format!("user {HUB_IDENTITY}")];
    expected.extend(
        [Up::Status, Up::Event, Up::Presence]
            .map(|channel| format!("topic read {}", Filter::every_node(channel))),
    );
    expected.push(format!("topic write {every_desired}"));
    expected.push(format!("pattern write {}", publish_pattern("%u")));
    expected.push(format!("pattern read {}", subscribe_pattern("%u")));
    assert_eq!(shipped("holdfast.acl"), expected);
}

#[test]
fn the_shipped_configuration_binds_names_to_certificates() {
    let lines = shipped("holdfast.conf");
    for line in [
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "allow_anonymous false",
        "sys_interval 0",
        "persistence true",
    ] {
        assert!(lines.iter().any(|have| have == line), "{line:?} is missing");
    }
    let listeners = lines.iter().filter(|line| line.starts_with("listener ")).count();
    assert_eq!(listeners, 1, "each listener is a way in");
}

#[test]
fn the_shipped_configuration_lets_the_largest_envelope_through() {
    let limit: usize = shipped("holdfast.conf")
        .iter()
        .find_map(|line| line.strip_prefix("max_packet_size "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        limit > MAX_ENVELOPE_BYTES && limit < 2 * MAX_ENVELOPE_BYTES,
        "{limit}"
    );
}
