//! A box without a battery clock wakes up in 1970. Nothing that runs may suffer from it, and the link must work.

use anyhow::{Context as _, Result, ensure};
use holdfast_e2e::{IMAGE, SOON, config_map, deployment};
use holdfast_harness::{Site, site::KUBERNETES};
use holdfast_protocol::report::Health;
use std::{fs, path::PathBuf};

/// The library that shows a process another clock, where distributions install it.
fn faketime() -> Result<PathBuf> {
    let libraries = fs::read_dir("/usr/lib")?
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    libraries
        .into_iter()
        .find(|path| path.exists())
        .context("libfaketime is not installed: run `cargo xtask prerequisites`")
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_04_a_clock_in_1970_removes_nothing_and_still_gets_the_next_release() -> Result<()> {
    let site = Site::start().await?;
    let mut node = site.enrolled_node("timeless").await?;
    site.hub
        .create_release(
            "one",
            "web",
            vec![config_map("page", "1"), deployment("web", IMAGE)],
        )
        .await?;
    let first = site.hub.assign("one", "timeless").await?;
    site.hub.wait_for_proven("timeless", first, KUBERNETES).await?;
    let uid = node
        .kubectl
        .get("default", "deployment", "web")
        .await?
        .context("web")?["metadata"]["uid"]
        .clone();
    node.stop().await?;
    site.hub
        .wait_for_node("timeless", "the node is gone", SOON, |node| !node.online)
        .await?;

    let library = faketime()?;
    let clock = [
        ("LD_PRELOAD", &*library.to_string_lossy()),
        ("FAKETIME", "@1970-01-02 03:04:05"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    node.start_with(&clock).await?;
    let seen = site
        .hub
        .wait_for_node("timeless", "the node is back", SOON, |node| {
            node.online && node.status.as_ref().is_some_and(|status| !status.clock_trusted)
        });
    let seen = seen.await?;
    ensure!(seen.proven == Some(first), "proven is {:?}", seen.proven);
    site.hub
        .create_release(
            "two",
            "web",
            vec![config_map("page", "2"), deployment("web", IMAGE)],
        )
        .await?;
    let second = site.hub.assign("two", "timeless").await?;
    site.hub
        .wait_for_node("timeless", "the next release is proven", KUBERNETES, |node| {
            node.proven == Some(second) && node.health == Health::Healthy
        })
        .await?;
    let web = node
        .kubectl
        .get("default", "deployment", "web")
        .await?
        .context("web is gone")?;
    ensure!(web["metadata"]["uid"] == uid, "the running app was replaced");
    let page = node
        .kubectl
        .get("default", "configmap", "page")
        .await?
        .context("page is gone")?;
    ensure!(page["data"]["value"] == "2");
    Ok(())
}
