//! Brings Kubernetes up and keeps it up, for as long as the daemon runs.
//!
//! In: the order to run as a target says or to stand still, and hints from those who use Kubernetes that it does not answer. Out: a
//! [`KubernetesState`] that always says what is known now. It guarantees: starts are paced and never given up; the API is polled only
//! until it is ready; from then on its loss is learnt from the end of the process or from a failed request, and the state of our node from a
//! watch.

use super::{
    KubernetesError, agent, client,
    cluster::Cluster,
    control::{Order, Orders},
    own_node::{OwnNode, Seen},
    process::bound_log,
    supervisor::Supervisor,
    target::K3sTarget,
};
use crate::{pace::Pace, telemetry::metrics::METRICS};
use holdfast_protocol::{Problem, document::K3sRole, report::Health};
use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

/// A k3s that ran at least this long was healthy; its next end is a first one again.
const HEALTHY_LIFE: Duration = Duration::from_mins(1);
/// How often the size of k3s's log is looked at. A look reads one directory entry and writes nothing.
const LOG_CHECK: Duration = Duration::from_mins(10);
/// Longest wait for the answer of one readiness question.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait between readiness questions once a start took longer than any should.
const LATE_POLL: Duration = Duration::from_secs(10);
/// First wait between readiness questions; it doubles up to the setting.
const READY_POLL_MIN: Duration = Duration::from_millis(20);

/// How long the node may be not ready before that is more than a start or a short trouble. A kubelet on a slow box, with the images of
/// k3s to be unpacked first, takes about two minutes for its first start.
const NODE_PATIENCE: Duration = Duration::from_mins(3);

/// What is known of Kubernetes.
#[derive(Clone, Debug, Default)]
pub struct KubernetesState {
    /// Healthy once its API and our node are ready, starting is progressing.
    pub health: Health,
    /// Its version, where it answered.
    pub version: Option<String>,
    /// Times that it was started by this process of Holdfast.
    pub restarts: u32,
    /// Why it is not ready.
    pub cause: Option<Problem>,
    /// How to reach it, while its API is ready: all that writing objects needs.
    pub cluster: Option<Arc<Cluster>>,
    /// Whether it is an agent whose kubelet is ready: one without an API of its own, which has nothing to be applied to.
    pub agent: bool,
}

/// Work on the files of Kubernetes that has to be done before each start, while it stands still: the datastore is brought to its place, damage is
/// repaired. It may block.
pub type BeforeStart = Arc<dyn Fn(&K3sTarget) -> Result<(), KubernetesError> + Send + Sync>;

/// What the runner needs of its surroundings.
pub struct Runner {
    /// Where k3s writes its access file.
    pub kubeconfig: PathBuf,
    /// Whether Holdfast starts Kubernetes; else nobody is known to write that file.
    pub supervised: bool,
    /// k3s's log, to keep it bounded.
    pub log: Option<PathBuf>,
    /// Longest wait between readiness questions.
    pub ready_poll: Duration,
    /// Which node is this box.
    pub node: OwnNode,
    /// Longest time of one request.
    pub request_timeout: Duration,
    /// Paces the starts.
    pub pace: Pace,
    /// What Kubernetes is to do.
    pub orders: Orders,
    /// Done before each start.
    pub before_start: BeforeStart,
    /// Told when Kubernetes has to be started anew, for the sake of a repair.
    pub restart: Arc<Notify>,
    /// Told by whoever sees that Kubernetes does not answer.
    pub doubt: Arc<Notify>,
    /// Where the state is told.
    pub state: watch::Sender<KubernetesState>,
}

impl Runner {
    /// Runs until it is dropped.
    pub async fn run(mut self, mut supervisor: impl Supervisor) {
        self.orders.begun().await;
        loop {
            let (target, adopt_only) = match self.orders.newest() {
                Order::Run(target) => (target, false),
                Order::Adopt(target) => (target, true),
                Order::Stop => {
                    self.not_ready(Health::Progressing, Some(&KubernetesError::Switching));
                    let stopped = supervisor.stop().await;
                    self.orders.tell(stopped);
                    self.orders.changed().await;
                    continue;
                }
            };
            let begun = match supervisor.runs_as(&target).await {
                Ok(true) => Ok(()),
                Ok(false) if adopt_only => {
                    self.orders.tell(Err(KubernetesError::Switching));
                    self.orders.changed().await;
                    continue;
                }
                // A program must not meet a datastore before its version is known, whenever it came.
                Ok(false) if target.is_exchanged() => {
                    tracing::warn!(binary = %target.binary.display(), "another k3s is at its place; it is compared before it starts");
                    self.orders.ask_for_another();
                    Err(KubernetesError::Switching)
                }
                Ok(false) => self.start(&mut supervisor, &target).await,
                Err(error) => Err(error),
            };
            if let Err(error) = begun {
                self.not_ready(Health::Degraded, Some(&error));
                self.orders.tell(Err(error));
                self.wait_before_retry().await;
                continue;
            }
            self.orders.tell(Ok(()));
            let begun = Instant::now();
            let ended = tokio::select! {
                error = supervisor.ended() => Some(error),
                () = self.orders.changed() => None,
                () = self.restart.notified() => Some(KubernetesError::Switching),
                never = self.watch(target.role) => match never {},
            };
            if matches!(ended, Some(KubernetesError::Switching)) {
                self.not_ready(Health::Progressing, Some(&KubernetesError::Switching));
                // What keeps it from standing still comes up again, by name, when it is looked at next.
                if let Err(error) = supervisor.stop().await {
                    tracing::warn!(%error, "k3s cannot be stopped for a repair");
                }
                continue;
            }
            if let Some(error) = ended {
                tracing::warn!(%error, "k3s ended");
                self.not_ready(Health::Degraded, Some(&error));
                if begun.elapsed() >= HEALTHY_LIFE {
                    self.pace.reset();
                }
                self.wait_before_retry().await;
            }
        }
    }

    async fn start(
        &mut self,
        supervisor: &mut impl Supervisor,
        target: &Arc<K3sTarget>,
    ) -> Result<(), KubernetesError> {
        // What answered before is another Kubernetes, or nothing, from now on.
        self.not_ready(Health::Progressing, None);
        supervisor.stop().await?;
        let (work, of) = (self.before_start.clone(), target.clone());
        match tokio::task::spawn_blocking(move || work(&of)).await {
            Ok(done) => done?,
            // Only the end of the daemon or a panic of that work ends it so.
            Err(error) => {
                return Err(KubernetesError::Unprepared {
                    reason: error.to_string(),
                });
            }
        }
        supervisor.start(target).await?;
        METRICS.kubernetes_starts.add(1);
        self.state.send_modify(|state| state.restarts += 1);
        Ok(())
    }

    async fn wait_before_retry(&mut self) {
        let wait = self.pace.next_wait();
        tokio::select! {
            () = sleep(wait) => {}
            () = self.orders.changed() => {}
        }
    }

    fn not_ready(&self, health: Health, error: Option<&KubernetesError>) {
        self.state.send_modify(|state| {
            state.health = health;
            state.cluster = None;
            state.agent = false;
            // While it starts, the reason why it ended before is worth more than "does not answer yet".
            if let Some(error) = error {
                state.cause = Some(error.problem());
            }
        });
    }

    async fn watch(&self, role: K3sRole) -> Infallible {
        match role {
            K3sRole::Server => self.watch_readiness().await,
            K3sRole::Agent => self.watch_agent().await,
        }
    }

    /// An agent has neither an API nor a kubeconfig: its kubelet is asked until it is healthy. From then on, the end of the process tells.
    async fn watch_agent(&self) -> Infallible {
        let begun = Instant::now();
        let mut pace = Pace::new(READY_POLL_MIN, self.ready_poll);
        while let Err(error) = agent::healthy(agent::KUBELET).await {
            let health = if begun.elapsed() < NODE_PATIENCE {
                Health::Progressing
            } else {
                Health::Degraded
            };
            let cause = Some(error.problem());
            self.state.send_if_modified(|state| {
                let changed = state.health != health || state.cause != cause;
                state.health = health;
                state.cause = cause;
                changed
            });
            let late = begun.elapsed() > HEALTHY_LIFE;
            sleep(if late { LATE_POLL } else { pace.next_wait() }).await;
        }
        self.state.send_modify(|state| {
            state.health = Health::Healthy;
            state.cause = None;
            state.agent = true;
        });
        loop {
            sleep(LOG_CHECK).await;
            self.check_log();
        }
    }

    async fn watch_readiness(&self) -> Infallible {
        loop {
            let (cluster, version) = self.until_ready().await;
            // Who writes objects needs the API and no kubelet; that pods run is said only once they can.
            // All in one piece, which costs one report.
            let (health, cause) = self.meaning(self.node.look(&cluster).await, Duration::ZERO);
            self.state.send_modify(|state| {
                state.health = health.unwrap_or(Health::Progressing);
                state.cause = cause;
                state.version = Some(version);
                state.cluster = Some(cluster.clone());
            });
            let (seen, news) = watch::channel(Seen::default());
            tokio::select! {
                () = self.until_lost(&cluster) => {}
                never = self.node.follow(&cluster, &seen) => match never {},
                never = self.tell_of_node(news) => match never {},
            }
        }
    }

    async fn until_lost(&self, cluster: &Cluster) {
        loop {
            if timeout(LOG_CHECK, self.doubt.notified()).await.is_err() {
                self.check_log();
                continue;
            }
            match timeout(READY_TIMEOUT, cluster.ready()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.not_ready(Health::Progressing, Some(&error)),
                Err(_) => return self.not_ready(Health::Progressing, Some(&no_answer())),
            }
        }
    }

    /// The health that our node's state means after it was not ready for so long; none where nothing is known.
    fn meaning(&self, seen: Seen, waited: Duration) -> (Option<Health>, Option<Problem>) {
        match seen {
            Seen::Nothing => (None, None),
            Seen::Ready => (Some(Health::Healthy), None),
            // Nobody said that this node is there, so it is no trouble that it is not.
            Seen::Not(error)
                if !self.node.required && !matches!(error, KubernetesError::NodeNotReady { .. }) =>
            {
                tracing::debug!(%error, "Kubernetes is judged by its API alone");
                (Some(Health::Healthy), None)
            }
            Seen::Not(error) if waited < NODE_PATIENCE => (Some(Health::Progressing), Some(error.problem())),
            Seen::Not(error) => (Some(Health::Degraded), Some(error.problem())),
        }
    }

    /// Tells the health that our node's state means, and a later one when it lasts too long.
    async fn tell_of_node(&self, mut news: watch::Receiver<Seen>) -> Infallible {
        let mut since = Instant::now();
        loop {
            let seen = news.borrow_and_update().clone();
            let waited = since.elapsed();
            let (health, cause) = self.meaning(seen, waited);
            if let Some(health) = health {
                self.state.send_if_modified(|state| {
                    let changed = state.health != health || state.cause != cause;
                    state.health = health;
                    state.cause = cause;
                    changed
                });
            }
            let ended = if health == Some(Health::Progressing) {
                timeout(NODE_PATIENCE.saturating_sub(waited), news.changed())
                    .await
                    .is_ok_and(|changed| changed.is_err())
            } else {
                news.changed().await.is_err()
            };
            if ended {
                // Its sender lives as long as this is awaited.
                std::future::pending::<()>().await;
            }
            if health == Some(Health::Healthy) {
                since = Instant::now();
            }
        }
    }

    async fn until_ready(&self) -> (Arc<Cluster>, String) {
        let mut wait = READY_POLL_MIN;
        let begun = Instant::now();
        loop {
            let error = match timeout(READY_TIMEOUT, self.ask()).await {
                Ok(Ok(found)) => return found,
                Ok(Err(error)) => self.or_starting(error, begun),
                Err(_) => no_answer(),
            };
            self.state.send_if_modified(|state| {
                let changed = state.health != Health::Progressing;
                state.health = Health::Progressing;
                // A reason from before the start stays until a start takes longer than any should.
                if state.cause.is_none() || begun.elapsed() > HEALTHY_LIFE {
                    let cause = Some(error.problem());
                    let other = state.cause != cause;
                    state.cause = cause;
                    return changed || other;
                }
                changed
            });
            sleep(wait).await;
            // One that takes longer than any start should is not waited for at the same pace.
            let longest = if begun.elapsed() > HEALTHY_LIFE {
                self.ready_poll.max(LATE_POLL)
            } else {
                self.ready_poll
            };
            wait = (wait * 2).min(longest);
        }
    }

    /// What was started writes its kubeconfig when it has come so far; until then, that it is not there is nothing wrong.
    fn or_starting(&self, error: KubernetesError, begun: Instant) -> KubernetesError {
        let in_time = self.supervised && begun.elapsed() <= HEALTHY_LIFE;
        match error {
            KubernetesError::KubeconfigUnusable { path, .. } if in_time && !path.exists() => {
                KubernetesError::Starting { kubeconfig: path }
            }
            other => other,
        }
    }

    async fn ask(&self) -> Result<(Arc<Cluster>, String), KubernetesError> {
        // k3s writes this file anew when it makes new certificates, so it is read for every question.
        let client = client::connect(&self.kubeconfig).await?;
        let cluster = Cluster::new(client, self.request_timeout, self.doubt.clone());
        cluster.ready().await?;
        let version = cluster.version().await?;
        Ok((Arc::new(cluster), version))
    }

    fn check_log(&self) {
        if let Some(path) = &self.log
            && let Err(error) = bound_log(path)
        {
            tracing::warn!(%error, path = %path.display(), "cannot keep the log of k3s bounded");
        }
    }
}

fn no_answer() -> KubernetesError {
    KubernetesError::Unreachable {
        what: "/readyz".into(),
        reason: format!("no answer within {} s", READY_TIMEOUT.as_secs()),
    }
}
