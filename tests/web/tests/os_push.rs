//! `holdfastctl os push` and releases of images, on a real hub.

use anyhow::{Context as _, Result};
use holdfast_harness::{Hub, images, paths};
use holdfast_os::Architecture;
use holdfast_protocol::Digest;
use serde_json::Value;
use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::{Output, Stdio},
};
use tokio::process::Command;

fn put(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    Ok(File::create(path)?.write_all(content)?)
}

fn image(directory: &Path, version: &str, architecture: Architecture) -> Result<()> {
    images::build(directory, version, architecture, 1 << 20, &images::key(1)?).map(drop)
}

/// Runs `holdfastctl` as the administrator; text of its answer, and what it told on the way.
async fn run(hub: &Hub, directory: &Path, arguments: &[&str]) -> Result<Output> {
    let output = Command::new(paths::binary("holdfastctl")?)
        .args(arguments)
        .env_clear()
        .env("XDG_CONFIG_HOME", directory.join("config"))
        .env("HOLDFAST_HUB", hub.plain_url()?)
        .env("HOLDFAST_TOKEN", hub.admin_token())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    Ok(output)
}

#[tokio::test]
async fn images_are_sent_once_and_the_printed_section_makes_a_release() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let at = directory.path();
    let hub = Hub::start(&at.join("hub")).await?;
    let images = at.join("images");
    image(&images, "2", Architecture::Amd64)?;
    image(&images, "2", Architecture::Arm64)?;
    let path = images.display().to_string();
    let pushed = run(&hub, at, &["os", "push", &path]).await?;
    let told = String::from_utf8_lossy(&pushed.stderr).into_owned();
    assert!(pushed.status.success(), "{told}");
    assert_eq!(told.matches("Sending holdfast_2_").count(), 4, "{told}");
    let section = String::from_utf8(pushed.stdout)?;
    assert!(
        section.starts_with("os:\n  version: \"2\"\n  images:\n    amd64: {digest:"),
        "{section}"
    );

    // Once more: nothing of it is sent.
    let again = run(&hub, at, &["os", "push", &path]).await?;
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(told.matches("is at the hub already").count(), 4, "{told}");
    assert!(!told.contains("Sending"), "{told}");
    assert_eq!(String::from_utf8(again.stdout)?, section);

    let release = at.join("release");
    put(&release.join("release.yaml"), section.as_bytes())?;
    let object = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: till}\n";
    put(&release.join("till/till.yaml"), object)?;
    let source = release.display().to_string();
    let made = run(&hub, at, &["release", "create", "os-2", "-f", &source]).await?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let shown = run(&hub, at, &["release", "show", "os-2"]).await?;
    assert!(String::from_utf8(shown.stdout)?.contains("OS        2 for amd64, arm64"));

    // A pack that someone changed is found before anything is sent.
    image(&images, "3", Architecture::Amd64)?;
    put(&images.join("holdfast_3_amd64.pack"), b"other")?;
    let refused = run(&hub, at, &["os", "push", &path, "-o", "json"]).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let problem: Value = serde_json::from_str(said.lines().last().context("it says why")?)?;
    assert_eq!(problem["code"], "release-invalid");
    assert!(!said.contains("Sending"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_release_is_written_as_a_seed_without_a_hub_and_what_only_a_hub_knows_is_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let at = directory.path();
    let ctl = async |arguments: &[&str]| -> Result<Output> {
        let mut command = Command::new(paths::binary("holdfastctl")?);
        command.args(arguments).env_clear().env("XDG_CONFIG_HOME", at);
        Ok(command.stdin(Stdio::null()).output().await?)
    };
    let release = at.join("release");
    let app =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: till}\ndata: {site: \"${node.labels.site}\"}\n";
    put(&release.join("till/till.yaml"), app.as_bytes())?;
    put(&release.join("images/till.tar"), b"an archive")?;
    put(
        &release.join("release.yaml"),
        b"apps: {till: {images: {amd64: [{file: images/till.tar}]}}}\n",
    )?;
    let source = release.display().to_string();
    let out = at.join("seed");
    let seed = out.display().to_string();
    let arguments = [
        "release",
        "render",
        "-f",
        &source,
        "--label",
        "site=berlin",
        "--seed",
        &seed,
    ];
    let written = ctl(&arguments).await?;
    assert!(
        written.status.success(),
        "{}",
        String::from_utf8_lossy(&written.stderr)
    );
    let json: Value = serde_json::from_slice(&fs::read(out.join("release.json"))?)?;
    let object = &json["content"]["apps"][0]["manifests"][0]["inline"][0];
    assert_eq!(object["data"]["site"], "berlin");
    let archive = out.join("artifacts/sha256").join(Digest::of(b"an archive").hex());
    assert_eq!(fs::read(archive)?, b"an archive");
    let again = ctl(&arguments).await?;
    assert!(!again.status.success(), "what is there is not overwritten");

    put(
        &release.join("till/till.yaml"),
        app.replace("labels.site", "name").as_bytes(),
    )?;
    let other = at.join("other").display().to_string();
    let refused = ctl(&["release", "render", "-f", &source, "--seed", &other]).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("values that differ between nodes"), "{said}");
    Ok(())
}
