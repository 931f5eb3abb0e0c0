//! What boots next, and how it goes back.

use crate::{
    appliance::{Appliance, Image},
    support::Manner,
};
use anyhow::Result;
use holdfast::{codes, os::Os};
use std::fs;
use tokio_util::sync::CancellationToken;

/// A box that runs version 2 from slot b, good, with version 1 whole in slot a.
async fn updated(one: &Image, two: &Image) -> Result<(Appliance, Os)> {
    let appliance = Appliance::running(one)?;
    let server = appliance.server(two, &[Manner::Good]).await?;
    let os = appliance.os()?;
    let wanted = two.wanted(&appliance, &[&server])?;
    let staged = os.stage(&wanted, CancellationToken::new()).await.unwrap();
    os.install(&staged).await.unwrap();
    rename(&appliance, &format!("{}+3", two.version), &two.version)?;
    appliance.boots(two)?;
    Ok((appliance, os))
}

/// What systemd-boot and systemd-bless-boot do to names.
fn rename(appliance: &Appliance, from: &str, to: &str) -> Result<()> {
    let at = |name: &str| appliance.esp().join(format!("EFI/Linux/holdfast_{name}.efi"));
    Ok(fs::rename(at(from), at(to))?)
}

#[tokio::test]
async fn a_look_that_fails_is_no_proof_that_a_version_on_trial_is_good() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let (appliance, os) = updated(&one, &two).await?;
    assert_eq!(os.is_on_trial(), Some(false));
    rename(&appliance, "2", "2+2-1")?;
    assert_eq!(os.is_on_trial(), Some(true));
    // Its partition is not mounted, for a moment or for good.
    let (esp, away) = (appliance.esp().join("EFI"), appliance.esp().join("away"));
    fs::rename(&esp, &away)?;
    assert_eq!(os.is_on_trial(), None);
    fs::rename(&away, &esp)?;
    assert_eq!(os.is_on_trial(), Some(true));
    Ok(())
}

#[tokio::test]
async fn the_other_slot_boots_next_and_returns_if_it_does_not_come_up() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let (appliance, os) = updated(&one, &two).await?;
    os.go_back_to("1").await.unwrap();
    os.go_back_to("1").await.unwrap();
    // The older one has tries; the newer one stands behind it, and is the newest of all that have none.
    assert_eq!(appliance.kernels()?, ["holdfast_1+3.efi", "holdfast_2+0.efi"]);

    // It came up: it is what runs, and the newer one can be asked for again.
    appliance.boots(&one)?;
    rename(&appliance, "1+3", "1+2-1")?;
    let booted = os.booted().await.unwrap().unwrap();
    assert_eq!((booted.good, booted.tries_left), (false, Some(2)));
    rename(&appliance, "1+2-1", "1")?;
    os.settle().await.unwrap();
    assert_eq!(appliance.kernels()?, ["holdfast_1.efi", "holdfast_2+0.efi"]);
    os.go_back_to("2").await.unwrap();
    assert_eq!(appliance.kernels()?, ["holdfast_1.efi", "holdfast_2+3.efi"]);

    // It did not come up: the newer one runs again, and takes its place.
    let (appliance, os) = updated(&one, &two).await?;
    os.go_back_to("1").await.unwrap();
    rename(&appliance, "1+3", "1+0-3")?;
    assert!(os.booted().await.unwrap().unwrap().good);
    os.settle().await.unwrap();
    assert_eq!(appliance.kernels()?, ["holdfast_1+0-3.efi", "holdfast_2.efi"]);
    let failure = os.go_back_to("1").await.unwrap_err();
    assert_eq!(failure.problem.code, codes::OS_NO_WAY_BACK);
    Ok(())
}

#[tokio::test]
async fn what_was_armed_and_not_tried_can_be_called_off() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let (appliance, os) = updated(&one, &two).await?;
    os.go_back_to("1").await.unwrap();
    os.disarm("1").await.unwrap();
    os.disarm("1").await.unwrap();
    assert_eq!(appliance.kernels()?, ["holdfast_1+0.efi", "holdfast_2.efi"]);
    assert_eq!(os.booted().await.unwrap().unwrap().other.unwrap().version, "1");
    Ok(())
}

#[tokio::test]
async fn there_is_no_way_back_to_what_is_not_whole() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let (appliance, os) = updated(&one, &two).await?;
    let kernel = appliance.esp().join("EFI/Linux/holdfast_1.efi");
    let whole = fs::read(&kernel)?;
    let is_refused = async || -> Result<()> {
        let before = appliance.kernels()?;
        let failure = os.go_back_to("1").await.unwrap_err();
        assert_eq!(failure.problem.code, codes::OS_NO_WAY_BACK, "{}", failure.problem);
        assert_eq!(appliance.kernels()?, before);
        assert_eq!(os.booted().await.unwrap().unwrap().other, None);
        Ok(())
    };
    fs::write(&kernel, &whole[..whole.len() - 1])?;
    is_refused().await?;
    fs::write(&kernel, &two.uki)?;
    is_refused().await?;
    fs::remove_file(&kernel)?;
    is_refused().await?;
    fs::write(&kernel, &whole)?;
    let failure = os.go_back_to("0.5").await.unwrap_err();
    assert_eq!(failure.problem.code, codes::OS_NO_WAY_BACK);
    os.go_back_to("1").await.unwrap();
    Ok(())
}

#[tokio::test]
async fn an_older_version_can_be_wanted_and_costs_nothing_where_it_is_whole() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let (appliance, os) = updated(&one, &two).await?;
    let staged = os
        .stage(&one.wanted(&appliance, &[])?, CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(os.progress().borrow().fetched, 0);
    os.install(&staged).await.unwrap();
    assert_eq!(appliance.kernels()?, ["holdfast_1+3.efi", "holdfast_2+0.efi"]);
    Ok(())
}

#[tokio::test]
async fn a_third_version_takes_the_slot_of_the_first_and_its_kernel_first() -> Result<()> {
    let (one, two, three) = (Image::new("1", 1)?, Image::new("2", 1)?, Image::new("3", 1)?);
    let (appliance, os) = updated(&one, &two).await?;
    // Nobody has it, or has something else: until its kernel image is here, the way back stays.
    let disk = appliance.disk_digest()?;
    for manner in [Manner::Status(503), Manner::Lies] {
        let server = appliance.server(&three, &[manner]).await?;
        let wanted = three.wanted(&appliance, &[&server])?;
        os.stage(&wanted, CancellationToken::new()).await.unwrap_err();
        assert_eq!(appliance.kernels()?, ["holdfast_1.efi", "holdfast_2.efi"]);
        assert_eq!(appliance.disk_digest()?, disk);
        assert_eq!(os.booted().await.unwrap().unwrap().other.unwrap().version, "1");
    }

    let manners = [Manner::Good, Manner::Good, Manner::Status(503)];
    let server = appliance.server(&three, &manners).await?;
    let wanted = three.wanted(&appliance, &[&server])?;
    assert!(
        os.stage(&wanted, CancellationToken::new())
            .await
            .unwrap_err()
            .retryable
    );
    // Half of it is there: nothing may boot from this slot.
    assert_eq!(appliance.kernels()?, ["holdfast_2.efi"]);
    assert!(appliance.sgdisk(&["-i", "3"])?.contains("'_empty'"));
    appliance.holds(&two)?;

    let server = appliance.server(&three, &[Manner::Good]).await?;
    let wanted = three.wanted(&appliance, &[&server])?;
    let staged = os.stage(&wanted, CancellationToken::new()).await.unwrap();
    os.install(&staged).await.unwrap();
    assert_eq!(appliance.kernels()?, ["holdfast_2.efi", "holdfast_3+3.efi"]);
    appliance.holds(&two)
}

#[tokio::test]
async fn a_damaged_partition_table_is_read_from_its_backup_and_mended() -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let appliance = Appliance::running(&one)?;
    let disk = fs::OpenOptions::new().write(true).open(appliance.disk())?;
    disk.write_all_at(&[0xff; 64], 512 + 8)?;
    let os = appliance.os()?;
    assert_eq!(os.booted().await.unwrap().unwrap().version, "1");
    let server = appliance.server(&two, &[Manner::Good]).await?;
    os.stage(&two.wanted(&appliance, &[&server])?, CancellationToken::new())
        .await
        .unwrap();
    appliance.holds(&two)
}
