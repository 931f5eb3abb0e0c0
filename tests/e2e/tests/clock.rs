//! A box without a battery clock wakes up in 1970. Nothing that runs may suffer from it, and the link must work.

use anyhow::{Context as _, Result, ensure};
use holdfast_e2e::{SOON, page, run_web, web, web_uid};
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
    let first = run_web(&site, "timeless").await?;
    let uid = web_uid(&node).await?;
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
    site.hub.create_release("two", "web", web("2")).await?;
    let second = site.hub.assign("two", "timeless").await?;
    site.hub
        .wait_for_node("timeless", "the next release is proven", KUBERNETES, |node| {
            node.proven == Some(second) && node.health == Health::Healthy
        })
        .await?;
    ensure!(web_uid(&node).await? == uid, "the running app was replaced");
    ensure!(page(&node).await? == "2");
    Ok(())
}
