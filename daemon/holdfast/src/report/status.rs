//! The status report: made when it is asked for, announced when something in it changed.

use super::{Activity, Conditions, Live};
use crate::{
    codes, enrol::hardware, identity::clock::TimeFloor, kubernetes::KubernetesState, machine::Flash,
    settings::Settings, sync::Signals, telemetry::metrics::METRICS,
};
use holdfast_protocol::{
    Generation, NodeId, Problem, SchemaVersion,
    report::{
        AgentInfo, AppStatus, FlashFacts, FlashRate, GenerationStatus, Health, KubernetesStatus,
        MachineFacts, OsStatus, Phase, StatusReport,
    },
};
use holdfast_store::Store;
use serde_json::Map;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

/// Changes that belong together come within this time; they are told in one report.
const TOGETHER: Duration = Duration::from_millis(50);

/// How far documents are, as the machine says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Which documents the node has.
    pub generation: GenerationStatus,
    /// What is being done for the newest, where it can be counted.
    pub activity: Option<Activity>,
    /// The document that the node goes back to where the newest fails.
    pub fallback: Option<Generation>,
    /// Why a person paused changes.
    pub pause_reason: Option<String>,
    /// Names of the apps of the document that is kept up, in its order.
    pub apps: Vec<String>,
    /// Those of them that may fail alone.
    pub alone: Vec<String>,
}

/// Makes status reports.
pub struct Reporter {
    /// Name of the node.
    pub node: NodeId,
    /// Paths and intervals.
    pub settings: Arc<Settings>,
    /// Gives sequences.
    pub store: Arc<Store>,
    /// The time, and whether it can be trusted.
    pub floor: Arc<TimeFloor>,
    /// What is wrong.
    pub conditions: Arc<Conditions>,
    /// How far documents are.
    pub progress: watch::Receiver<Progress>,
    /// Kubernetes.
    pub kubernetes: watch::Receiver<KubernetesState>,
    /// The operating system, where documents decide it.
    pub os: watch::Receiver<Option<OsStatus>>,
    /// State of each app.
    pub apps: watch::Receiver<Vec<AppStatus>>,
    /// How much of the present phase is done.
    pub live: Live,
    /// Counts what is written to the flash.
    pub flash: Flash,
    /// What does not change while the process runs.
    pub agent: AgentInfo,
    /// Last sequence given out, for when the store can give none.
    pub last_sequence: AtomicU64,
}

impl Reporter {
    /// A report with everything as it is now.
    pub fn report(&self) -> StatusReport {
        let sequence = match self.store.next_status_sequence() {
            Ok(sequence) => sequence,
            // A disk that takes nothing must not silence the node. What is lost is only that the sequence rises over a restart.
            Err(error) => {
                self.conditions.set("store", error.problem(), self.floor.now());
                self.last_sequence.load(Ordering::Relaxed) + 1
            }
        };
        self.last_sequence.store(sequence, Ordering::Relaxed);
        StatusReport {
            sequence,
            machine: self.machine(),
            ..self.with_progress(self.content())
        }
    }

    /// A report for a look on the box itself: no sequence is used up.
    pub fn glance(&self) -> StatusReport {
        StatusReport {
            sequence: self.last_sequence.load(Ordering::Relaxed),
            machine: self.machine(),
            ..self.with_progress(self.content())
        }
    }

    /// Ends when something that a report tells changed.
    pub async fn changed(&self) {
        let mut inputs = (self.progress.clone(), self.kubernetes.clone(), self.apps.clone());
        inputs.0.mark_unchanged();
        inputs.1.mark_unchanged();
        inputs.2.mark_unchanged();
        // A channel whose other end is gone changes no more; that is at the end of the daemon.
        tokio::select! {
            Ok(()) = inputs.0.changed() => {}
            Ok(()) = inputs.1.changed() => {}
            Ok(()) = inputs.2.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// What only a look on the box itself tells beside that.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Counters are added last: that they moved is no reason for a report.
    fn with_progress(&self, mut report: StatusReport) -> StatusReport {
        let activity = self.progress.borrow().activity;
        report.generation.progress = activity.and_then(|activity| self.live.progress(activity, &report.apps));
        report
    }

    /// The report without what changes by itself.
    fn content(&self) -> StatusReport {
        let progress = self.progress.borrow().clone();
        let (kubernetes, answers) = {
            let state = self.kubernetes.borrow();
            let kubernetes = KubernetesStatus {
                health: state.health,
                version: state.version.clone(),
                restarts: state.restarts,
                cause: state.cause.clone(),
            };
            (kubernetes, state.cluster.is_some())
        };
        let apps = self.app_states(&progress, &kubernetes, answers);
        let mut health = apps
            .iter()
            .map(|app| app.health)
            .fold(kubernetes.health, Ord::max);
        // Also where all that runs is well: it is not what the hub wants.
        if matches!(
            progress.generation.phase,
            Phase::Failed | Phase::RollingBack | Phase::RolledBack
        ) {
            health = health.max(Health::Degraded);
        }
        METRICS.apps.set(i64::try_from(apps.len()).unwrap_or(i64::MAX));
        let healthy = apps.iter().filter(|app| app.health == Health::Healthy).count();
        METRICS
            .apps_healthy
            .set(i64::try_from(healthy).unwrap_or(i64::MAX));
        METRICS
            .outbox_events
            .set(i64::try_from(self.store.pending_count()).unwrap_or(i64::MAX));
        StatusReport {
            schema: SchemaVersion::CURRENT,
            node: self.node.clone(),
            sequence: 0,
            reported_at: self.floor.now(),
            clock_trusted: self.floor.is_system_clock_trusted(),
            agent: self.agent.clone(),
            generation: progress.generation,
            health,
            os: self.os.borrow().clone(),
            kubernetes,
            apps,
            conditions: self.conditions.all(),
            machine: MachineFacts::default(),
            extra: Map::new(),
        }
    }

    /// What the observer knows, as far as Kubernetes can be asked; without it, nothing is known of the apps.
    fn app_states(
        &self,
        progress: &Progress,
        kubernetes: &KubernetesStatus,
        answers: bool,
    ) -> Vec<AppStatus> {
        let observed = self.apps.borrow();
        let state_of = |name: &String| {
            let known = observed.iter().find(|app| app.name == *name);
            let mut app = known.cloned().unwrap_or_else(|| AppStatus {
                name: name.clone(),
                health: Health::Progressing,
                ready: 0,
                objects: 0,
                cause: None,
            });
            if !answers {
                app.health = Health::Unknown;
                app.cause.clone_from(&kubernetes.cause);
            }
            app
        };
        progress.apps.iter().map(state_of).collect()
    }

    fn machine(&self) -> MachineFacts {
        let space = nix::sys::statvfs::statvfs(&self.settings.state_dir).ok();
        // The types of these fields differ between platforms.
        #[allow(clippy::useless_conversion)]
        let bytes = |blocks: Option<nix::libc::fsblkcnt_t>| {
            let size = space.map_or(0, |space| u64::from(space.fragment_size()));
            blocks.map_or(0, |blocks| u64::from(blocks).saturating_mul(size))
        };
        MachineFacts {
            hostname: hardware::hostname().unwrap_or_default(),
            cpus: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
            memory_bytes: hardware::memory_bytes().unwrap_or_default(),
            disk_bytes: bytes(space.map(|space| space.blocks())),
            disk_free_bytes: bytes(space.map(|space| space.blocks_available())),
            flash: Some(self.flash()),
        }
    }

    fn flash(&self) -> FlashFacts {
        let facts = self.flash.facts();
        let bytes =
            |rate: Option<FlashRate>| i64::try_from(rate.unwrap_or_default().bytes).unwrap_or(i64::MAX);
        METRICS.flash_written.set(bytes(facts.written));
        METRICS.flash_kubernetes.set(bytes(facts.by_kubernetes));
        METRICS.flash_holdfast.set(bytes(facts.by_holdfast));
        METRICS
            .flash_life_used
            .set(facts.life_used_percent.map_or(-1, i64::from));
        if facts.life_warning {
            let problem = Problem::new(
                codes::FLASH_WORN,
                format!(
                    "the flash {} says that it is near its end",
                    facts.device.as_deref().unwrap_or_default()
                ),
                "replace it soon; datastore: ram spares the next one",
            );
            self.conditions.set("flash", problem, self.floor.now());
        }
        facts
    }

    /// Announces reports for as long as the daemon runs: at once after a quiet time, then at most one in each interval, and one in each
    /// heartbeat.
    pub async fn announce(self: Arc<Self>, signals: Signals) {
        let mut inputs = (
            self.progress.clone(),
            self.kubernetes.clone(),
            self.apps.clone(),
            self.conditions.subscribe(),
            self.os.clone(),
        );
        let settings = &self.settings.report;
        let mut told = self.content();
        let mut earliest = Instant::now();
        loop {
            let heartbeat = async {
                if settings.heartbeat.is_zero() {
                    std::future::pending::<()>().await;
                }
                sleep(settings.heartbeat).await;
            };
            let beat = tokio::select! {
                changed = inputs.0.changed() => { if changed.is_err() { return; } false }
                changed = inputs.1.changed() => { if changed.is_err() { return; } false }
                changed = inputs.2.changed() => { if changed.is_err() { return; } false }
                changed = inputs.3.changed() => { if changed.is_err() { return; } false }
                Ok(()) = inputs.4.changed() => false,
                () = heartbeat => true,
            };
            sleep_until(earliest.max(Instant::now() + TOGETHER)).await;
            let now = self.content();
            if beat || differs(&told, &now) {
                told = now;
                earliest = Instant::now() + settings.min_interval;
                signals.status.notify_one();
            }
        }
    }
}

/// Whether two reports say different things; their times are no news.
fn differs(before: &StatusReport, now: &StatusReport) -> bool {
    let mut timeless = before.clone();
    timeless.reported_at = now.reported_at;
    timeless != *now
}

/// What does not change while the process runs.
pub(crate) fn agent() -> AgentInfo {
    AgentInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|text| text.trim().to_owned())
            .unwrap_or_default(),
        architecture: std::env::consts::ARCH.to_owned(),
        operating_system: hardware::operating_system(),
    }
}
