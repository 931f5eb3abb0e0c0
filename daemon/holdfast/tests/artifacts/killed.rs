//! The process ends as in a power cut, in the middle of a fetch.

use crate::support::{Box, Manner, Server, artifact, content};
use anyhow::{Context as _, Result};
use holdfast::{artifacts::Fetcher, identity::Identity, settings::Settings};
use holdfast_store::Blobs;
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};
use tokio::sync::watch;

/// Names the state directory to the process that is killed.
const CHILD: &str = "HOLDFAST_TEST_FETCH_IN";
const SIZE: usize = 2 << 20;
const SENT: usize = 700_000;

fn fetcher_in(directory: &Path) -> Result<Fetcher> {
    holdfast_harness::install_tls_provider();
    let mut settings = Settings {
        state_dir: directory.join("state"),
        ..Settings::default()
    };
    settings.artifacts.ca_file = Some(directory.join("ca.pem"));
    let identity = Identity::load(&settings.identity_dir())?.context("the box is enrolled")?;
    let (_, identity) = watch::channel(Arc::new(identity));
    Ok(Fetcher::new(
        Blobs::open(&settings.state_dir)?,
        identity,
        Arc::new(settings),
    ))
}

#[tokio::test]
async fn a_fetch_goes_on_where_it_was_when_the_process_was_killed() -> Result<()> {
    if let Some(directory) = std::env::var_os(CHILD) {
        let directory = PathBuf::from(directory);
        let port = std::fs::read_to_string(directory.join("port"))?;
        let thing = artifact(&content(SIZE), &[format!("https://localhost:{port}")]);
        fetcher_in(&directory)?.fetch_artifacts(&[thing]).await.unwrap();
        return Ok(());
    }
    let it = Box::new()?;
    let bytes = content(SIZE);
    let server = Server::start(&it.authority, &bytes, &[Manner::Stalls(SENT), Manner::Good]).await?;
    let identity = it.identity(None)?;
    identity.store(&it.settings.identity_dir())?;
    let directory = it.directory.path();
    std::fs::write(directory.join("port"), server.port.to_string())?;
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "killed::a_fetch_goes_on_where_it_was_when_the_process_was_killed",
        ])
        .env(CHILD, directory)
        .spawn()?;
    let partial = it.settings.state_dir.join("store/blobs/partial");
    holdfast_harness::wait::until(
        "all that was sent is stored",
        std::time::Duration::from_secs(60),
        async || {
            let stored = std::fs::read_dir(&partial)
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
                .sum::<u64>();
            Ok((stored == SENT as u64).then_some(()))
        },
    )
    .await?;
    child.kill()?;
    child.wait()?;

    let thing = artifact(&bytes, &[server.url()]);
    let fetcher = fetcher_in(directory)?;
    assert!(!fetcher.blobs.contains(thing.digest, thing.size));
    fetcher
        .fetch_artifacts(std::slice::from_ref(&thing))
        .await
        .unwrap();
    assert_eq!(server.offsets(), [0, SENT as u64]);
    assert_eq!(fetcher.blobs.read(thing.digest)?, bytes);
    Ok(())
}
