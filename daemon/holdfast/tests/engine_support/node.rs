//! A node in this process: the whole engine, with a state directory of its own.

use super::{PATIENCE, broker::Hub, cluster};
use anyhow::{Context as _, Result};
use holdfast::{
    identity::{DeviceKey, Identity, clock::TimeFloor, prepare_state_dir, write_private},
    local_api::view::RunningNode,
    node,
    settings::Settings,
};
use holdfast_harness::Kubectl;
use holdfast_protocol::{
    Generation,
    report::{Phase, StatusReport},
};
use holdfast_store::{Options, Store};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use std::{fmt::Write as _, fs, path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// A node, running or not.
pub struct Node {
    pub name: String,
    pub directory: TempDir,
    pub settings: Settings,
    pub kubectl: Kubectl,
    running: Option<Running>,
}

struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<Result<()>>,
    handle: Arc<dyn RunningNode>,
    store: Arc<Store>,
}

impl Node {
    /// An enrolled node that does not run yet, on the shared cluster.
    pub async fn enrolled(hub: &Hub, name: &str) -> Result<Self> {
        let kubectl = cluster::shared().await?;
        let directory = TempDir::new()?;
        let state = directory.path().join("state");
        let mut settings = Settings {
            state_dir: state.clone(),
            socket: directory.path().join("socket"),
            ..Settings::default()
        };
        settings.kubernetes.supervise = false;
        settings.kubernetes.kubeconfig.clone_from(&kubectl.kubeconfig);
        settings.sync.backoff_min = Duration::from_millis(50);
        settings.sync.backoff_max = Duration::from_millis(500);
        settings.report.min_interval = Duration::from_millis(200);
        prepare_state_dir(&state)?;
        let identity = settings.identity_dir();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        write_private(&identity.join("device.key"), key.serialize_pem().as_bytes())?;
        Identity {
            node: name.parse()?,
            hub_url: "https://localhost:1".into(),
            brokers: vec![format!("mqtts://localhost:{}", hub.port)],
            trust: hub.trust.clone(),
            public_roots: false,
            enrolled_by: None,
            certificate: hub.certificate(name, &key)?,
            ca_certificates: hub.ca_pem.clone(),
            key: Arc::new(DeviceKey::load(&identity)?.context("the key was just written")?),
            sealing: Some(Identity::load_or_make_sealing(&identity)?),
            told_sealing: None,
            seed: None,
        }
        .store(&identity)?;
        Ok(Self {
            name: name.to_owned(),
            directory,
            settings,
            kubectl,
            running: None,
        })
    }

    /// As [`Self::enrolled`], and runs it.
    pub async fn start(hub: &Hub, name: &str) -> Result<Self> {
        let mut node = Self::enrolled(hub, name).await?;
        node.run().await?;
        Ok(node)
    }

    /// Runs it.
    pub async fn run(&mut self) -> Result<()> {
        let directory = self.settings.identity_dir();
        let identity = Identity::load(&directory)?.context("the node is enrolled")?;
        let (_, identity) = watch::channel(Arc::new(identity));
        let store = Arc::new(Store::open(&self.settings.state_dir, Options::default())?);
        let floor = Arc::new(TimeFloor::open(&directory)?);
        let shutdown = CancellationToken::new();
        let (sender, mut handle) = watch::channel(None);
        let task = tokio::spawn(node::run(
            Arc::new(self.settings.clone()),
            identity,
            store.clone(),
            floor,
            shutdown.clone(),
            sender,
        ));
        let handle = timeout(PATIENCE, handle.wait_for(Option::is_some))
            .await??
            .clone()
            .context("just seen")?;
        self.running = Some(Running {
            shutdown,
            task,
            handle,
            store,
        });
        Ok(())
    }

    /// Ends it in good order.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(running) = self.running.take() {
            running.shutdown.cancel();
            timeout(PATIENCE, running.task).await???;
        }
        Ok(())
    }

    /// Ends it without a word.
    pub fn abandon(&mut self) {
        if let Some(running) = self.running.take() {
            running.task.abort();
        }
    }

    /// Its status now.
    pub fn status(&self) -> Result<StatusReport> {
        Ok(self.running.as_ref().context("it runs")?.handle.status())
    }

    /// The running node.
    pub fn handle(&self) -> Result<Arc<dyn RunningNode>> {
        Ok(self.running.as_ref().context("it runs")?.handle.clone())
    }

    /// Its store.
    pub fn store(&self) -> Result<Arc<Store>> {
        Ok(self.running.as_ref().context("it runs")?.store.clone())
    }

    /// Waits for a status.
    pub async fn until(&self, what: &str, condition: impl Fn(&StatusReport) -> bool) -> Result<StatusReport> {
        let seen = holdfast_harness::wait::until(what, PATIENCE, async || {
            let status = self.status()?;
            Ok(condition(&status).then_some(status))
        })
        .await;
        seen.with_context(|| format!("{:#?}", self.status()))
    }

    /// Waits until this document is applied and ready.
    pub async fn until_proven(&self, counter: u64) -> Result<StatusReport> {
        let wanted = Generation { epoch: 1, counter };
        self.until(&format!("document 1.{counter} is proven"), |status| {
            status.generation.proven == Some(wanted) && status.generation.phase == Phase::Committed
        })
        .await
    }

    /// A document for this node.
    pub fn document(&self, counter: u64, apps: &[Value]) -> Value {
        json!({
            "schema": "1.0", "node": self.name, "generation": format!("1.{counter}"),
            "issuedAt": "2026-01-01T00:00:00Z", "apps": apps
        })
    }

    /// Signs and publishes a document for this node.
    pub async fn publish(&self, hub: &Hub, counter: u64, apps: &[Value]) -> Result<()> {
        let envelope = hub.sign(&self.document(counter, apps));
        hub.publish(&self.name, envelope.to_json()).await
    }

    /// Signs and publishes any document for this node.
    pub async fn publish_document(&self, hub: &Hub, document: &Value) -> Result<()> {
        hub.publish(&self.name, hub.sign(document).to_json()).await
    }

    /// Writes a document where an enrolment leaves the first one.
    pub fn leave_first_document(&self, hub: &Hub, counter: u64, apps: &[Value]) -> Result<()> {
        self.leave_document(hub, &self.document(counter, apps))
    }

    /// As [`Self::leave_first_document`], with any document.
    pub fn leave_document(&self, hub: &Hub, document: &Value) -> Result<()> {
        let envelope = hub.sign(document);
        write_private(
            &self.settings.identity_dir().join("first-desired.json"),
            &envelope.to_json(),
        )?;
        Ok(())
    }

    /// Writes the settings that a daemon of its own process needs to be this node, without a link.
    pub fn write_settings(&self) -> Result<PathBuf> {
        let settings = &self.settings;
        let kubernetes = &settings.kubernetes;
        let mut text = String::new();
        writeln!(text, "state_dir = {:?}", settings.state_dir)?;
        writeln!(text, "socket = {:?}", settings.socket)?;
        writeln!(text, "[sync]\nenabled = false\n[kubernetes]")?;
        writeln!(text, "kubeconfig = {:?}", kubernetes.kubeconfig)?;
        writeln!(text, "supervise = {}", kubernetes.supervise)?;
        if let Some(bus) = &kubernetes.systemd_bus {
            writeln!(text, "systemd_bus = {bus:?}")?;
        }
        if kubernetes.supervise {
            writeln!(text, "binary = {:?}", kubernetes.binary)?;
            writeln!(text, "https_port = {}", kubernetes.https_port)?;
            writeln!(text, "data_dir = {:?}", kubernetes.data_dir)?;
            if let Some(log) = &kubernetes.log_file {
                writeln!(text, "log_file = {log:?}")?;
            }
            writeln!(text, "restart_min = \"{}ms\"", kubernetes.restart_min.as_millis())?;
        }
        let file = self.path("holdfast.toml");
        fs::write(&file, text)?;
        Ok(file)
    }

    /// An object of the cluster.
    pub async fn object(&self, namespace: &str, kind: &str, name: &str) -> Result<Option<Value>> {
        self.kubectl.get(namespace, kind, name).await
    }

    /// A path in the node's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}
