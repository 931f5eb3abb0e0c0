//! What the embedded broker costs: time of a round trip over TLS on the loopback interface, memory of a session that says
//! nothing. Prints the figures; the bounds only catch what is broken.

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
    client::{Client, Options},
};
use futures::{StreamExt, stream};
use holdfast_protocol::topic::Up;
use std::time::{Duration, Instant};

/// Memory of this process that is its own, in KiB.
fn own_memory_kib() -> u64 {
    std::fs::read_to_string("/proc/self/smaps_rollup")
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"))
        .unwrap()
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .unwrap()
}

/// What it takes where nothing else is in the way: the quickest tenth needed no more. The median tells of the load of the machine too.
fn undisturbed(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 10]
}

// One test, so that nothing else is measured with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_quick_and_small() {
    let rig = Rig::start(Kind::Embedded).await;
    let mut node = rig.node("shop-17").await;

    let mut stored = Vec::new();
    let mut delivered = Vec::new();
    for _ in 0..500 {
        let begun = Instant::now();
        node.say(Up::Status, "{}").await.unwrap();
        stored.push(begun.elapsed());
        let begun = Instant::now();
        rig.desire(&node.id, "x").await;
        node.client.message().await;
        delivered.push(begun.elapsed());
    }
    let (stored, delivered) = (undisturbed(stored), undisturbed(delivered));
    println!("PUBLISH to PUBACK, p10: {stored:?}; hub's publish to node, p10: {delivered:?}");
    assert!(stored < Duration::from_millis(20) && delivered < Duration::from_millis(20));

    // The clients are in this process too. What they take is measured with the same clients at a broker in another process.
    let (with_client, _sessions) = memory_of_sessions(&rig).await;
    let elsewhere = Rig::start(Kind::Mosquitto).await;
    let (client, _others) = memory_of_sessions(&elsewhere).await;
    let each = with_client.saturating_sub(client);
    println!(
        "a session that says nothing: {each} KiB (with its client in the same process {with_client} KiB)"
    );
    assert!(each < 200, "{each} KiB");
}

/// Memory that each of some hundred sessions takes in this process, in KiB, and the sessions.
async fn memory_of_sessions(rig: &Rig) -> (u64, Vec<Client>) {
    let identities: Vec<_> = (0..300)
        .map(|number| format!("node-{number}"))
        .map(|name| (rig.authority.node(&name), name))
        .collect();
    let before = own_memory_kib();
    let mut sessions: Vec<Client> = stream::iter(&identities)
        .map(|(identity, name)| async { rig.connect(identity, Options::node(name)).await.unwrap() })
        .buffer_unordered(16)
        .collect()
        .await;
    let each = own_memory_kib().saturating_sub(before) / identities.len() as u64;
    for session in &mut sessions {
        assert_eq!(session.ping().await, Some(Vec::new()));
    }
    (each, sessions)
}
