//! The address of the node on an interface of its own, with a real Kubernetes, in a network namespace of the test's own.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result, ensure};
use engine_support::{app, broker::Hub, config_map, deployment, node::Node};
use holdfast::kubernetes::{address, k3s_config::NodeAddress};
use holdfast_harness::{Kubectl, paths};
use holdfast_protocol::report::Health;
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{path::PathBuf, process::Command, time::Duration};

/// Does `test` in a network namespace of its own, which has a loopback interface and nothing else: no address, no route.
///
/// Needs root with CAP_NET_ADMIN and says so: a test that passed without having run would be worth less than none.
fn in_empty_network(test: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).context(
            "this test needs a network namespace of its own: run it as root with CAP_NET_ADMIN and CAP_SYS_ADMIN, as CI does",
        )?;
        ip("link set lo up")?;
        test()
    });
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// `ip` of iproute2, in the namespace of this thread.
fn ip(arguments: &str) -> Result<String> {
    let done = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .context("run `ip`, of the package iproute2")?;
    ensure!(
        done.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8(done.stdout)?)
}

fn wanted(text: &str, services: &str) -> NodeAddress {
    NodeAddress {
        address: text.parse().unwrap(),
        services: vec![services.into()],
    }
}

#[test]
fn the_interface_has_exactly_the_wanted_address_however_often_it_is_ensured() -> Result<()> {
    in_empty_network(|| {
        for _ in 0..2 {
            address::ensure(Some(&wanted("10.200.0.1", "10.43.0.0/16")))?;
            let shown = ip("-o address show dev holdfast0 scope global")?;
            assert_eq!(shown.lines().count(), 1, "{shown}");
            assert!(shown.contains(" 10.200.0.1/32 "), "{shown}");
            assert!(ip("route get 10.43.0.1")?.contains("holdfast0 src 10.200.0.1"));
        }
        // Another address takes its place, and the services are still reached.
        address::ensure(Some(&wanted("10.200.0.2", "10.43.0.0/16")))?;
        let shown = ip("-o address show dev holdfast0 scope global")?;
        assert!(
            shown.contains(" 10.200.0.2/32 ") && !shown.contains("10.200.0.1"),
            "{shown}"
        );
        assert!(ip("route get 10.43.0.1")?.contains("holdfast0 src 10.200.0.2"));
        address::ensure(Some(&wanted("fd00:200::1", "fd00:43::/112")))?;
        let shown = ip("-o -6 address show dev holdfast0 scope global")?;
        assert!(shown.contains(" fd00:200::1/128 "), "{shown}");
        assert!(ip("-6 route show dev holdfast0")?.contains("fd00:43::/112"));

        assert!(address::ensure(Some(&wanted("10.200.0.1", "10.43.0.0"))).is_err());
        address::ensure(None)?;
        assert!(ip("link show dev holdfast0").is_err());
        address::ensure(None)?;
        Ok(())
    })
}

#[test]
fn an_interface_that_somebody_else_made_is_left_alone() -> Result<()> {
    in_empty_network(|| {
        ip("link add holdfast0 type veth peer name other")?;
        let error = address::ensure(Some(&wanted("10.200.0.1", "10.43.0.0/16"))).unwrap_err();
        assert_eq!(error.problem().code, holdfast::codes::NODE_ADDRESS_FAILED);
        address::ensure(None)?;
        ip("link show dev holdfast0")?;
        Ok(())
    })
}

/// Ends the Kubernetes of a node with the test, however it ends: by design it outlives the node.
struct EndsWithTest(PathBuf);

impl Drop for EndsWithTest {
    fn drop(&mut self) {
        let record: Option<Value> = std::fs::read_to_string(&self.0)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok());
        if let Some(pid) = record.and_then(|record| record["pid"].as_i64()) {
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL);
        }
    }
}

#[test]
fn pain_10_kubernetes_starts_without_a_default_route_and_survives_an_address_change() -> Result<()> {
    in_empty_network(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(starts_without_a_route())
    })
}

async fn starts_without_a_route() -> Result<()> {
    assert_eq!(ip("route")?, "", "there is no route at all");
    let hub = Hub::start().await?;
    let mut node = Node::enrolled(&hub, "lonely").await?;
    let data = node.path("kubernetes");
    let kubernetes = &mut node.settings.kubernetes;
    kubernetes.supervise = true;
    kubernetes.binary = paths::k3s()?.display().to_string();
    kubernetes.data_dir = data.join("data");
    kubernetes.kubeconfig = data.join("k3s.yaml");
    kubernetes.https_port = holdfast_harness::port::reserve()?;
    kubernetes.log_file = Some(data.join("log"));
    kubernetes.restart_min = Duration::from_millis(100);
    kubernetes.secrets_dir = data.join("secrets");
    kubernetes.node_address = Some("10.200.0.1".parse()?);
    node.kubectl = Kubectl {
        kubeconfig: node.settings.kubernetes.kubeconfig.clone(),
        ..node.kubectl
    };
    let _end = EndsWithTest(node.settings.kubernetes_pid_file());
    let apps = [app(
        "shop",
        "default",
        &[config_map("settings", "1"), deployment("web", "example/web:1")],
    )];
    node.leave_first_document(&hub, 1, &apps)?;
    node.run().await?;
    node.until_proven(1).await?;
    let of_node = async |node: &Node| -> Result<Value> {
        let text = node.kubectl.run(&["get", "nodes", "-o", "json"]).await?;
        let nodes: Value = serde_json::from_str(&text)?;
        Ok(nodes["items"][0]["status"]["addresses"].clone())
    };
    let address = json!({"type": "InternalIP", "address": "10.200.0.1"});
    assert!(of_node(&node).await?.as_array().unwrap().contains(&address));
    assert!(ip("route get 10.43.0.1")?.contains("holdfast0 src 10.200.0.1"));

    // An uplink comes, its address changes, and it goes again: the node keeps its own, and Kubernetes is not even started again.
    let status = node.status()?;
    ip("link add uplink type bridge")?;
    ip("link set uplink up")?;
    ip("address add 192.168.7.20/24 dev uplink")?;
    ip("route add default via 192.168.7.1")?;
    node.publish(
        &hub,
        2,
        &[app(
            "shop",
            "default",
            &[config_map("settings", "2"), deployment("web", "example/web:1")],
        )],
    )
    .await?;
    node.until_proven(2).await?;
    ip("address flush dev uplink")?;
    ip("address add 172.16.9.9/16 dev uplink")?;
    node.publish(
        &hub,
        3,
        &[app(
            "shop",
            "default",
            &[config_map("settings", "3"), deployment("web", "example/web:1")],
        )],
    )
    .await?;
    node.until_proven(3).await?;
    ip("link delete uplink")?;
    let after = node
        .until("everything is well", |status| status.health == Health::Healthy)
        .await?;
    assert_eq!(after.kubernetes.restarts, status.kubernetes.restarts);
    assert!(of_node(&node).await?.as_array().unwrap().contains(&address));
    let map = node
        .object("default", "configmap", "settings")
        .await?
        .context("the app is there")?;
    assert_eq!(map["data"]["key"], "3");
    node.stop().await?;
    Ok(())
}
