//! k3s as a unit of a real systemd: started, adopted, started again, upgraded, over a real system bus.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result};
use engine_support::{
    PATIENCE, app,
    broker::Hub,
    config_map,
    k3s::{Server, program, section, supervised},
    systemd::Systemd,
};
use holdfast::codes;
use holdfast_harness::wait;
use holdfast_protocol::report::Health;

const UNIT: &str = "k3s.service";
const NEW: &str = "v1.37.0+k3s1";

/// The unit as it is shipped, for another state directory.
fn shipped(state: &std::path::Path) -> Result<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../systemd/k3s.service");
    let text = std::fs::read_to_string(path).context(path)?;
    // The namespaces have no targets that default dependencies would need.
    let text = text.replace("[Unit]\n", "[Unit]\nDefaultDependencies=no\n");
    Ok(text.replace("/var/lib/holdfast", &state.display().to_string()))
}

#[tokio::test]
async fn k3s_as_a_unit_outlives_the_node_is_adopted_started_again_and_upgraded() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = supervised(&hub, "unit").await?;
    let systemd = Systemd::boot(UNIT, &shipped(&node.settings.state_dir)?).await?;
    node.settings.kubernetes.supervisor = "systemd".into();
    node.settings.kubernetes.systemd_bus = Some(systemd.address());
    let invocation = async || systemd.property(UNIT, "Unit", "InvocationID").await;
    node.run().await?;
    node.publish(
        &hub,
        1,
        &[app("hello", "default", &[config_map("settings", "1")])],
    )
    .await?;
    node.until_proven(1).await?;
    let first = invocation().await?;
    assert_eq!(systemd.property(UNIT, "Unit", "ActiveState").await?, "active");

    // The node goes, the unit stays; the next node finds it.
    node.stop().await?;
    assert_eq!(systemd.property(UNIT, "Unit", "ActiveState").await?, "active");
    node.run().await?;
    let status = node.until_proven(1).await?;
    assert_eq!(status.kubernetes.restarts, 0);
    assert_eq!(invocation().await?, first);

    // It is killed, and comes again.
    systemd.manager("KillUnit", &["ssi", UNIT, "main", "9"]).await?;
    node.until("it was started again", |status| {
        status.kubernetes.restarts == 1 && status.kubernetes.health == Health::Healthy
    })
    .await?;
    let second = invocation().await?;
    assert_ne!(second, first);

    // Another version.
    let mut document = node.document(2, &[app("hello", "default", &[config_map("settings", "2")])]);
    document["k3s"] = section(&node, NEW, &program(NEW, Server::Runs("new"))?)?;
    hub.publish("unit", hub.sign(&document).to_json()).await?;
    node.until_proven(2).await?;
    assert_ne!(invocation().await?, second);
    // Its kubelet labels the node a moment after the API answers.
    wait::until("the node is labelled anew", PATIENCE, async || {
        let seen = node.object("default", "node", "unit").await?;
        Ok(seen.filter(|seen| seen["metadata"]["labels"]["written-by"] == "new"))
    })
    .await?;
    assert!(
        node.settings
            .state_dir
            .join("k3s/snapshots/1.2/state.db")
            .is_file()
    );

    systemd.manager("StopUnit", &["ss", UNIT, "replace"]).await?;
    node.stop().await
}

#[tokio::test]
async fn a_systemd_that_is_not_there_is_named() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = supervised(&hub, "alone").await?;
    node.settings.kubernetes.supervisor = "systemd".into();
    node.settings.kubernetes.systemd_bus = Some(format!("unix:path={}", node.path("nobody").display()));
    node.run().await?;
    node.until("it is named", |status| {
        (status.kubernetes.cause.as_ref()).is_some_and(|cause| cause.code == codes::KUBERNETES_SYSTEMD)
    })
    .await?;
    node.stop().await
}
