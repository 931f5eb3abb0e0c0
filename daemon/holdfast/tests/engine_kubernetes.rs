//! Kubernetes under supervision: started, adopted, restarted when it ends or its configuration changes, and never without a name for what is wrong.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result};
use engine_support::{
    PATIENCE, app,
    broker::Hub,
    config_map,
    k3s::{EndsWithTest, process, supervised},
};
use holdfast::codes;
use holdfast_protocol::report::Health;
use nix::sys::signal::{Signal, kill};

#[tokio::test]
async fn kubernetes_is_started_outlives_the_node_and_is_adopted() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = supervised(&hub, "keeper").await?;
    let _end = EndsWithTest(node.settings.kubernetes_pid_file());
    node.run().await?;
    node.until("Kubernetes is ready", |status| {
        status.kubernetes.health == Health::Healthy
    })
    .await?;
    let first = process(&node)?;
    node.publish(
        &hub,
        1,
        &[app("hello", "default", &[config_map("settings", "1")])],
    )
    .await?;
    node.until_proven(1).await?;

    node.stop().await?;
    assert_eq!(kill(first, None), Ok(()), "it ended with the node");
    node.run().await?;
    let status = node
        .until("Kubernetes is ready", |status| {
            status.kubernetes.health == Health::Healthy
        })
        .await?;
    assert_eq!(process(&node)?, first);
    assert_eq!(status.kubernetes.restarts, 0);

    // It is killed: an adopted one, which is nobody's child here.
    kill(first, Signal::SIGKILL)?;
    let status = node
        .until("Kubernetes is ready again", |status| {
            status.kubernetes.restarts == 1 && status.kubernetes.health == Health::Healthy
        })
        .await?;
    let second = process(&node)?;
    assert_ne!(second, first);
    assert_eq!(
        status.generation.proven.map(|generation| generation.counter),
        Some(1)
    );
    node.until("the app is known again", |status| {
        status.health == Health::Healthy
    })
    .await?;

    // Another configuration restarts it, the same one does not.
    let mut document = node.document(2, &[app("hello", "default", &[config_map("settings", "1")])]);
    document["k3s"] = serde_json::json!({"config": {"node-label": ["engine=yes"]}});
    hub.publish("keeper", hub.sign(&document).to_json()).await?;
    node.until("Kubernetes runs with its new configuration", |status| {
        status.kubernetes.restarts == 2 && status.kubernetes.health == Health::Healthy
    })
    .await?;
    node.until_proven(2).await?;
    let third = process(&node)?;
    document["generation"] = "1.3".into();
    hub.publish("keeper", hub.sign(&document).to_json()).await?;
    node.until_proven(3).await?;
    assert_eq!(process(&node)?, third);
    Ok(())
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named_and_looked_for_again() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = supervised(&hub, "missing").await?;
    let binary = node.path("k3s");
    node.settings.kubernetes.binary = binary.display().to_string();
    node.run().await?;
    let named = |code: &'static str| {
        move |status: &holdfast_protocol::report::StatusReport| {
            status
                .kubernetes
                .cause
                .as_ref()
                .is_some_and(|cause| cause.code == code)
        }
    };
    node.until("it is named", named(codes::KUBERNETES_BINARY_MISSING))
        .await?;
    let script = "#!/bin/sh\necho 'level=fatal msg=\"server must run as root\"' >&2; exit 1\n";
    let beside = node.path("k3s.new");
    std::fs::write(&beside, script)?;
    std::fs::set_permissions(&beside, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::rename(&beside, &binary)?;
    let status = node
        .until("it wants root", named(codes::KUBERNETES_NEEDS_ROOT))
        .await?;
    assert!(
        status
            .kubernetes
            .cause
            .context("a cause")?
            .message
            .contains("must run as root")
    );
    // However often it fails, the rest of the node works.
    tokio::time::timeout(PATIENCE, node.stop()).await??;
    Ok(())
}

#[tokio::test]
async fn a_kubernetes_that_has_not_written_its_kubeconfig_yet_is_starting_and_nothing_else() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = supervised(&hub, "beginner").await?;
    let binary = node.path("k3s");
    std::fs::write(&binary, "#!/bin/sh\nexec sleep 600\n")?;
    std::fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    node.settings.kubernetes.binary = binary.display().to_string();
    let _end = EndsWithTest(node.settings.kubernetes_pid_file());
    node.run().await?;
    let status = node
        .until("a cause is told", |status| status.kubernetes.cause.is_some())
        .await?;
    let cause = status.kubernetes.cause.context("a cause")?;
    assert_eq!(cause.code, codes::KUBERNETES_STARTING, "{cause}");
    assert_eq!(cause.action, "", "nothing is to be done");
    assert_eq!(status.kubernetes.health, Health::Progressing);

    // A file that is there and is no kubeconfig is another matter, from the next start on.
    node.stop().await?;
    let kubeconfig = &node.settings.kubernetes.kubeconfig;
    std::fs::create_dir_all(kubeconfig.parent().context("a directory")?)?;
    std::fs::write(kubeconfig, "nonsense")?;
    node.run().await?;
    node.until("the file is blamed", |status| {
        let cause = status.kubernetes.cause.as_ref();
        cause.is_some_and(|cause| cause.code == codes::KUBECONFIG_UNUSABLE)
    })
    .await?;
    node.stop().await
}
