//! With no link, whatever ran keeps running and comes back, from local data only.

use anyhow::{Context as _, Result, ensure};
use holdfast_e2e::{SOON, config_map, page, run_web};
use holdfast_harness::{Site, site::KUBERNETES, wait};
use holdfast_protocol::{event::EventKind, report::Health};
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn pain_01_apps_return_after_a_reboot_with_the_hub_down_even_when_kubernetes_lost_its_data()
-> Result<()> {
    let site = Site::start().await?;
    let mut node = site.enrolled_node("dark").await?;
    let generation = run_web(&site, "dark").await?;

    site.hub.cut();
    node.kill().await?;
    node.kill_kubernetes()?;
    // The worst reboot: the datastore of Kubernetes is gone too. Only the node's cache is left.
    fs::remove_dir_all(node.directory.join("k3s").join("server").join("db")).context("the datastore")?;
    node.start().await?;
    let status = node
        .wait_for_status("the app is back", KUBERNETES, |status| {
            status.health == Health::Healthy && status.kubernetes.health == Health::Healthy
        })
        .await?;
    ensure!(
        status.generation.proven == Some(generation),
        "proven is {:?}",
        status.generation.proven
    );
    node.kubectl
        .wait("default", "deployment/web", "condition=Available", SOON)
        .await?;
    ensure!(page(&node).await? == "1");
    ensure!(
        !site.hub.node("dark").await?.online,
        "the hub heard of the node over a cut link"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_19_what_happens_during_a_cut_is_neither_lost_nor_doubled_on_either_side() -> Result<()> {
    let mut site = Site::start().await?;
    let mut node = site.enrolled_node("cut").await?;
    site.hub
        .create_release("r0", "web", vec![config_map("page", "0")])
        .await?;
    let first = site.hub.assign("r0", "cut").await?;
    site.hub.wait_for_proven("cut", first, KUBERNETES).await?;

    site.hub.cut();
    site.hub
        .wait_for_node("cut", "the hub notices", SOON, |node| !node.online)
        .await?;
    let mut last = first;
    for number in 1..=5 {
        let release = format!("r{number}");
        site.hub
            .create_release(&release, "web", vec![config_map("page", &number.to_string())])
            .await?;
        last = site.hub.assign(&release, "cut").await?;
    }
    // Things happen at the box too, and its daemon dies with what it wanted to say in its outbox.
    for _ in 0..3 {
        let before = node
            .kubectl
            .get("default", "configmap", "page")
            .await?
            .context("page")?["metadata"]["uid"]
            .clone();
        node.kubectl.run(&["delete", "configmap", "page"]).await?;
        wait::until("the page is put back", SOON, || async {
            let page = node.kubectl.get("default", "configmap", "page").await?;
            Ok(page.filter(|page| page["metadata"]["uid"] != before))
        })
        .await?;
    }
    wait::until("the corrections are recorded", SOON, || async {
        Ok((node.status().await?.health == Health::Healthy).then_some(()))
    })
    .await?;
    node.kill().await?;
    site.hub.kill_and_restart().await?;
    node.start().await?;
    site.hub.restore();

    site.hub.wait_for_proven("cut", last, KUBERNETES).await?;
    ensure!(page(&node).await? == "5", "the newest release was missed");
    let events = wait::until("all corrections are told", SOON, || async {
        let events = site.hub.events("cut").await?;
        let corrections = events
            .iter()
            .filter(|event| event.kind == EventKind::DriftCorrected)
            .count();
        Ok((corrections >= 3).then_some(events))
    })
    .await?;
    for pair in events.windows(2) {
        ensure!(
            pair[1].sequence == pair[0].sequence + 1,
            "events {} and {} are neighbours",
            pair[0].sequence,
            pair[1].sequence
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_21_nothing_is_touched_on_reconnect_when_digests_match() -> Result<()> {
    let mut site = Site::start().await?;
    let mut node = site.enrolled_node("still").await?;
    let generation = run_web(&site, "still").await?;
    let identity = |object: serde_json::Value| {
        (
            object["metadata"]["uid"].clone(),
            object["metadata"]["resourceVersion"].clone(),
        )
    };
    let look = async |node: &holdfast_harness::Node| -> Result<_> {
        let page = node
            .kubectl
            .get("default", "configmap", "page")
            .await?
            .context("page")?;
        let pods = node
            .kubectl
            .run(&["get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"])
            .await?;
        let web = node
            .kubectl
            .get("default", "deployment", "web")
            .await?
            .context("web")?;
        Ok((
            identity(page),
            pods,
            web["metadata"]["generation"].clone(),
            web["metadata"]["uid"].clone(),
        ))
    };
    let before = look(&node).await?;

    for round in 0..3 {
        site.hub.cut();
        site.hub
            .wait_for_node("still", "the hub notices", SOON, |node| !node.online)
            .await?;
        if round == 1 {
            site.hub.kill_and_restart().await?;
        }
        if round == 2 {
            node.kill().await?;
            node.start().await?;
        }
        site.hub.restore();
        site.hub
            .wait_for_node("still", "the node is back", SOON, |node| node.online)
            .await?;
        // Assigning what is assigned already makes no new generation.
        ensure!(
            site.hub.assign("one", "still").await? == generation,
            "an unchanged assignment made a new generation"
        );
        site.hub.wait_for_proven("still", generation, KUBERNETES).await?;
    }
    let after = look(&node).await?;
    ensure!(
        before == after,
        "something was touched: {before:?} became {after:?}"
    );
    Ok(())
}
