//! Artifacts on the way from a real hub to a real box.

use anyhow::{Context as _, Result, ensure};
use holdfast_e2e::config_map;
use holdfast_harness::{Node, Site, site::KUBERNETES, wait};
use holdfast_protocol::{
    document::{App, Artifact, ManifestSource},
    operator::{CreateToken, ReleaseContent},
    report::Phase,
};
use std::{collections::BTreeMap, time::Duration};

/// Far more than a blob of manifests may have.
const SIZE: usize = 24 << 20;
/// Seconds of transfer, so that there is time to end the process in its middle.
const BANDWIDTH: &str = "[artifacts]\nbandwidth = \"4MiB\"\n";

/// A tar archive with one file of bytes that repeat nowhere near.
fn archive() -> Vec<u8> {
    let mut tar = vec![0_u8; 512];
    tar[..4].copy_from_slice(b"data");
    let content = SIZE - 1_536;
    tar[124..135].copy_from_slice(format!("{content:011o}").as_bytes());
    tar[156] = b'0';
    tar[257..265].copy_from_slice(b"ustar\x0000");
    tar[148..156].fill(b' ');
    let sum: u32 = tar.iter().map(|byte| u32::from(*byte)).sum();
    tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut state = 1_u64;
    tar.extend(
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .take(content),
    );
    tar.resize(SIZE, 0);
    tar
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_arrives_though_the_box_is_killed_and_the_link_is_cut() -> Result<()> {
    let site = Site::start().await?;
    let mut node = Node::prepare(&site.directory().join("carried"), "carried", BANDWIDTH)?;
    node.start().await?;
    let token = site.hub.create_token(&CreateToken::default()).await?;
    node.enrol(&token.token).await?;
    let content = archive();
    let digest = site.hub.put_blob(content.clone()).await?;
    let artifact = Artifact {
        digest,
        size: SIZE as u64,
        name: "images.tar".into(),
        sources: Vec::new(),
        extra: serde_json::Map::new(),
    };
    let images = ["amd64", "arm64"].map(|architecture| (architecture.to_owned(), vec![artifact.clone()]));
    let release = ReleaseContent {
        apps: vec![App {
            name: "carried".into(),
            manifests: vec![ManifestSource::Inline(vec![config_map("carried", "here")])],
            images: BTreeMap::from(images),
            ..App::default()
        }],
        ..ReleaseContent::default()
    };
    site.hub.create_release_of("carried", release).await?;
    let generation = site.hub.assign("carried", "carried").await?;

    let status = node
        .wait_for_status("some of it has come", Duration::from_secs(60), |status| {
            let progress = status.generation.progress.as_ref();
            status.generation.phase == Phase::Fetching
                && progress.is_some_and(|progress| progress.done > 6 << 20)
        })
        .await?;
    let progress = status.generation.progress.context("progress")?;
    ensure!(
        (progress.total, progress.unit.as_str()) == (SIZE as u64, "bytes"),
        "{progress:?}"
    );
    node.kill().await?;
    let partial = node
        .directory
        .join("state/store/blobs/partial")
        .join(digest.hex());
    let kept = std::fs::metadata(&partial)?.len();
    ensure!((6 << 20..SIZE as u64).contains(&kept), "{kept} bytes");

    node.start().await?;
    wait::until("it goes on where it was", Duration::from_secs(60), async || {
        let now = std::fs::metadata(&partial)?.len();
        ensure!(now >= kept, "it began anew: {now} bytes, {kept} before");
        Ok((now > kept + (1 << 20)).then_some(()))
    })
    .await?;
    site.hub.cut();
    let cut = std::fs::metadata(&partial)?.len();
    site.hub.restore();
    site.hub
        .wait_for_proven("carried", generation, KUBERNETES)
        .await?;
    ensure!(cut < SIZE as u64, "the link was cut in the middle");
    ensure!(!partial.exists(), "nothing stays behind");
    let stored = node.directory.join("state/store/blobs/sha256").join(digest.hex());
    ensure!(std::fs::read(stored)? == content, "another content");
    // There is no containerd here: k3s would take it at its first start.
    let link = node
        .directory
        .join(format!("k3s/agent/images/holdfast-{}.tar", &digest.hex()[..16]));
    ensure!(
        std::fs::metadata(&link)?.len() == SIZE as u64,
        "{} is not there",
        link.display()
    );
    Ok(())
}
