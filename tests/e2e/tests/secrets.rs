//! A secret on its whole way, from the operator's machine to the app, and nowhere in the clear in between.

use anyhow::{Context as _, Result, ensure};
use holdfast_e2e::{SOON, config_map};
use holdfast_harness::{Site, paths, site::KUBERNETES, wait};
use holdfast_protocol::{
    document::{App, ManifestSource, SealedSecret, SealedValue},
    operator::ReleaseContent,
};
use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output},
};

const FIRST: &str = "first-value-in-the-clear";
const SECOND: &str = "second-value-in-the-clear";
/// Both in base64, as Kubernetes has them.
const FIRST_ENCODED: &str = "Zmlyc3QtdmFsdWUtaW4tdGhlLWNsZWFy";
const SECOND_ENCODED: &str = "c2Vjb25kLXZhbHVlLWluLXRoZS1jbGVhcg==";

/// Files below `directory` that hold one of the values; Kubernetes' own data apart, for it must have them.
fn in_the_clear(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "k3s") {
                found.extend(in_the_clear(&path)?);
            }
            continue;
        }
        let Ok(bytes) = fs::read(&path) else { continue };
        for text in [FIRST, SECOND, FIRST_ENCODED, SECOND_ENCODED] {
            if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                found.push(format!("{text} in {}", path.display()));
            }
        }
    }
    Ok(found)
}

/// Runs holdfastctl with a value at its standard input, as the administrator.
fn holdfastctl(site: &Site, arguments: &[&str], input: &Path) -> Result<Output> {
    Ok(Command::new(paths::binary("holdfastctl")?)
        .args(arguments)
        .env("HOLDFAST_HUB", site.hub.plain_url()?)
        .env("HOLDFAST_TOKEN", site.hub.admin_token())
        .stdin(fs::File::open(input)?)
        .output()?)
}

fn set(site: &Site, value: &str) -> Result<String> {
    // Outside of everything that is searched.
    let directory = std::env::temp_dir().join(format!("holdfast-value-{}", std::process::id()));
    fs::File::create(&directory)?.write_all(value.as_bytes())?;
    let arguments = [
        "secret",
        "set",
        "till-password",
        "--node",
        "sealed",
        "--from-file",
        "-",
    ];
    let done = holdfastctl(site, &arguments, &directory);
    fs::remove_file(&directory)?;
    let done = done?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let complained = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{said}{complained}");
    ensure!(
        !said.contains(value) && !complained.contains(value),
        "{said}{complained}"
    );
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_reaches_its_app_and_is_nowhere_in_the_clear() -> Result<()> {
    let (site, _broker) = Site::start_with_mosquitto().await?;
    let node = site.enrolled_node("sealed").await?;
    let key = site
        .hub
        .node("sealed")
        .await?
        .sealing_key
        .context("the hub knows the node's key")?;
    let said = set(&site, FIRST)?;
    ensure!(
        said.contains("sealed") && said.contains(&key.digest().to_string()),
        "{said}"
    );

    let app = App {
        name: "till".into(),
        manifests: vec![ManifestSource::Inline(vec![config_map("page", "1")])],
        secrets: vec![SealedSecret {
            name: "till".into(),
            namespace: None,
            kind: None,
            data: [(
                "password".to_owned(),
                SealedValue {
                    source: "till-password".into(),
                    sealed: None,
                },
            )]
            .into(),
        }],
        ..App::default()
    };
    let content = ReleaseContent {
        apps: vec![app],
        ..ReleaseContent::default()
    };
    site.hub.create_release_of("till", content).await?;
    let generation = site.hub.assign("till", "sealed").await?;
    site.hub.wait_for_proven("sealed", generation, KUBERNETES).await?;
    let value = async || -> Result<Value> {
        let secret = node.kubectl.get("default", "secret", "till").await?;
        Ok(secret.context("the Secret is there")?["data"]["password"].clone())
    };
    ensure!(value().await? == FIRST_ENCODED);

    // Sealed again, it goes to the box by itself.
    let said = set(&site, SECOND)?;
    ensure!(said.contains("sent as generation"), "{said}");
    wait::until("the new value is at the app", SOON, || async {
        Ok((value().await? == SECOND_ENCODED).then_some(()))
    })
    .await?;

    let found = in_the_clear(&site.directory())?;
    ensure!(found.is_empty(), "{found:#?}");
    Ok(())
}
