//! The same path with a broker that the fleet brings along: mosquitto with the shipped configuration.

use anyhow::{Result, ensure};
use holdfast_e2e::{SOON, config_map, page};
use holdfast_harness::{Site, site::KUBERNETES};

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_path_works_over_mosquitto_and_survives_its_death() -> Result<()> {
    let (mut site, mut broker) = Site::start_with_mosquitto().await?;
    let node = site.enrolled_node("external").await?;
    site.hub
        .create_release("one", "page", vec![config_map("page", "1")])
        .await?;
    let first = site.hub.assign("one", "external").await?;
    site.hub.wait_for_proven("external", first, KUBERNETES).await?;

    broker.kill().await?;
    site.hub
        .create_release("two", "page", vec![config_map("page", "2")])
        .await?;
    let second = site.hub.assign("two", "external").await?;
    broker.restart()?;
    site.hub.wait_for_proven("external", second, SOON * 2).await?;
    ensure!(page(&node).await? == "2");

    // The hub may die too: what it published stays, and it hears what is said next.
    site.hub.kill_and_restart().await?;
    site.hub
        .create_release("three", "page", vec![config_map("page", "3")])
        .await?;
    let third = site.hub.assign("three", "external").await?;
    site.hub.wait_for_proven("external", third, SOON * 2).await?;
    drop(broker);
    site.hub
        .wait_for_node("external", "the hub knows that it cannot know", SOON, |node| {
            !node.online
        })
        .await?;
    Ok(())
}
