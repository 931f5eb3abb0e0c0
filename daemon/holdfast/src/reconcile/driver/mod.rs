//! The driver: one task that owns the machine's state.
//!
//! In: documents, orders of a person at the box, results of work, the state of Kubernetes. Out: the machine's effects, carried out one
//! after the other. What takes time runs beside it, each piece under its ticket.

mod check;
mod effects;
mod kept;
mod kubernetes;
mod orders;
mod os;
mod tell;
mod work;

use super::{orders::Order, system::System};
use crate::{
    apply::Objects,
    artifacts::Fetcher,
    images::Keeper,
    kubernetes::{
        Cluster, KubernetesState,
        switch::{Switcher, Wanted},
    },
    observe::{self, Versions},
    report::{Live, Progress, Recorder},
    settings::Settings,
};
use holdfast_core::{
    admission::VerifiedDocument,
    reconcile::{DocumentRef, Effect, Event, JournalStep, Stage, State, Ticket},
};
use holdfast_protocol::Digest;
use holdfast_store::{Pause, StoreError};
use jiff::Timestamp;
use kept::Known;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use work::Task;

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
    /// Fetches blobs and artifacts.
    pub fetcher: Fetcher,
    /// Keeps images in containerd.
    pub images: Keeper,
    /// Counts what work has done.
    pub live: Live,
    /// Notes events down.
    pub recorder: Recorder,
    /// What our own writes left.
    pub versions: Arc<Versions>,
    /// Watches what was applied.
    pub observer: observe::Handle,
    /// Newly accepted documents.
    pub documents: mpsc::UnboundedReceiver<VerifiedDocument>,
    /// What a person at the box asks for.
    pub orders: mpsc::Receiver<Order>,
    /// Events for the machine, by the observer and by the driver's own tasks.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// The other end of them.
    pub event_sender: mpsc::UnboundedSender<Event>,
    /// Kubernetes.
    pub kubernetes: watch::Receiver<KubernetesState>,
    /// Brings Kubernetes to what a document says.
    pub switcher: Arc<Switcher>,
    /// The operating system, on a box that runs an image whose version documents decide.
    pub system: Option<Arc<System>>,
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
    /// Whether this is an agent that works: there is nothing to be applied, nor to be looked at.
    agent: bool,
    tasks: HashMap<Ticket, Task>,
    /// The present observation, from when it was asked for.
    observation: Option<Ticket>,
    /// When timers ring and windows open, by the node's clock.
    until: HashMap<Ticket, watch::Receiver<Option<Timestamp>>>,
    /// The documents that matter: the newest, the one that is kept up, and those that can be gone back to.
    known: HashMap<Digest, Known>,
    wanted_version: Option<String>,
    pause: Option<Pause>,
    /// When the pause ends by itself.
    pause_end: Option<Instant>,
}

impl Driver {
    /// Takes up what the store knows. Nothing of it needs a network or Kubernetes.
    pub async fn new(parts: Parts) -> Self {
        let mut driver = Self {
            parts,
            state: State::default(),
            cluster: None,
            agent: false,
            tasks: HashMap::new(),
            observation: None,
            until: HashMap::new(),
            known: HashMap::new(),
            wanted_version: None,
            pause: None,
            pause_end: None,
        };
        let stored = driver.parts.objects.store.recover().unwrap_or_else(|error| {
            driver.parts.recorder.check(Some(&error));
            holdfast_store::Recovered::default()
        });
        let newest = stored
            .newest
            .and_then(|document| Some((driver.recover(&document)?, document.step)));
        let applied = stored.applied.and_then(|document| driver.recover(&document));
        let fallback = stored.fallback.and_then(|document| driver.recover(&document));
        let kept_up = match &newest {
            None | Some((_, JournalStep::Accepted | JournalStep::Failed { applying: false, .. })) => {
                applied.as_ref()
            }
            Some((_, JournalStep::RollingBack { .. } | JournalStep::RolledBack { .. })) => fallback.as_ref(),
            Some((document, _)) => Some(document),
        };
        let section = kept_up.and_then(|document| driver.section(document.digest));
        let wanted = kept_up.map(|document| Wanted {
            generation: document.generation,
            section: section.as_deref(),
        });
        driver.wanted_version = section.as_ref().and_then(|section| section.version.clone());
        driver.parts.switcher.take_up(wanted).await;
        let paused = driver.take_up_pause();
        let deadline_seconds = newest
            .as_ref()
            .and_then(|(document, step)| driver.deadline_left(document, step));
        let os = driver
            .parts
            .system
            .as_ref()
            .map(|system| system.version().to_owned());
        driver
            .step(Event::Restarted {
                newest,
                applied,
                proven: stored.proven,
                fallback,
                paused,
                os,
                deadline_seconds,
            })
            .await;
        driver
    }

    /// Runs until shutdown.
    pub async fn run(mut self) {
        self.follow_kubernetes().await;
        let shutdown = self.parts.shutdown.clone();
        loop {
            let pause_end = self.pause_end;
            tokio::select! {
                // Documents first: a newer one makes results of older work worthless.
                biased;
                () = shutdown.cancelled() => break,
                Some(document) = self.parts.documents.recv() => self.accept(document).await,
                Some(order) = self.parts.orders.recv() => self.obey(order).await,
                Some(event) = self.parts.events.recv() => self.happened(event).await,
                changed = self.parts.kubernetes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.follow_kubernetes().await;
                }
                () = async move { match pause_end {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                } } => self.end_pause().await,
            }
            self.tasks.retain(|_, task| !task.is_finished());
            let tasks = &self.tasks;
            self.until.retain(|ticket, _| tasks.contains_key(ticket));
        }
        for task in self.tasks.values() {
            task.abort();
        }
    }

    async fn accept(&mut self, document: VerifiedDocument) {
        let reference = DocumentRef::of(&document);
        self.remember(&reference, document.state());
        self.parts.objects.hand_over(document);
        self.step(Event::DocumentAccepted(reference)).await;
        self.flush_floor();
    }

    /// The commit of a document left this for later. Where writing is near, the record of what was written does it: a disk is slower than the
    /// first request.
    fn flush_floor(&self) {
        let is_near = matches!(
            self.state.stage(),
            Stage::Preflight { .. } | Stage::SwitchingKubernetes { .. } | Stage::Applying { .. }
        );
        if !is_near && self.parts.events.is_empty() {
            let flushed = self.parts.objects.store.flush_floor();
            self.parts.recorder.check(flushed.as_ref().err());
        }
    }

    async fn happened(&mut self, event: Event) {
        // A k3s that was stopped to be switched must be known as lost before the switch is.
        if matches!(event, Event::KubernetesSwitched { .. }) {
            self.follow_kubernetes().await;
        }
        self.step(event).await;
        self.flush_floor();
    }

    async fn step(&mut self, event: Event) {
        match self.state.step(event) {
            Ok(effects) => {
                let mut effects = VecDeque::from(effects);
                while let Some(effect) = effects.pop_front() {
                    match effect {
                        Effect::Journal { document, step } => {
                            let reports = following_reports(&mut effects);
                            self.journal(&document, &step, reports);
                        }
                        Effect::Commit { document } => {
                            let reports = following_reports(&mut effects);
                            self.journal(&document, &JournalStep::Proven, reports);
                        }
                        other => self.carry_out(other).await,
                    }
                }
            }
            Err(error) => tracing::error!(%error, "the reconcile machine refused an event"),
        }
        self.tell();
    }

    /// A step that could not be written down is taken again after a restart, which does no harm.
    fn stored(&self, result: Result<(), StoreError>) {
        self.parts.recorder.check(result.err().as_ref());
    }
}

/// What is told of a step is written down with it, so that no power cut comes between.
fn following_reports(effects: &mut VecDeque<Effect>) -> Vec<holdfast_core::reconcile::Report> {
    let mut reports = Vec::new();
    while let Some(Effect::Report(_)) = effects.front() {
        if let Some(Effect::Report(report)) = effects.pop_front() {
            reports.push(report);
        }
    }
    reports
}
