//! A disk that is full.

use crate::support::{Box, Manner, Server, artifact, content};
use anyhow::Result;
use holdfast_protocol::codes as protocol_codes;
use holdfast_store::Blobs;
use nix::mount::{MsFlags, mount};

const SIZE: usize = 3 << 20;

/// Puts a file system of 2 MiB under the blobs; it is gone with the returned guard.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(it: &Box) -> Result<Self> {
        let directory = it.settings.state_dir.join("store/blobs");
        std::fs::create_dir_all(&directory)?;
        mount(
            Some("tmpfs"),
            &directory,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=2m"),
        )?;
        Ok(Self(directory))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_by_name_and_left_without_debris() -> Result<()> {
    let it = Box::new()?;
    let small = Small::mount(&it)?;
    let bytes = content(SIZE);
    let server = Server::start(&it.authority, &bytes, &[Manner::Good]).await?;
    let fetcher = it.fetcher(None)?;
    let thing = artifact(&bytes, &[server.url()]);
    let failure = fetcher
        .fetch_artifacts(std::slice::from_ref(&thing))
        .await
        .unwrap_err();
    assert_eq!(failure.problem.code, protocol_codes::DISK_FULL);
    assert!(failure.retryable);
    assert!(it.partial_files().is_empty());
    assert!(server.offsets().is_empty(), "what does not fit is not even begun");

    // Space that goes away in the middle.
    let bytes = content(1_500_000);
    let manners = [Manner::Cut(500_000), Manner::Status(503), Manner::Good];
    let server = Server::start(&it.authority, &bytes, &manners).await?;
    let thing = artifact(&bytes, &[server.url()]);
    fetcher
        .fetch_artifacts(std::slice::from_ref(&thing))
        .await
        .unwrap_err();
    assert_eq!(it.partial_files().len(), 1);
    let filler = small.0.join("filler");
    std::fs::write(&filler, content(1_400_000))?;
    let failure = fetcher
        .fetch_artifacts(std::slice::from_ref(&thing))
        .await
        .unwrap_err();
    assert_eq!(failure.problem.code, protocol_codes::DISK_FULL);
    assert!(
        it.partial_files().is_empty(),
        "what is here would only keep the disk full"
    );

    // And comes back.
    std::fs::remove_file(filler)?;
    fetcher
        .fetch_artifacts(std::slice::from_ref(&thing))
        .await
        .unwrap();
    assert_eq!(Blobs::open(&it.settings.state_dir)?.read(thing.digest)?, bytes);
    Ok(())
}

#[tokio::test]
async fn a_disk_that_fills_while_bytes_come_is_told_and_left_without_debris() -> Result<()> {
    let it = Box::new()?;
    let small = Small::mount(&it)?;
    let bytes = content(1_500_000);
    let server = Server::start(&it.authority, &bytes, &[Manner::Good]).await?;
    let mut settings = it.settings.clone();
    settings.artifacts.bandwidth.0 = 400_000;
    let slow = Box { settings, ..it };
    let fetcher = slow.fetcher(None)?;
    let mut progress = fetcher.progress();
    let thing = artifact(&bytes, &[server.url()]);
    let fetching = tokio::spawn(async move { fetcher.fetch_artifacts(&[thing]).await });
    progress.wait_for(|progress| progress.done > 0).await?;
    std::fs::write(small.0.join("filler"), content(1_000_000))?;
    let failure = fetching.await?.unwrap_err();
    assert_eq!(failure.problem.code, protocol_codes::DISK_FULL);
    assert!(slow.partial_files().is_empty());
    Ok(())
}
