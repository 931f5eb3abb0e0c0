//! What cannot work is refused before the first write.

use crate::appliance::{Appliance, Image, MIB, key};
use anyhow::{Context as _, Result};
use holdfast::{codes, os::Wanted};
use holdfast_os::{Architecture, Manifest, codes as os_codes, sign};
use holdfast_protocol::envelope::Envelope;
use std::{fs, process::Command};
use tokio_util::sync::CancellationToken;

async fn is_refused(appliance: &Appliance, wanted: &Wanted, code: &str) -> Result<()> {
    let before = (appliance.disk_digest()?, appliance.kernels()?);
    let os = appliance.os()?;
    for refused in [
        os.check(wanted).await,
        os.stage(wanted, CancellationToken::new()).await.map(drop),
    ] {
        let failure = refused.unwrap_err();
        assert_eq!(failure.problem.code, code, "{}", failure.problem);
        assert!(!failure.retryable, "{code}");
        assert!(!failure.problem.action.is_empty());
    }
    assert_eq!((appliance.disk_digest()?, appliance.kernels()?), before, "{code}");
    assert!(!appliance.places().state.exists(), "{code}");
    Ok(())
}

#[tokio::test]
async fn nothing_is_written_for_an_image_that_cannot_work() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let appliance = Appliance::running(&one)?;
    let signed = |change: fn(&mut Manifest)| -> Result<Wanted> {
        let mut manifest = two.manifest.clone();
        change(&mut manifest);
        appliance.wanted("2", &sign(&manifest, &[&key(1)])?)
    };
    let other = |manifest: &mut Manifest| {
        manifest.architecture = match Architecture::current() {
            Some(Architecture::Amd64) => Architecture::Arm64,
            _ => Architecture::Amd64,
        };
    };
    is_refused(&appliance, &signed(other)?, codes::OS_WRONG_ARCHITECTURE).await?;
    let other_version = signed(|manifest| manifest.version = "9".into())?;
    is_refused(&appliance, &other_version, os_codes::OS_MANIFEST_INVALID).await?;
    let large = signed(|manifest| {
        while manifest.usr.size <= 8 * MIB {
            let chunk = manifest.usr.chunks[0];
            let block = holdfast_os::Chunk {
                size: 4096,
                digest: holdfast_protocol::Digest::of(b"block"),
                ..chunk
            };
            manifest.usr.chunks.push(block);
            manifest.usr.size += 4096;
        }
    })?;
    is_refused(&appliance, &large, codes::OS_SLOT_TOO_SMALL).await?;

    let stranger = appliance.wanted("2", &sign(&two.manifest, &[&key(2)])?)?;
    is_refused(&appliance, &stranger, os_codes::OS_MANIFEST_UNTRUSTED).await?;
    let mut envelope: Envelope = serde_json::from_slice(&sign(&two.manifest, &[&key(1)])?)?;
    let last = envelope.payload.len() - 9;
    envelope.payload[last] ^= 1;
    let tampered = appliance.wanted("2", &envelope.to_json())?;
    is_refused(&appliance, &tampered, os_codes::OS_MANIFEST_UNTRUSTED).await?;

    fs::remove_file(appliance.root().join("usr/lib/holdfast/os-keys.json"))?;
    is_refused(
        &appliance,
        &two.wanted(&appliance, &[])?,
        codes::OS_KEYS_UNREADABLE,
    )
    .await
}

#[tokio::test]
async fn an_image_of_a_version_that_is_here_already_must_be_the_same() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let appliance = Appliance::running(&one)?;
    let rebuilt = |image: &Image| -> Result<Wanted> {
        let mut manifest = image.manifest.clone();
        manifest.usr_hash = Image::new("9", 1)?.usr_hash;
        appliance.wanted(&image.version, &sign(&manifest, &[&key(1)])?)
    };
    // The version that runs.
    is_refused(&appliance, &rebuilt(&one)?, codes::OS_SAME_VERSION).await?;
    let os = appliance.os()?;
    let failure = os.check_running(&rebuilt(&one)?).await.unwrap_err();
    assert_eq!(failure.problem.code, codes::OS_SAME_VERSION);
    os.check_running(&one.wanted(&appliance, &[])?).await.unwrap();

    // The version in the other slot, for as long as it may be gone back to.
    let server = appliance.server(&two, &[crate::support::Manner::Good]).await?;
    let staged = os
        .stage(&two.wanted(&appliance, &[&server])?, CancellationToken::new())
        .await
        .unwrap();
    os.install(&staged).await.unwrap();
    let other = rebuilt(&two)?;
    let failure = os.check(&other).await.unwrap_err();
    assert_eq!(
        failure.problem.code,
        codes::OS_SAME_VERSION,
        "{}",
        failure.problem
    );
    let kernel = |name: &str| appliance.esp().join("EFI/Linux").join(name);
    fs::rename(kernel("holdfast_2+3.efi"), kernel("holdfast_2+0-3.efi"))?;
    os.check(&other).await.unwrap();
    Ok(())
}

/// A file system of its own, taken away at the end.
struct Mount<'a>(&'a std::path::Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test]
async fn pain_12_a_full_esp_is_refused_before_the_first_write() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("needs root to mount a small file system");
        return Ok(());
    }
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let appliance = Appliance::running(&one)?;
    let esp = appliance.esp();
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1300k", "tmpfs"])
        .arg(&esp)
        .status()
        .context("mount")?;
    assert!(status.success());
    let _mount = Mount(&esp);
    fs::create_dir_all(esp.join("EFI/Linux"))?;
    fs::write(esp.join("EFI/Linux/holdfast_1.efi"), &one.uki)?;
    fs::write(esp.join("firmware-update.bin"), vec![1; 500_000])?;
    is_refused(&appliance, &two.wanted(&appliance, &[])?, codes::OS_ESP_FULL).await?;

    // What an earlier update left behind is no reason: it goes before the new one comes.
    fs::remove_file(esp.join("firmware-update.bin"))?;
    fs::write(esp.join("EFI/Linux/holdfast_0.9+0-3.efi"), &one.uki)?;
    fs::write(esp.join("EFI/Linux/holdfast_0.8.part"), vec![0; 150_000])?;
    let server = appliance.server(&two, &[crate::support::Manner::Good]).await?;
    let os = appliance.os()?;
    let staged = os
        .stage(&two.wanted(&appliance, &[&server])?, CancellationToken::new())
        .await
        .unwrap();
    os.install(&staged).await.unwrap();
    assert_eq!(appliance.kernels()?, ["holdfast_1.efi", "holdfast_2+3.efi"]);
    Ok(())
}

#[tokio::test]
async fn a_machine_without_an_image_is_left_alone() -> Result<()> {
    let (one, two) = (Image::new("1", 1)?, Image::new("2", 1)?);
    let appliance = Appliance::running(&one)?;
    let wanted = two.wanted(&appliance, &[])?;
    fs::write(
        appliance.root().join("usr/lib/os-release"),
        "ID=debian\nVERSION_ID=13\n",
    )?;
    assert_eq!(appliance.os()?.booted().await.unwrap(), None);
    is_refused(&appliance, &wanted, codes::OS_NO_IMAGE).await?;
    // A slot that is not the running one's must never be taken for free: here, none is known to run.
    appliance.boots(&two)?;
    is_refused(&appliance, &wanted, codes::OS_NO_IMAGE).await
}
