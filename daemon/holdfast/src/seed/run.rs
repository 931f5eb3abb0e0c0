//! Running the seed, and handing over to the node of a hub.
//!
//! In: a box without a hub. Out: its node, until the box enrols. Guarantees: the node ends in good order before the next one begins, Kubernetes and
//! what runs in it go on meanwhile, and keep the name of their node.

use super::identity;
use crate::{
    identity::{Identity, clock::TimeFloor},
    local_api::view::RunningNode,
    node,
    settings::Settings,
};
use holdfast_protocol::Problem;
use holdfast_store::Store;
use std::sync::Arc;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// The node that runs the seed.
pub struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    shown: watch::Sender<Option<Arc<dyn RunningNode>>>,
}

/// Runs the seed of the image while there is no hub; nothing where there is none, or where the box ran documents of a hub before. The node is shown
/// in `shown`, and ends with `shutdown` at the latest.
pub fn start(
    settings: &Settings,
    store: &Arc<Store>,
    floor: &Arc<TimeFloor>,
    shutdown: &CancellationToken,
    shown: &watch::Sender<Option<Arc<dyn RunningNode>>>,
) -> Result<Option<Running>, Problem> {
    let Some(identity) = identity(settings, store, floor.now())? else {
        return Ok(None);
    };
    tracing::info!(node = %identity.node, "running the release that came with the image, until a hub sends one");
    let mut settings = settings.clone();
    settings.sync.enabled = false;
    let (_, current) = watch::channel(Arc::new(identity));
    let shutdown = shutdown.child_token();
    let task = tokio::spawn(node::run(
        Arc::new(settings),
        current,
        store.clone(),
        floor.clone(),
        shutdown.clone(),
        shown.clone(),
    ));
    Ok(Some(Running {
        shutdown,
        task,
        shown: shown.clone(),
    }))
}

impl Running {
    /// Ends it in good order. Kubernetes and what runs in it go on.
    pub async fn end(self) {
        self.shutdown.cancel();
        match self.task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("the seed could not be run: {error:#}"),
            Err(error) => tracing::warn!(%error, "the node that ran the seed ended early"),
        }
        self.shown.send_replace(None);
    }
}

/// The settings of the node of a hub. The Kubernetes node keeps the name that it had while the seed ran: under another one it would be a new node,
/// and the pods of the old one would be lost. Events from before the enrolment get the name that the hub gave.
pub fn settings_after(settings: &Arc<Settings>, store: &Store, identity: &Identity) -> Arc<Settings> {
    let Some(seed) = identity.seed.as_ref().filter(|seed| seed.node != identity.node) else {
        return settings.clone();
    };
    if let Err(error) = store.rename_events(&seed.node, &identity.node) {
        tracing::warn!(%error, "events from before the enrolment name the box as it was called then");
    }
    let kubernetes = &settings.kubernetes;
    if !kubernetes.supervise || kubernetes.node_name.is_some() {
        return settings.clone();
    }
    let mut settings = settings.as_ref().clone();
    settings.kubernetes.node_name = Some(seed.node.to_string());
    Arc::new(settings)
}
