//! Takes care of the files of Kubernetes: the datastore is where it is wanted, is kept small and is snapshotted; damage is repaired.
//!
//! In: the moment before each start of k3s, its logs while it runs, the news that a document was applied. Out: sound files, snapshots, events
//! and conditions. It guarantees that files are put in place only while k3s stands still, and that an idle box is looked at seldom and
//! written to never.

use super::{
    KubernetesError, KubernetesState,
    datastore::{DatastoreError, Place, Snapshots, database, database::Fingerprint, growth, growth::Limits},
    heal::{Healer, Outcome, Paths, signs::Damage},
    target::K3sTarget,
};
use crate::{
    codes,
    report::{News, Progress, Recorder},
    settings::Settings,
    telemetry::metrics::METRICS,
};
use holdfast_protocol::{
    Problem,
    document::K3sRole,
    event::{EventKind, Severity},
    report::Phase,
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

/// When the logs are looked at after a start: containerd tells of damage at once, pods some seconds later.
const FIRST_LOOKS: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(60)];
/// How often after that. A look is three looks into directories while nothing happens.
const LATER_LOOKS: Duration = Duration::from_mins(10);

/// Finders of conditions.
const HEAL: &str = "kubernetes-heal";
const SNAPSHOT: &str = "datastore-snapshot";
const GROWTH: &str = "datastore-growth";

/// Takes care of the files of Kubernetes.
pub struct Care {
    place: Place,
    snapshots: Snapshots,
    limits: Limits,
    interval: Duration,
    recorder: Recorder,
    kubernetes: watch::Receiver<KubernetesState>,
    files: Mutex<Files>,
    /// Told when k3s has to be started anew for the sake of a repair.
    restart: Arc<Notify>,
}

/// What only one may work with at a time.
struct Files {
    healer: Healer,
    /// What the newest snapshot holds.
    saved: Option<Fingerprint>,
}

impl Care {
    /// Takes care of the Kubernetes of these settings. `restart` is told when k3s has to be started anew.
    pub fn new(
        settings: &Settings,
        recorder: Recorder,
        kubernetes: watch::Receiver<KubernetesState>,
        restart: Arc<Notify>,
    ) -> Self {
        let of = &settings.kubernetes;
        let snapshots = Snapshots::new(snapshot_directory(settings));
        let place = Place::new(&of.data_dir, of.datastore_ram_dir.clone(), snapshots.clone());
        let paths = Paths {
            data_dir: of.data_dir.clone(),
            network: of.cni_state_dir.clone(),
            log: of.log_file.clone(),
        };
        let limit = usize::try_from(of.heals_per_day).unwrap_or(usize::MAX);
        let saved = snapshots
            .list()
            .first()
            .and_then(|newest| database::fingerprint(&newest.path).ok());
        Self {
            files: Mutex::new(Files {
                healer: Healer::new(paths, place.clone(), limit),
                saved,
            }),
            place,
            snapshots,
            limits: Limits {
                database: of.datastore_limit,
                log: of.datastore_log_limit,
            },
            interval: of.snapshot_interval,
            recorder,
            kubernetes,
            restart,
        }
    }

    /// Before each start, while k3s stands still. Blocks.
    ///
    /// # Errors
    /// The datastore cannot be where it is wanted. Damage is no error: it is repaired or told.
    pub fn before_start(&self, target: &K3sTarget) -> Result<(), KubernetesError> {
        let mut files = self.files();
        let cause = self.kubernetes.borrow().cause.clone();
        if let Some(cause) = cause {
            files.healer.hear(&cause.message);
        }
        let mut found: Vec<_> = files
            .healer
            .take()
            .into_iter()
            .map(|sign| (sign.damage, sign.line))
            .collect();
        let is_server = target.role == K3sRole::Server;
        let of_datastore = |damage| matches!(damage, Damage::Datastore | Damage::DatastoreBehindFiles);
        found.retain(|(damage, _)| is_server || !of_datastore(*damage));
        // After a power cut nobody tells before it is too late. k3s reads the whole database at its start too, so that it is read once.
        let database = self.place.real_database();
        if is_server
            && found.iter().all(|(damage, _)| *damage != Damage::Datastore)
            && database.exists()
            && let Err(error) = database::quick_check(&database)
            && error.is_damage()
        {
            found.push((Damage::Datastore, error.to_string()));
        }
        if found.iter().all(|(damage, _)| *damage != Damage::NetworkResults) {
            found.push((
                Damage::NetworkResults,
                "files without content after a power cut".into(),
            ));
        }
        let mut limited = None;
        for (damage, why) in found {
            limited = limited.or(self.heal(&mut files.healer, damage, &why));
        }
        let prepared = if is_server {
            self.prepare(&mut files, target)
        } else {
            Ok(())
        };
        match limited {
            Some(problem) => self
                .recorder
                .conditions
                .set(HEAL, problem, self.recorder.floor.now()),
            None => self.recorder.conditions.clear(HEAL),
        }
        files.healer.begun();
        prepared.map_err(KubernetesError::Datastore)
    }

    fn prepare(&self, files: &mut Files, target: &K3sTarget) -> Result<(), DatastoreError> {
        let mut prepared = self.place.prepare(target.datastore);
        if let Err(error) = &prepared
            && error.is_damage()
        {
            self.heal(&mut files.healer, Damage::Datastore, &error.to_string());
            prepared = self.place.prepare(target.datastore);
        }
        let prepared = prepared?;
        if prepared.moved {
            tracing::info!(to = ?target.datastore, "the datastore was moved");
        }
        let Some(restored) = prepared.restored else {
            return Ok(());
        };
        files.saved = None;
        match &restored.from {
            Some(snapshot) => {
                tracing::info!(snapshot = %snapshot.path.display(), "the datastore came back from its snapshot");
            }
            None => tracing::warn!("there is no snapshot of the datastore: Kubernetes begins empty"),
        }
        if !restored.damaged.is_empty() {
            let problem = Problem::new(
                codes::DATASTORE_DAMAGED,
                restored.damaged.join("; "),
                "nothing: an older snapshot or the cache takes its place; replace the disk if this recurs",
            );
            self.tell(EventKind::KubernetesHealed, problem);
        }
        Ok(())
    }

    /// Repairs one damage and tells of it; answers what has to be told for as long as it lasts.
    fn heal(&self, healer: &mut Healer, damage: Damage, why: &str) -> Option<Problem> {
        let name = damage.name();
        match healer.heal(damage, self.recorder.floor.now()) {
            Outcome::Sound => None,
            Outcome::Healed { aside, rebuilt_from } => {
                METRICS.kubernetes_heals.add(1);
                let aside: Vec<_> = aside.iter().map(|path| path.display().to_string()).collect();
                let kept = if aside.is_empty() {
                    String::new()
                } else {
                    format!(", kept as {}", aside.join(", "))
                };
                let problem = Problem::new(
                    codes::KUBERNETES_HEALED,
                    format!(
                        "{name} was damaged ({why}); it was set aside{kept}, and comes back from {rebuilt_from}"
                    ),
                    "nothing; replace the disk if this recurs",
                );
                self.tell(EventKind::KubernetesHealed, problem);
                None
            }
            Outcome::TooOften(count) => Some(Problem::new(
                codes::KUBERNETES_HEAL_LIMIT,
                format!(
                    "{name} is damaged again ({why}), and was set aside {count} times within a day; it is left as it is"
                ),
                "replace the disk; then remove the files beside it that end in .damaged-<time>, and it is repaired again",
            )),
            Outcome::Failed(reason) => Some(Problem::new(
                codes::KUBERNETES_HEAL_FAILED,
                format!("{name} is damaged ({why}) and cannot be set aside: {reason}"),
                "check space, owner and mode of that path, and the kernel log for errors of the disk",
            )),
        }
    }

    fn tell(&self, kind: EventKind, problem: Problem) {
        // What the disk does not take is in the log and in the conditions already.
        let _ = self.recorder.tell(News {
            kind,
            severity: Severity::Warning,
            message: problem.message.clone(),
            generation: None,
            problem: Some(problem),
        });
    }

    /// Looks after the files for as long as the daemon runs.
    pub async fn run(self: Arc<Self>, mut progress: watch::Receiver<Progress>) {
        let mut kubernetes = self.kubernetes.clone();
        let mut starts = kubernetes.borrow().restarts;
        let mut applied = progress.borrow().generation.applied;
        let mut next_look = Instant::now() + LATER_LOOKS;
        let mut looks = FIRST_LOOKS.iter();
        let mut next_snapshot = Instant::now() + self.interval;
        loop {
            tokio::select! {
                changed = kubernetes.changed() => {
                    if changed.is_err() { return; }
                    let now = kubernetes.borrow_and_update().restarts;
                    if now != starts {
                        starts = now;
                        looks = FIRST_LOOKS.iter();
                        next_look = Instant::now() + looks.next().copied().unwrap_or(LATER_LOOKS);
                    }
                }
                changed = progress.changed() => {
                    if changed.is_err() { return; }
                    let now = progress.borrow_and_update().generation.applied;
                    if now != applied {
                        applied = now;
                        self.clone().blocking(Self::save).await;
                    }
                }
                () = sleep_until(next_look) => {
                    next_look = Instant::now() + looks.next().copied().unwrap_or(LATER_LOOKS);
                    self.clone().blocking(Self::look).await;
                }
                () = sleep_until(next_snapshot) => {
                    next_snapshot = Instant::now() + self.interval;
                    let quiet = progress.borrow().generation.phase == Phase::Committed;
                    self.clone().blocking(move |care| { care.save(); care.watch_growth(quiet); }).await;
                }
            }
        }
    }

    async fn blocking(self: Arc<Self>, work: impl FnOnce(&Self) + Send + 'static) {
        if let Err(error) = tokio::task::spawn_blocking(move || work(&self)).await {
            tracing::error!(%error, "the care for Kubernetes's files broke off");
        }
    }

    fn look(&self) {
        if self.files().healer.look() {
            tracing::warn!("Kubernetes tells of damage; it is started anew to repair it");
            self.restart.notify_one();
        }
    }

    /// Takes a snapshot of a datastore in memory, where something changed. Also for the end of the daemon.
    pub fn save(&self) {
        let mut files = self.files();
        let database = self.place.real_database();
        if database == self.place.database() || !database.exists() {
            return;
        }
        let taken = database::fingerprint(&database).and_then(|now| {
            if files.saved == Some(now) {
                return Ok(false);
            }
            self.snapshots.take(&database)?;
            files.saved = Some(now);
            Ok(true)
        });
        match taken {
            Ok(taken) => {
                METRICS.datastore_snapshots.add(u64::from(taken));
                self.recorder.conditions.clear(SNAPSHOT);
            }
            Err(error) => {
                let problem = Problem::new(
                    codes::DATASTORE_SNAPSHOT_FAILED,
                    format!("no snapshot of the datastore in memory can be taken: {error}"),
                    error.problem().action,
                );
                tracing::warn!("{problem}");
                self.recorder
                    .conditions
                    .set(SNAPSHOT, problem, self.recorder.floor.now());
            }
        }
    }

    fn watch_growth(&self, quiet: bool) {
        let _files = self.files();
        let database = self.place.real_database();
        if quiet && let Err(error) = self.limits.compact(&database) {
            tracing::warn!(%error, "the datastore cannot be compacted now");
        }
        let size = growth::size(&database);
        METRICS
            .datastore_bytes
            .set(i64::try_from(size.database + size.log).unwrap_or(i64::MAX));
        match self.limits.problem(&database, size) {
            Some(problem) => self
                .recorder
                .conditions
                .set(GROWTH, problem, self.recorder.floor.now()),
            None => self.recorder.conditions.clear(GROWTH),
        }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // A panic leaves files that are whole, as every other end does.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the snapshots of a datastore in memory are.
pub fn snapshot_directory(settings: &Settings) -> PathBuf {
    settings.state_dir.join("k3s/ram")
}
