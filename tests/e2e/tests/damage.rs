//! Damaged, full and read-only disks, and content that is not what it says: named, told at the hub, and what runs is left alone.

use anyhow::{Context as _, Result, ensure};
use holdfast_e2e::{SOON, config_map, disk::SmallDisk, page, run_web, web, web_uid};
use holdfast_harness::{Node, Site, wait};
use holdfast_protocol::{
    codes,
    document::{App, BlobRef, ManifestSource},
    event::EventKind,
    operator::{CreateToken, ReleaseContent},
    report::{Health, StatusReport},
};
use serde_json::Value;
use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path};

fn told(status: &StatusReport, code: &str) -> bool {
    status
        .conditions
        .iter()
        .any(|condition| condition.problem.code == code)
}

async fn running(site: &Site, name: &str) -> Result<(Node, Value)> {
    let node = site.enrolled_node(name).await?;
    run_web(site, name).await?;
    let uid = web_uid(&node).await?;
    Ok((node, uid))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_store_is_set_aside_reported_and_filled_again_without_touching_what_runs() -> Result<()> {
    is_set_aside_and_filled_again("corrupt", "node.db.damaged-", |database| {
        let mut bytes = fs::read(database)?;
        let length = bytes.len();
        for byte in &mut bytes[100..length.min(8192)] {
            *byte ^= 0x5a;
        }
        Ok(fs::File::create(database)?.write_all(&bytes)?)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_newer_schema_is_set_aside_reported_and_filled_again_without_touching_what_runs()
-> Result<()> {
    is_set_aside_and_filled_again("newer", "node.db.newer-", |database| {
        let database = rusqlite::Connection::open(database)?;
        Ok(database.pragma_update(None, "user_version", 99)?)
    })
    .await
}

/// A store that cannot be used any more is kept under a name of that beginning, and the hub fills the new one.
async fn is_set_aside_and_filled_again(
    name: &str,
    aside: &str,
    spoil: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let site = Site::start().await?;
    let (mut node, before) = running(&site, name).await?;
    // In good order, so that all is in the one file: what a kill leaves beside it would heal the damage.
    node.stop().await?;
    spoil(&node.directory.join("state/store/node.db"))?;
    node.start().await?;
    wait::until("it is told", SOON, || async {
        let events = site.hub.events(name).await?;
        Ok(events
            .iter()
            .any(|event| event.kind == EventKind::StoreQuarantined)
            .then_some(()))
    })
    .await?;
    site.hub
        .wait_for_node(name, "the truth returns", SOON, |node| {
            node.proven == node.wanted && node.health == Health::Healthy
        })
        .await?;
    ensure!(web_uid(&node).await? == before, "the running app was replaced");
    ensure!(
        find(&node.directory.join("state/store"), aside).is_some(),
        "the file was not kept"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_content_was_changed_is_refused_by_name_and_the_running_app_stays() -> Result<()> {
    let site = Site::start().await?;
    let (node, before) = running(&site, "blob").await?;
    let good = serde_json::to_vec(&vec![config_map("page", &"2".repeat(20_000))])?;
    let size = good.len() as u64;
    let digest = site.hub.put_blob(good).await?;
    let file = find(&site.hub.directory.join("data"), &digest.hex()).context("the hub's file of the blob")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let tampered = serde_json::to_vec(&vec![config_map("page", &"3".repeat(20_000))])?;
    fs::File::create(&file)?.write_all(&tampered)?;
    let app = App {
        name: "web".into(),
        namespace: None,
        manifests: vec![ManifestSource::Blob(BlobRef { digest, size })],
        ..App::default()
    };
    site.hub
        .create_release_of(
            "tampered",
            ReleaseContent {
                apps: vec![app],
                ..ReleaseContent::default()
            },
        )
        .await?;
    site.hub.assign("tampered", "blob").await?;
    let told = |node: &holdfast_protocol::operator::NodeInfo| {
        node.status
            .as_ref()
            .and_then(|status| status.generation.cause.as_ref())
            .is_some_and(|cause| cause.code == codes::BLOB_DIGEST_MISMATCH)
    };
    site.hub
        .wait_for_node("blob", "the wrong blob is told", SOON, told)
        .await?;
    ensure!(web_uid(&node).await? == before, "the running app was touched");
    ensure!(page(&node).await? == "1", "unverified content was applied");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_loses_nothing_and_heals_when_there_is_room() -> Result<()> {
    let site = Site::start().await?;
    let disk = SmallDisk::mount(&site.directory().join("full").join("state"), 8 * 1024 * 1024)?;
    let (mut node, before) = running(&site, "full").await?;
    disk.fill()?;
    site.hub
        .create_release("two", "web", web(&"2".repeat(12_000)))
        .await?;
    let generation = site.hub.assign("two", "full").await?;
    let told = |status: &StatusReport| told(status, codes::DISK_FULL);
    node.wait_for_status("the full disk is told locally", SOON, told)
        .await?;
    site.hub
        .wait_for_node("full", "the full disk is told at the hub", SOON, |node| {
            node.status.as_ref().is_some_and(told)
        })
        .await?;
    ensure!(web_uid(&node).await? == before, "the running app was touched");
    // A restart finds the disk as full as before, and must be no end of the box's words.
    node.stop().await?;
    disk.fill()?;
    node.start().await?;
    node.wait_for_status("the full disk is told locally again", SOON, told)
        .await?;
    site.hub
        .wait_for_node("full", "the full disk is told at the hub again", SOON, |node| {
            node.online && node.status.as_ref().is_some_and(told)
        })
        .await?;
    ensure!(web_uid(&node).await? == before, "the running app was touched");
    disk.free()?;
    site.hub.wait_for_proven("full", generation, SOON * 3).await?;
    ensure!(web_uid(&node).await? == before, "the running app was replaced");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_became_read_only_is_named_and_what_runs_is_left_alone() -> Result<()> {
    let site = Site::start().await?;
    let disk = SmallDisk::mount(&site.directory().join("readonly").join("state"), 8 * 1024 * 1024)?;
    let (mut node, before) = running(&site, "readonly").await?;
    // A file system that is written to cannot be made read-only by hand as a failing disk makes itself; so between two runs.
    node.stop().await?;
    disk.set_read_only(true)?;
    node.start().await?;
    node.wait_for_status("the read-only disk is told locally", SOON, |status| {
        told(status, codes::DISK_READ_ONLY)
    })
    .await?;
    site.hub
        .wait_for_node(
            "readonly",
            "the read-only disk is told at the hub",
            SOON,
            |node| {
                node.online
                    && node.health == Health::Degraded
                    && (node.status.as_ref()).is_some_and(|status| told(status, codes::DISK_READ_ONLY))
            },
        )
        .await?;
    // What comes meanwhile is not taken, and not lost.
    site.hub.create_release("two", "web", web("2")).await?;
    let generation = site.hub.assign("two", "readonly").await?;
    ensure!(web_uid(&node).await? == before, "the running app was touched");
    disk.set_read_only(false)?;
    site.hub.wait_for_proven("readonly", generation, SOON * 3).await?;
    site.hub
        .wait_for_node("readonly", "the node is back", SOON, |node| {
            node.online && node.health == Health::Healthy
        })
        .await?;
    ensure!(web_uid(&node).await? == before, "the running app was replaced");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_17_a_token_is_single_use_hashed_at_rest_and_wiped_after_use() -> Result<()> {
    let site = Site::start().await?;
    let mut node = site.prepare_node("token")?;
    let token = site.hub.create_token(&CreateToken::default()).await?.token;
    let file = node.directory.join("token");
    fs::File::create(&file)?.write_all(token.as_bytes())?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    node.start().await?;
    let file_name = file.to_string_lossy().into_owned();
    let enrolled = node
        .command(&["enrol", "--token-file", &file_name])?
        .output()
        .await?;
    ensure!(
        enrolled.status.success(),
        "{}",
        String::from_utf8_lossy(&enrolled.stderr)
    );
    ensure!(!file.exists(), "the token's file is still there");

    let mut other = site.prepare_node("other")?;
    other.start().await?;
    let refused = other.enrol(&token).await.map_err(|error| error.to_string());
    ensure!(
        refused
            .as_ref()
            .is_err_and(|error| error.contains(codes::TOKEN_SPENT)),
        "{refused:?}"
    );
    // Nowhere on either side is the token or its secret to be found.
    let secret = token.parse::<holdfast_protocol::token::EnrolmentToken>()?.secret;
    for directory in [
        node.directory.clone(),
        other.directory.clone(),
        site.hub.directory.clone(),
    ] {
        for path in files(&directory)? {
            let bytes = fs::read(&path).unwrap_or_default();
            ensure!(
                !contains(&bytes, &secret) && !contains(&bytes, token.as_bytes()),
                "the secret is in {}",
                path.display()
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_is_refused_by_name() -> Result<()> {
    let site = Site::start().await?;
    let mut node = site.prepare_node("twice")?;
    node.start().await?;
    let second = node.command(&["run"])?.output().await?;
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(!second.status.success() && told.contains("another"), "{told}");
    node.stop().await
}

fn find(directory: &Path, name: &str) -> Option<std::path::PathBuf> {
    files(directory).ok()?.into_iter().find(|path| {
        path.file_name()
            .is_some_and(|file| file.to_string_lossy().contains(name))
    })
}

fn files(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
