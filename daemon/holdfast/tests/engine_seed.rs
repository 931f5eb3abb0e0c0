//! A box that was flashed and never heard of a hub runs what came with its image, and gives way to the first document of a hub.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;
mod engine_support;

use anyhow::{Context as _, Result, bail};
use common::hub::{Deed, TestHub};
use engine_support::{PATIENCE, app, config_map, k3s::EndsWithTest};
use holdfast::{
    codes,
    daemon::{Daemon, Running},
    local_api::{
        client::ask,
        view::{EnrolOrder, LocalStatus},
    },
    settings::Settings,
};
use holdfast_harness::{Kubectl, paths, wait};
use holdfast_protocol::{
    Generation,
    envelope::{DESIRED_STATE_TYPE, Envelope},
    event::Event,
    report::{Health, Phase},
};
use holdfast_release::{
    directory::{Options, load},
    seed,
};
use holdfast_store::{Options as StoreOptions, Store};
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration,
};
use tempfile::TempDir;

/// A box that is not enrolled, with a Kubernetes of its own that does not run yet.
struct Flashed {
    directory: TempDir,
    settings: Settings,
    kubectl: Kubectl,
}

impl Flashed {
    fn new() -> Result<Self> {
        holdfast_harness::install_tls_provider();
        let directory = TempDir::new()?;
        let at = |name: &str| directory.path().join(name);
        let mut settings = Settings {
            state_dir: at("state"),
            socket: at("socket"),
            ..Settings::default()
        };
        settings.artifacts.seed = at("seed");
        settings.artifacts.baked = at("artifacts");
        settings.sync.enabled = false;
        settings.enrolment.name = Some("till-9".into());
        settings.enrolment.token_file = None;
        settings.enrolment.kernel_command_line = at("cmdline");
        let data = at("kubernetes");
        let kubernetes = &mut settings.kubernetes;
        kubernetes.supervise = true;
        kubernetes.binary = paths::k3s()?.display().to_string();
        kubernetes.data_dir = data.join("data");
        kubernetes.kubeconfig = data.join("k3s.yaml");
        kubernetes.https_port = holdfast_harness::port::reserve()?;
        kubernetes.log_file = Some(data.join("log"));
        kubernetes.restart_min = Duration::from_millis(100);
        let kubectl = Kubectl {
            k3s: paths::k3s()?,
            kubeconfig: settings.kubernetes.kubeconfig.clone(),
        };
        Ok(Self {
            directory,
            settings,
            kubectl,
        })
    }

    /// Writes the seed as an operator does, of a release with a small app and one that becomes a blob.
    fn bake(&self) -> Result<()> {
        let release = self.directory.path().join("release");
        for (name, value) in [("small", "1".to_owned()), ("large", "x".repeat(20_000))] {
            fs::create_dir_all(release.join(name))?;
            let object = config_map(name, &value);
            fs::write(release.join(name).join("settings.json"), object.to_string())?;
        }
        fs::write(release.join("release.yaml"), "policy: {stabilitySeconds: 0}\n")?;
        let loaded = load(&release, &Options::default())?;
        let written = seed::write(&loaded, &BTreeMap::new(), &self.settings.artifacts.seed)?;
        assert_eq!(written.notes, Vec::<String>::new());
        Ok(())
    }

    async fn start(&self) -> Result<Running> {
        Ok(Daemon::build(Arc::new(self.settings.clone())).await?.spawn())
    }

    async fn status(&self) -> Result<LocalStatus> {
        let text = ask(&self.settings.socket, Method::GET, "/v1/status", Vec::new()).await?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Waits until this generation is proven.
    async fn until_proven(&self, generation: &str) -> Result<LocalStatus> {
        let wanted: Generation = generation.parse()?;
        wait::until(&format!("{generation} is proven"), PATIENCE, async || {
            let status = self.status().await?;
            let report = status.report.as_ref().context("no node runs")?;
            if report.generation.proven == Some(wanted) && report.generation.phase == Phase::Committed {
                return Ok(Some(status));
            }
            bail!("{:?} {:?}", report.generation, report.kubernetes)
        })
        .await
    }

    async fn value(&self, name: &str) -> Result<Option<Value>> {
        let found = self.kubectl.get("default", "configmap", name).await?;
        Ok(found.map(|object| object["data"]["key"].clone()))
    }
}

#[tokio::test]
async fn a_box_without_a_hub_runs_what_came_with_its_image_until_a_hub_says_otherwise() -> Result<()> {
    let node = Flashed::new()?;
    node.bake()?;
    let _end = EndsWithTest(node.settings.kubernetes_pid_file());
    let running = node.start().await?;
    let status = node.until_proven("0.1").await?;
    assert!(!status.enrolled, "nobody enrolled it");
    assert_eq!(node.value("small").await?, Some(json!("1")));
    assert_eq!(node.value("large").await?, Some(json!("x".repeat(20_000))));

    // What was taken is kept: neither a restart nor another image touches it, and drift is put back.
    running.drain().await?;
    fs::remove_dir_all(&node.settings.artifacts.seed)?;
    node.kubectl
        .run(&["delete", "configmap", "small", "--namespace", "default"])
        .await?;
    let running = node.start().await?;
    wait::until("it is put back", PATIENCE, async || node.value("small").await).await?;

    let hub = TestHub::start().await;
    let document = json!({
        "schema": "1.0", "node": "shop-17", "generation": "1.1", "issuedAt": "2026-01-01T00:00:00Z",
        "apps": [app("other", "default", &[config_map("other", "2")])]
    });
    let payload = serde_json::to_vec(&document)?;
    let desired = Envelope::sign(DESIRED_STATE_TYPE, payload, &[&hub.signer]);
    hub.next(Deed::Forge(Box::new(|answer| answer.desired = Some(desired))));
    let order = EnrolOrder {
        token: hub.token("one").to_string(),
    };
    ask(
        &node.settings.socket,
        Method::POST,
        "/v1/enrol",
        serde_json::to_vec(&order)?,
    )
    .await?;
    let status = node.until_proven("1.1").await?;
    assert_eq!(status.node.context("it has a name now")?.as_str(), "shop-17");
    assert_eq!(node.value("other").await?, Some(json!("2")));
    assert_eq!(node.value("small").await?, None);
    assert_eq!(node.value("large").await?, None);
    // The hub's name for the box is another one than its own was; the node of Kubernetes stays the same.
    let status = wait::until("its node is ready", PATIENCE, async || {
        let report = node.status().await?.report.context("it runs")?;
        Ok((report.kubernetes.health == Health::Healthy).then_some(report))
    })
    .await?;
    assert_eq!(status.kubernetes.cause, None);
    assert!(node.kubectl.get("", "node", "till-9").await?.is_some());
    assert!(node.kubectl.get("", "node", "shop-17").await?.is_none());

    // A restart takes up the hub's document, with the seed to go back to.
    running.drain().await?;
    let store = Store::open(&node.settings.state_dir, StoreOptions::default())?;
    let events: Vec<Event> = store
        .pending_events(1_000)?
        .iter()
        .map(|event| serde_json::from_slice(&event.payload))
        .collect::<Result<_, _>>()?;
    assert!(events.len() > 3 && events.iter().all(|event| event.node.as_str() == "shop-17"));
    let fallback = store.recover()?.fallback.context("the seed was proven")?;
    assert_eq!(fallback.generation.to_string(), "0.1");
    drop(store);
    let running = node.start().await?;
    node.until_proven("1.1").await?;
    running.drain().await?;
    Ok(())
}

/// The problem that a box without a hub tells.
async fn told(node: &Flashed) -> Result<Option<String>> {
    let running = node.start().await?;
    let status = node.status().await?;
    assert!(status.report.is_none(), "nothing runs");
    running.drain().await?;
    Ok(status.enrolment_problem.map(|problem| problem.code.into_owned()))
}

#[tokio::test]
async fn a_seed_that_others_could_have_written_or_that_is_damaged_has_no_effect() -> Result<()> {
    let node = Flashed::new()?;
    assert_eq!(told(&node).await?, None, "an image without a seed is fine");
    node.bake()?;
    let file = node.settings.artifacts.seed.join(seed::FILE);
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    mode(&file, 0o666)?;
    assert_eq!(told(&node).await?.as_deref(), Some(codes::SEED_UNUSABLE));
    mode(&file, 0o644)?;
    // A file that is another one than the release names.
    for entry in fs::read_dir(node.settings.artifacts.seed.join(seed::ARTIFACTS))? {
        let path = entry?.path();
        let size = fs::metadata(&path)?.len() as usize;
        fs::write(&path, " ".repeat(size))?;
    }
    assert_eq!(told(&node).await?.as_deref(), Some(codes::SEED_UNUSABLE));
    fs::write(&file, "{}")?;
    assert_eq!(
        told(&node).await?.as_deref(),
        Some(holdfast_release::codes::RELEASE_INVALID)
    );
    // Nothing was stored by any of it.
    let store = Store::open(&node.settings.state_dir, StoreOptions::default())?;
    assert_eq!(store.highest()?, None);
    Ok(())
}
