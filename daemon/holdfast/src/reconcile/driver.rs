//! The driver: one task that owns the machine's state.

mod tell;

use crate::{
    apply::{Objects, Run, recheck},
    artifacts::Fetcher,
    failpoint,
    images::Keeper,
    kubernetes::{
        Cluster, KubernetesError, KubernetesState,
        switch::{Switcher, Wanted},
    },
    observe::{self, Observation, Target, Versions},
    pace::random,
    report::{Progress, Recorder},
    settings::Settings,
    telemetry::metrics::METRICS,
};
use holdfast_core::{
    admission::{VerifiedDocument, readmit},
    backoff::Backoff,
    reconcile::{DocumentRef, Effect, Event, JournalStep, Stage, State, Ticket},
};
use holdfast_protocol::{
    Digest, Generation,
    document::{DesiredState, K3sSection},
    event::{EventKind, Severity},
};
use holdfast_store::{StoreError, StoredDocument};
use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Corrections in a row after which it is a fight: with the growing pauses between them, some ten seconds.
const FIGHT: u32 = 5;
/// Finder of conditions about drift.
const DRIFT: &str = "drift";
/// Finder of conditions about the version of Kubernetes.
const VERSION: &str = "kubernetes-version";

/// What the driver needs of its surroundings.
pub struct Parts {
    /// Intervals and limits.
    pub settings: Arc<Settings>,
    /// Documents and their objects.
    pub objects: Objects,
    /// Fetches blobs.
    pub fetcher: Fetcher,
    /// Keeps images in containerd.
    pub images: Keeper,
    /// Notes events down.
    pub recorder: Recorder,
    /// What our own writes left.
    pub versions: Arc<Versions>,
    /// Watches what was applied.
    pub observer: observe::Handle,
    /// Newly accepted documents.
    pub documents: mpsc::UnboundedReceiver<VerifiedDocument>,
    /// Events for the machine, by the observer and by the driver's own tasks.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// The other end of them.
    pub event_sender: mpsc::UnboundedSender<Event>,
    /// Kubernetes.
    pub kubernetes: watch::Receiver<KubernetesState>,
    /// Brings Kubernetes to what a document says.
    pub switcher: Arc<Switcher>,
    /// Where progress is told.
    pub progress: watch::Sender<Progress>,
    /// The end of the daemon.
    pub shutdown: CancellationToken,
}

/// Owns the machine.
pub struct Driver {
    parts: Parts,
    state: State,
    cluster: Option<Arc<Cluster>>,
    tasks: HashMap<Ticket, Task>,
    /// Apps of the documents that matter: of the newest, and of the one that is kept up.
    apps: HashMap<Digest, Vec<String>>,
    wanted_version: Option<String>,
}

/// Work under way, or a timer.
struct Task {
    handle: JoinHandle<()>,
    /// Present where the work is to be asked to stop, and waited for.
    stop: Option<CancellationToken>,
}

/// How long writes that are under way are waited for when they are overtaken.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What a document of the store says that is needed beside its objects.
struct Recovered {
    reference: DocumentRef,
    apps: Vec<String>,
    k3s: Option<K3sSection>,
}

impl Driver {
    /// Takes up what the store knows. Nothing of it needs a network or Kubernetes.
    pub async fn new(parts: Parts) -> Self {
        let mut driver = Self {
            parts,
            state: State::default(),
            cluster: None,
            tasks: HashMap::new(),
            apps: HashMap::new(),
            wanted_version: None,
        };
        let stored = driver.parts.objects.store.recover().unwrap_or_else(|error| {
            driver.parts.recorder.check(Some(&error));
            holdfast_store::Recovered::default()
        });
        let newest = stored
            .newest
            .and_then(|document| Some((driver.recover(&document)?, document.step)));
        let applied = stored.applied.and_then(|document| driver.recover(&document));
        for document in applied.iter().chain(newest.iter().map(|(document, _)| document)) {
            driver.remember(&document.reference, document.apps.clone());
        }
        let known = newest.as_ref().map(|(document, _)| Wanted {
            generation: document.reference.generation,
            section: document.k3s.as_ref(),
        });
        driver.wanted_version = known.and_then(|known| known.section?.version.clone());
        driver.parts.switcher.take_up(known).await;
        driver
            .step(Event::Restarted {
                newest: newest.map(|(document, step)| (document.reference, step)),
                applied: applied.map(|document| document.reference),
                proven: stored.proven,
                fallback: None,
                paused: false,
            })
            .await;
        driver
    }

    /// A stored document, where it passes admission again.
    fn recover(&self, stored: &StoredDocument) -> Option<Recovered> {
        let identity = self.parts.objects.identity.borrow().clone();
        match readmit(&stored.envelope, &identity.trust, &identity.node) {
            Ok(document) => {
                let reference = DocumentRef::of(&document);
                let state = document.into_state();
                Some(Recovered {
                    reference,
                    apps: names(&state),
                    k3s: state.k3s,
                })
            }
            Err(rejection) => {
                let problem = rejection.problem;
                tracing::error!(%problem, generation = %stored.generation, "a stored document is trusted no more; what runs keeps running");
                let now = self.parts.recorder.floor.now();
                self.parts.recorder.conditions.set("document", problem, now);
                let discarded = self.parts.objects.store.discard(stored.digest);
                self.parts.recorder.check(discarded.as_ref().err());
                None
            }
        }
    }

    /// Runs until shutdown.
    pub async fn run(mut self) {
        self.follow_kubernetes().await;
        let shutdown = self.parts.shutdown.clone();
        loop {
            tokio::select! {
                // Documents first: a newer one makes results of older work worthless.
                biased;
                () = shutdown.cancelled() => break,
                Some(document) = self.parts.documents.recv() => self.accept(document).await,
                Some(event) = self.parts.events.recv() => self.step(event).await,
                changed = self.parts.kubernetes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.follow_kubernetes().await;
                }
            }
            self.tasks.retain(|_, task| !task.handle.is_finished());
        }
        for task in self.tasks.values() {
            task.handle.abort();
        }
    }

    async fn accept(&mut self, document: VerifiedDocument) {
        let reference = DocumentRef::of(&document);
        self.remember(&reference, names(document.state()));
        self.want(reference.generation, document.state().k3s.as_ref());
        self.parts.objects.hand_over(document);
        self.step(Event::DocumentAccepted(reference)).await;
        // The commit left this for after the acknowledgement. Where writing has begun, the record of that will do it: a disk is slower than
        // the first request.
        if !matches!(self.state.stage(), Stage::Applying { .. }) {
            let flushed = self.parts.objects.store.flush_floor();
            self.parts.recorder.check(flushed.as_ref().err());
        }
    }

    fn remember(&mut self, document: &DocumentRef, apps: Vec<String>) {
        let kept_up = self.state.upkeep().map(|upkeep| upkeep.document.digest);
        if self.state.newest().is_some() {
            self.apps.retain(|known, _| Some(*known) == kept_up);
        }
        self.apps.insert(document.digest, apps);
    }

    fn want(&mut self, generation: Generation, section: Option<&K3sSection>) {
        self.wanted_version = section.and_then(|section| section.version.clone());
        self.check_version();
        let (switcher, section) = (self.parts.switcher.clone(), section.cloned());
        tokio::spawn(async move {
            let to = Wanted {
                generation,
                section: section.as_ref(),
            };
            if let Err(failure) = switcher.switch(to).await {
                tracing::warn!(problem = %failure.problem, "k3s cannot be switched");
            }
        });
    }

    fn check_version(&self) {
        let found = self.parts.kubernetes.borrow().version.clone();
        let conditions = &self.parts.recorder.conditions;
        match (&self.wanted_version, found) {
            (Some(wanted), Some(found)) if *wanted != found => {
                let error = KubernetesError::WrongVersion {
                    wanted: wanted.clone(),
                    found,
                };
                conditions.set(VERSION, error.problem(), self.parts.recorder.floor.now());
            }
            _ => conditions.clear(VERSION),
        }
    }

    async fn follow_kubernetes(&mut self) {
        let (cluster, cause) = {
            let state = self.parts.kubernetes.borrow_and_update();
            (state.cluster.clone(), state.cause.clone())
        };
        let same = match (&self.cluster, &cluster) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        METRICS.kubernetes_ready.set(i64::from(cluster.is_some()));
        if same {
            // The reason for waiting may be another one.
            if let (None, Some(problem)) = (&cluster, cause) {
                self.step(Event::KubernetesLost { problem }).await;
            }
            return;
        }
        let had_one = std::mem::replace(&mut self.cluster, cluster).is_some();
        if had_one || self.cluster.is_none() {
            let problem = cause.unwrap_or_else(|| {
                KubernetesError::Unreachable {
                    what: "the API".into(),
                    reason: "it is being started".into(),
                }
                .problem()
            });
            self.step(Event::KubernetesLost { problem }).await;
        }
        if self.cluster.is_some() {
            self.check_version();
            self.step(Event::KubernetesReady).await;
        }
    }

    async fn step(&mut self, event: Event) {
        match self.state.step(event) {
            Ok(effects) => {
                for effect in effects {
                    self.carry_out(effect).await;
                }
            }
            Err(error) => tracing::error!(%error, "the reconcile machine refused an event"),
        }
        self.tell();
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::FetchBlobs { ticket, document } => {
                let (fetcher, images) = (self.parts.fetcher.clone(), self.parts.images.clone());
                self.spawn(ticket, &document, None, async move |document| {
                    let fetched = async {
                        fetcher.fetch_all(&document).await?;
                        images.settle().await
                    };
                    Some(match fetched.await {
                        Ok(_) => Event::BlobsReady { ticket },
                        Err(failure) => Event::BlobsFailed { ticket, failure },
                    })
                });
            }
            Effect::Apply { ticket, document } => {
                let stop = CancellationToken::new();
                let Some(run) = self.write_run(&stop) else { return };
                self.spawn(ticket, &document, Some(stop), async move |document| {
                    let failures = run.document(&document).await;
                    METRICS.object_failures.add(failures.len() as u64);
                    Some(Event::ApplyFinished { ticket, failures })
                });
            }
            Effect::ApplyObjects {
                ticket,
                document,
                keys,
            } => {
                let stop = CancellationToken::new();
                let Some(run) = self.write_run(&stop) else { return };
                self.spawn(ticket, &document, Some(stop), async move |document| {
                    let failures = run.some(&document, &keys).await;
                    METRICS
                        .drift_corrected
                        .add(keys.len().saturating_sub(failures.len()) as u64);
                    Some(Event::ApplyFinished { ticket, failures })
                });
            }
            Effect::Verify {
                ticket,
                document,
                recheck,
            } => self.verify(ticket, &document, recheck),
            Effect::ScheduleRetry { ticket, attempt } => {
                let apply = &self.parts.settings.apply;
                let wait = Backoff::new(apply.retry_min, apply.retry_max).delay(attempt, random());
                self.ring(ticket, wait, Event::RetryDue { ticket });
            }
            Effect::ScheduleDeadline {
                ticket,
                after_seconds,
            } => {
                let wait = Duration::from_secs(after_seconds.into());
                self.ring(ticket, wait, Event::DeadlineReached { ticket });
            }
            Effect::Preflight { ticket, .. } => {
                let _ = self.parts.event_sender.send(Event::PreflightPassed { ticket });
            }
            Effect::AwaitGate { ticket, .. } => {
                let _ = self.parts.event_sender.send(Event::GateOpened { ticket });
            }
            Effect::SwitchKubernetes { ticket, .. } | Effect::RestoreKubernetes { ticket, .. } => {
                let _ = self.parts.event_sender.send(Event::KubernetesSwitched { ticket });
            }
            Effect::ScheduleStability {
                ticket,
                after_seconds,
            } => {
                let wait = Duration::from_secs(after_seconds.into());
                self.ring(ticket, wait, Event::StabilityReached { ticket });
            }
            Effect::Cancel { ticket } => {
                self.parts.observer.stop(ticket);
                if let Some(task) = self.tasks.remove(&ticket) {
                    end(task).await;
                }
            }
            Effect::Journal { document, step } => self.journal(&document, step),
            Effect::Commit { document } => {
                failpoint::reach("before-proven");
                let now = self.parts.recorder.floor.now();
                let store = &self.parts.objects.store;
                let marked = store.mark_proven(document.digest, &[], now);
                self.stored(marked);
                failpoint::reach("after-proven");
                self.collect_garbage(&document);
            }
            Effect::Report(report) => {
                if report.kind == EventKind::DocumentFailed && report.severity == Severity::Alarm {
                    METRICS.documents_failed.add(1);
                }
                // One that the disk does not take is in the log and in the conditions.
                let _ = self.parts.recorder.note(report);
            }
        }
    }

    fn journal(&self, document: &DocumentRef, step: JournalStep) {
        let now = self.parts.recorder.floor.now();
        if let JournalStep::Failed { problem, applying } = step {
            let store = &self.parts.objects.store;
            let marked = store.mark_failed(document.digest, &problem, applying, &[], now);
            self.stored(marked);
        }
    }

    /// A step that could not be written down is taken again after a restart, which does no harm.
    fn stored(&self, result: Result<(), StoreError>) {
        self.parts.recorder.check(result.err().as_ref());
    }

    /// Blobs that neither the proven document nor the one kept up needs.
    fn collect_garbage(&self, document: &DocumentRef) {
        let upkeep = self.state.upkeep().map(|upkeep| &upkeep.document);
        let keep = [Some(document), upkeep, self.state.newest()]
            .into_iter()
            .flatten()
            .flat_map(|document| document.blobs.iter().map(|blob| blob.digest))
            .collect();
        match self.parts.objects.blobs.collect_garbage(&keep) {
            Ok(collected) if collected.blobs > 0 => {
                tracing::info!(
                    blobs = collected.blobs,
                    bytes = collected.bytes,
                    "removed blobs that nothing needs"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "blobs that nothing needs cannot be removed"),
        }
    }

    fn verify(&mut self, ticket: Ticket, document: &DocumentRef, recheck_all: bool) {
        let Some(run) = self.write_run(&CancellationToken::new()) else {
            return;
        };
        let observer = self.parts.observer.clone();
        let events = self.parts.event_sender.clone();
        let apps = self.apps.get(&document.digest).cloned().unwrap_or_default();
        self.spawn(ticket, document, None, async move |document| {
            let prepared = match run.objects.document(&document) {
                Ok(verified) => run.objects.prepare(verified.state(), Some(&run.cluster)).await,
                Err(failure) => Err(failure),
            };
            let objects = match prepared {
                Ok(objects) => objects,
                Err(failure) => {
                    return Some(Event::ObservationFailed {
                        ticket,
                        failure: *failure,
                    });
                }
            };
            let targets = objects
                .into_iter()
                .map(|object| Target {
                    key: object.key,
                    app: object.app,
                })
                .collect();
            observer.observe(Observation {
                ticket,
                targets,
                apps,
                cluster: run.cluster.clone(),
            });
            if recheck_all {
                match recheck(&run, &document).await {
                    Ok(keys) if keys.is_empty() => {}
                    Ok(keys) => {
                        let _ = events.send(Event::DriftDetected { keys });
                    }
                    Err(failure) => tracing::error!(problem = %failure.problem, "objects cannot be compared"),
                }
            }
            None
        });
    }

    fn write_run(&self, stop: &CancellationToken) -> Option<Run> {
        // The machine asks for writes only while Kubernetes is ready.
        let cluster = self.cluster.clone()?;
        Some(Run {
            objects: self.parts.objects.clone(),
            cluster,
            versions: self.parts.versions.clone(),
            concurrency: self.parts.settings.apply.concurrency,
            floor: self.parts.recorder.floor.clone(),
            stop: stop.clone(),
        })
    }

    fn spawn<W, F>(
        &mut self,
        ticket: Ticket,
        document: &DocumentRef,
        stop: Option<CancellationToken>,
        work: W,
    ) where
        W: FnOnce(DocumentRef) -> F,
        F: Future<Output = Option<Event>> + Send + 'static,
    {
        let span = tracing::info_span!("document", generation = %document.generation);
        let events = self.parts.event_sender.clone();
        let work = work(document.clone());
        let task = async move {
            if let Some(event) = work.await {
                let _ = events.send(event);
            }
        };
        let handle = tokio::spawn(task.instrument(span));
        self.tasks.insert(ticket, Task { handle, stop });
    }

    fn ring(&mut self, ticket: Ticket, wait: Duration, event: Event) {
        let events = self.parts.event_sender.clone();
        let handle = tokio::spawn(async move {
            sleep(wait).await;
            let _ = events.send(event);
        });
        self.tasks.insert(ticket, Task { handle, stop: None });
    }
}

/// Ends work for good: whoever goes on after this is alone.
async fn end(mut task: Task) {
    if let Some(stop) = task.stop {
        stop.cancel();
        if timeout(STOP_PATIENCE, &mut task.handle).await.is_ok() {
            return;
        }
    }
    task.handle.abort();
    // The error only says that it was aborted.
    let _ = task.handle.await;
}

fn names(state: &DesiredState) -> Vec<String> {
    state.apps.iter().map(|app| app.name.clone()).collect()
}
