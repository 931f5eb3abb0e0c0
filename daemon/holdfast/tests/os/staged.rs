//! How an image gets into the slot that does not run.

use crate::{
    appliance::{Appliance, Image, USR_A, tampered},
    support::{Manner, Server},
};
use anyhow::{Result, ensure};
use holdfast::os::{Booted, Other, Slot};
use holdfast_os::codes;
use holdfast_protocol::Digest;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn an_image_lands_in_the_other_slot_and_boots_next() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let appliance = Appliance::running(&one)?;
    let server = appliance.server(&two, &[Manner::Good]).await?;
    let os = appliance.os()?;
    let wanted = two.wanted(&appliance, &[&server])?;
    os.check(&wanted).await.unwrap();
    let staged = os.stage(&wanted, CancellationToken::new()).await.unwrap();
    appliance.holds(&two)?;
    assert_eq!(appliance.kernels()?, ["holdfast_1.efi"], "nothing boots yet");
    assert_eq!(
        appliance.read(USR_A, one.usr.len())?,
        one.usr,
        "what runs is untouched"
    );

    // One package of 150,000 bytes, the hash tree and the end of the kernel changed.
    let progress = *os.progress().borrow();
    assert_eq!((progress.done, progress.done), (progress.total, progress.total));
    ensure!(
        progress.fetched * 10 < two.pack.len() as u64,
        "{} of {} bytes were fetched",
        progress.fetched,
        two.pack.len()
    );

    os.install(&staged).await.unwrap();
    os.install(&staged).await.unwrap();
    assert_eq!(appliance.kernels()?, ["holdfast_1.efi", "holdfast_2+3.efi"]);
    let installed = std::fs::read(appliance.esp().join("EFI/Linux/holdfast_2+3.efi"))?;
    assert_eq!(Digest::of(&installed), Digest::of(&two.uki));
    assert_eq!(
        os.booted().await.unwrap(),
        Some(Booted {
            version: "1".into(),
            usr_hash: one.usr_hash.clone(),
            slot: Slot::A,
            good: true,
            tries_left: None,
            other: Some(Other {
                version: "2".into(),
                good: false
            }),
        })
    );
    Ok(())
}

#[tokio::test]
async fn what_is_staged_is_fetched_no_second_time() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let appliance = Appliance::running(&one)?;
    let server = appliance.server(&two, &[Manner::Good]).await?;
    let wanted = two.wanted(&appliance, &[&server])?;
    let first = appliance
        .os()?
        .stage(&wanted, CancellationToken::new())
        .await
        .unwrap();
    let (asked, disk) = (server.offsets().len(), appliance.disk_digest()?);
    let again = appliance
        .os()?
        .stage(&wanted, CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(first, again);
    assert_eq!(server.offsets().len(), asked);
    assert_eq!(
        appliance.disk_digest()?,
        disk,
        "not even the table was written anew"
    );
    Ok(())
}

#[tokio::test]
async fn a_fetch_that_is_cut_again_and_again_fetches_nothing_twice() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let whole = Appliance::running(&one)?;
    let server = whole.server(&two, &[Manner::Good]).await?;
    let os = whole.os()?;
    os.stage(&two.wanted(&whole, &[&server])?, CancellationToken::new())
        .await
        .unwrap();
    let needed = os.progress().borrow().fetched;

    let appliance = Appliance::running(&one)?;
    let server = appliance.server(&two, &[Manner::Cut(70_000)]).await?;
    let os = appliance.os()?;
    os.stage(&two.wanted(&appliance, &[&server])?, CancellationToken::new())
        .await
        .unwrap();
    appliance.holds(&two)?;
    let fetched = os.progress().borrow().fetched;
    // Of a chunk that was cut through, the first half comes twice.
    let cuts = server.offsets().len() as u64;
    ensure!(
        fetched <= needed + cuts * 66_560,
        "{fetched} of {needed} in {cuts}"
    );
    Ok(())
}

#[tokio::test]
async fn a_server_without_ranges_serves_as_well() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let appliance = Appliance::running(&one)?;
    let server = appliance.server(&two, &[Manner::Whole]).await?;
    let wanted = two.wanted(&appliance, &[&server])?;
    let os = appliance.os()?;
    os.stage(&wanted, CancellationToken::new()).await.unwrap();
    appliance.holds(&two)?;
    // The kernel image comes before the slot is taken, and lies first: the rest of what was begun for it is not read.
    assert_eq!(server.offsets().len(), 2, "the whole is asked for once for each");
    let kernel = two
        .manifest
        .uki
        .chunks
        .iter()
        .map(|chunk| chunk.offset + u64::from(chunk.length));
    let kernel = kernel.max().unwrap_or_default();
    // What is on its way when it ends comes in pieces of the transport.
    let most = two.pack.len() as u64 + kernel + (512 << 10);
    let fetched = os.progress().borrow().fetched;
    assert!(fetched <= most, "{fetched} bytes were read, not {most} at most");
    Ok(())
}

#[tokio::test]
async fn a_tampered_chunk_is_named_and_comes_from_another_source() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let appliance = Appliance::running(&one)?;
    let changed = (0..two.manifest.usr.chunks.len())
        .find(|index| {
            let digest = two.manifest.usr.chunks[*index].digest;
            !one.manifest.usr.chunks.iter().any(|chunk| chunk.digest == digest)
        })
        .unwrap();
    let authority = &appliance.it.authority;
    let bad = Server::start(authority, &tampered(&two, changed), &[Manner::Good]).await?;
    let os = appliance.os()?;
    // The hub is not there, which leaves hope; a source with damaged chunks is named all the same.
    let failure = os
        .stage(&two.wanted(&appliance, &[&bad])?, CancellationToken::new())
        .await
        .unwrap_err();
    let named = two.manifest.usr.chunks[changed].digest.to_string();
    assert!(failure.problem.message.contains(&named), "{}", failure.problem);
    assert_eq!(appliance.kernels()?, ["holdfast_1.efi"]);
    assert!(appliance.sgdisk(&["-i", "5"])?.contains("'_empty'"));
    assert_eq!(os.booted().await.unwrap().unwrap().other, None);
    appliance.table_is_sound()?;

    let good = appliance.server(&two, &[Manner::Good]).await?;
    os.stage(&two.wanted(&appliance, &[&bad, &good])?, CancellationToken::new())
        .await
        .unwrap();
    appliance.holds(&two)?;

    // Where every source is damaged, waiting does not help.
    let three = Image::new("3", 1)?;
    let appliance = Appliance::running(&one)?;
    let pack = tampered(&three, changed);
    let hub = Server::hub(&appliance.it.authority, &pack, &[Manner::Good]).await?;
    let os = holdfast::os::Os::at(appliance.places(), Some(appliance.it.fetcher(Some(&hub))?));
    let failure = os
        .stage(&three.wanted(&appliance, &[])?, CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(failure.problem.code, codes::OS_CHUNK_DAMAGED);
    assert!(!failure.retryable);
    Ok(())
}

#[tokio::test]
async fn a_pack_that_the_box_has_costs_no_network() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let appliance = Appliance::running(&one)?;
    let baked = appliance.it.settings.artifacts.baked.join("sha256");
    std::fs::create_dir_all(&baked)?;
    std::fs::write(baked.join(two.manifest.pack.digest.hex()), &two.pack)?;
    let os = appliance.os()?;
    os.stage(&two.wanted(&appliance, &[])?, CancellationToken::new())
        .await
        .unwrap();
    appliance.holds(&two)?;
    assert_eq!(os.progress().borrow().fetched, 0);
    Ok(())
}

#[tokio::test]
async fn a_cancelled_fetch_stops_and_goes_on_later() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let appliance = Appliance::running(&one)?;
    let server = appliance
        .server(&two, &[Manner::Stalls(6_000), Manner::Good])
        .await?;
    let os = appliance.os()?;
    let wanted = two.wanted(&appliance, &[&server])?;
    let cancel = CancellationToken::new();
    let (staging, token) = (os.clone(), cancel.clone());
    let task = tokio::spawn({
        let wanted = wanted.clone();
        async move { staging.stage(&wanted, token).await }
    });
    // Not before: what stalls is the first answer.
    let mut asked = server.asked.subscribe();
    asked.wait_for(|asked| !asked.is_empty()).await?;
    cancel.cancel();
    assert!(task.await?.is_err_and(|failure| failure.retryable));
    os.stage(&wanted, CancellationToken::new()).await.unwrap();
    appliance.holds(&two)
}

#[tokio::test]
async fn a_limit_of_bandwidth_is_kept() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let appliance = Appliance::running(&one)?;
    let server = appliance.server(&two, &[Manner::Good]).await?;
    let mut wanted = two.wanted(&appliance, &[&server])?;
    wanted.max_bytes_per_second = Some(100_000);
    let os = appliance.os()?;
    let begin = std::time::Instant::now();
    os.stage(&wanted, CancellationToken::new()).await.unwrap();
    let fetched = os.progress().borrow().fetched as f64;
    // One second's worth may come at once.
    ensure!(
        begin.elapsed().as_secs_f64() >= fetched / 100_000.0 - 1.1,
        "{fetched}"
    );
    ensure!(fetched > 200_000.0);
    Ok(())
}
