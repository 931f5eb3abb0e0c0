//! A box whose disk takes nothing when the daemon starts: it says so, at the box and at the hub, instead of ending again and again.
//!
//! In: why the daemon could not be built. Out: that problem, through the local API and as the status at the hub, until the disk takes
//! something again. It guarantees: nothing but one small trial file is written; no document is taken or acknowledged, so the broker keeps
//! it; no event is told, as none could be kept in order; Kubernetes is neither started nor touched. What is known of the documents is in
//! the store, which is not open, so the report has none of it.

use crate::{
    foresee::Foresight,
    health::{Check, STATE_PARTITION},
    identity::{Identity, clock::TimeFloor},
    local_api::{
        self, Surroundings,
        view::{LinkView, NodeDetails, PauseOrder, RollbackOrder, RunningNode},
    },
    pace::Pace,
    reconcile::orders::{Paused, Resumed, RollingBack},
    report::agent,
    settings::Settings,
    sync::{Link, LinkState, Mailbox, OutboxRow, Signals},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_core::plan::Plan;
use holdfast_protocol::{
    NodeId, Problem, SchemaVersion, codes,
    document::DesiredState,
    report::{Condition, GenerationStatus, Health, KubernetesStatus, MachineFacts, StatusReport},
};
use holdfast_store::fs::{PRIVATE_FILE, write_atomic};
use jiff::Timestamp;
use serde_json::Map;
use std::{fs, io, path::Path, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// Shortest wait before the disk is tried again.
const TRY_MIN: Duration = Duration::from_secs(2);
/// The longest: whoever freed a disk looks at the box for about as long.
const TRY_MAX: Duration = Duration::from_mins(1);
/// What is written to see whether the disk takes anything: as much as the store writes for its first document.
const TRIAL_BYTES: usize = 64 * 1024;
/// Name of the file that is written for it.
const TRIAL_FILE: &str = ".trial";

/// Whether a start that failed so can work later without anybody doing anything to Holdfast.
pub fn is_of_the_disk(problem: &Problem) -> bool {
    [codes::DISK_FULL, codes::DISK_READ_ONLY].contains(&problem.code.as_ref())
}

/// How long to wait between two tries. It is one for the whole life of a process: a disk that takes a trial and not the start is no reason
/// to hurry.
pub fn pace() -> Pace {
    Pace::new(TRY_MIN, TRY_MAX)
}

/// Tells of the problem until the disk takes something again. Cutting it off is safe at any point.
pub async fn tell_until_it_passes(settings: &Arc<Settings>, problem: Problem, pace: &mut Pace) {
    tracing::error!(code = %problem.code, action = %problem.action,
        "the daemon cannot start, and only tells of it until the disk takes something: {}", problem.message);
    let shutdown = CancellationToken::new();
    let mut parts = JoinSet::new();
    tell(settings, problem, &shutdown, &mut parts);
    loop {
        sleep(pace.next_wait()).await;
        match try_disk(&settings.state_dir) {
            Ok(()) => break,
            Err(error) => tracing::debug!(%error, "the disk takes nothing yet"),
        }
    }
    tracing::info!("the disk takes something again");
    shutdown.cancel();
    // The socket is needed for the daemon itself.
    parts.shutdown().await;
}

fn try_disk(state_dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let path = state_dir.join(TRIAL_FILE);
    let written = write_atomic(&path, &vec![0xa5; TRIAL_BYTES], PRIVATE_FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(written?)
}

fn tell(settings: &Arc<Settings>, problem: Problem, shutdown: &CancellationToken, parts: &mut JoinSet<()>) {
    let directory = settings.identity_dir();
    let floor = TimeFloor::open(&directory).ok();
    let identity = Identity::load(&directory).unwrap_or_else(|error| {
        tracing::warn!(%error, "without an identity the hub cannot be told");
        None
    });
    let identity = identity.map(Arc::new);
    let (link, link_state) = watch::channel(LinkState::default());
    let node = identity.as_ref().map(|identity| {
        Arc::new(Mute {
            node: identity.node.clone(),
            since: now(floor.as_ref()),
            floor,
            problem: problem.clone(),
            link: link_state,
            enabled: settings.sync.enabled,
        })
    });
    // Who cannot be told apart from a box that is not enrolled is told what is wrong in the same place.
    let (_, enrolment_problem) = watch::channel(node.is_none().then_some(problem));
    let running = node.clone().map(|node| node as Arc<dyn RunningNode>);
    let (enrol, orders) = mpsc::channel(1);
    // Nobody can be enrolled: the identity could not be written.
    drop(orders);
    let surroundings = Surroundings {
        settings: settings.clone(),
        identity: watch::channel(identity.clone()).1,
        enrolment_problem,
        node: watch::channel(running).1,
        store: None,
        enrol,
    };
    match local_api::bind(&settings.socket) {
        Ok(socket) => drop(parts.spawn(local_api::serve(socket, Arc::new(surroundings)))),
        Err(error) => tracing::warn!(%error, "the box itself cannot be asked"),
    }
    let (Some(identity), Some(node), true) = (identity, node, settings.sync.enabled) else {
        return;
    };
    let link = Link {
        settings: settings.clone(),
        identity: watch::channel(identity).1,
        signals: Signals::default(),
        state: link,
        shutdown: shutdown.clone(),
    };
    parts.spawn(link.run(node));
}

fn now(floor: Option<&TimeFloor>) -> Timestamp {
    floor.map_or_else(Timestamp::now, TimeFloor::now)
}

/// A node that can only say why it does nothing.
struct Mute {
    node: NodeId,
    floor: Option<TimeFloor>,
    since: Timestamp,
    problem: Problem,
    link: watch::Receiver<LinkState>,
    enabled: bool,
}

impl Mute {
    fn refuse<T: Send + 'static>(&self) -> BoxFuture<'_, Result<T, Problem>> {
        Box::pin(std::future::ready(Err(self.problem.clone())))
    }
}

impl RunningNode for Mute {
    fn status(&self) -> StatusReport {
        StatusReport {
            schema: SchemaVersion::CURRENT,
            node: self.node.clone(),
            // Counted in the store. The hub takes the report for news by its time, where the clock can be trusted.
            sequence: 0,
            reported_at: now(self.floor.as_ref()),
            clock_trusted: (self.floor.as_ref()).is_some_and(TimeFloor::is_system_clock_trusted),
            agent: agent(),
            generation: GenerationStatus::default(),
            health: Health::Degraded,
            os: None,
            kubernetes: KubernetesStatus {
                health: Health::Unknown,
                ..KubernetesStatus::default()
            },
            apps: Vec::new(),
            conditions: vec![Condition {
                problem: self.problem.clone(),
                since: self.since,
            }],
            machine: MachineFacts::default(),
            extra: Map::new(),
        }
    }

    fn link(&self) -> LinkView {
        LinkView::of(&self.link.borrow(), self.enabled, 0)
    }

    fn health(&self) -> Vec<Check> {
        vec![Check::of(STATE_PARTITION, Some(self.problem.clone()))]
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn details(&self) -> NodeDetails {
        NodeDetails::default()
    }

    fn plan(&self) -> BoxFuture<'_, Result<Plan, Problem>> {
        self.refuse()
    }

    fn foresee(&self, _: DesiredState) -> BoxFuture<'_, Result<Foresight, Problem>> {
        self.refuse()
    }

    fn pause(&self, _: PauseOrder) -> BoxFuture<'_, Result<Paused, Problem>> {
        self.refuse()
    }

    fn resume(&self) -> BoxFuture<'_, Result<Resumed, Problem>> {
        self.refuse()
    }

    fn roll_back(&self, _: RollbackOrder) -> BoxFuture<'_, Result<RollingBack, Problem>> {
        self.refuse()
    }
}

impl Mailbox for Arc<Mute> {
    fn desired(&mut self, _: &[u8]) -> Result<(), Problem> {
        Err(self.problem.clone())
    }

    fn outbox(&mut self, _: u64, _: usize) -> Result<Vec<OutboxRow>, Problem> {
        Ok(Vec::new())
    }

    fn delivered(&mut self, _: &[u64]) -> Result<(), Problem> {
        Ok(())
    }

    fn status(&mut self) -> Option<Bytes> {
        serde_json::to_vec(&RunningNode::status(&**self))
            .map(Bytes::from)
            .ok()
    }
}
