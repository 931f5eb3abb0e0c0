//! The task that observes: it brings together watches, looks and the table.

use super::{
    look::{is_ready_by_being_there, look, look_at_many},
    table::{Consequences, Table},
    versions::Versions,
    watches::{KindName, Seen, Watches},
};
use crate::{
    kubernetes::{Cluster, KubernetesError},
    probe::{self, AppProbe, Verdict},
};
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use holdfast_core::{
    object::ObjectKey,
    readiness::{Readiness, Summary},
    reconcile::{Event, Ticket},
};
use holdfast_protocol::report::{AppStatus, Health};
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

/// Looks at the same time.
const LOOKS: usize = 4;
/// So many objects of one kind to look at are looked at together: a list is one request, and a large one.
const TOGETHER: usize = 8;
/// Happenings that are taken in before anybody is told what follows from them all.
const AT_ONCE: usize = 256;
/// First pause before an object that is not ready is looked at again without having changed: its pods say why it is not, and they are not
/// watched.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Longest such pause.
const LAST_LOOK: Duration = Duration::from_secs(30);

/// An object to observe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What names it.
    pub key: ObjectKey,
    /// App of the document that it belongs to.
    pub app: String,
}

/// What to observe.
#[derive(Debug)]
pub struct Observation {
    /// For the answers.
    pub ticket: Ticket,
    /// The objects.
    pub targets: Vec<Target>,
    /// Names of all apps, in the document's order.
    pub apps: Vec<String>,
    /// Those of them that may fail alone.
    pub isolated: BTreeSet<String>,
    /// What the apps must answer beside, until [`Handle::end_probes`].
    pub probes: Vec<AppProbe>,
    /// Whether each probe is asked only until its first good answer.
    pub once: bool,
    /// Fingerprints by which objects are to be judged in place of what is known of them, as [`Versions::recorded`] takes them.
    pub records: Vec<(ObjectKey, u64)>,
    /// Where.
    pub cluster: Arc<Cluster>,
}

#[derive(Debug)]
enum Command {
    Observe(Box<Observation>),
    Stop,
    SettleProbes,
}

/// By which the observer is told what to do.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

impl Handle {
    /// Observes this in place of what was observed before.
    pub fn observe(&self, observation: Observation) {
        // The observer ends only with the daemon.
        let _ = self.commands.send(Command::Observe(Box::new(observation)));
    }

    /// Asks the apps nothing more: they have answered well for long enough. Those that may fail alone and have not are asked on until they
    /// answer, and count as degraded until then.
    pub fn end_probes(&self) {
        let _ = self.commands.send(Command::SettleProbes);
    }

    /// Stops the present observation, where there is one.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }
}

/// Where the observer tells what it sees.
#[derive(Clone, Debug)]
pub struct Output {
    /// To the machine.
    pub events: mpsc::UnboundedSender<Event>,
    /// State of each app.
    pub apps: watch::Sender<Vec<AppStatus>>,
}

/// Starts the observer; it runs until all handles are gone.
pub fn spawn(versions: Arc<Versions>, output: Output) -> Handle {
    let (commands, inbox) = mpsc::unbounded_channel();
    let (verdicts, answers) = mpsc::unbounded_channel();
    let observer = Observer {
        versions,
        output,
        inbox,
        table: Table::default(),
        watches: Watches::default(),
        current: None,
        told: None,
        queue: VecDeque::new(),
        busy: HashSet::new(),
        again: HashSet::new(),
        looks: FuturesUnordered::new(),
        pauses: HashMap::new(),
        probes: HashMap::new(),
        once: false,
        verdicts,
        answers,
    };
    tokio::spawn(observer.run().instrument(tracing::info_span!("observe")));
    Handle { commands }
}

type Look = BoxFuture<'static, Vec<(ObjectKey, Result<Readiness, KubernetesError>)>>;

struct Observer {
    versions: Arc<Versions>,
    output: Output,
    inbox: mpsc::UnboundedReceiver<Command>,
    table: Table,
    watches: Watches,
    current: Option<(Ticket, Arc<Cluster>)>,
    /// What the machine was told last.
    told: Option<Summary>,
    queue: VecDeque<ObjectKey>,
    busy: HashSet<ObjectKey>,
    /// Busy ones that changed again meanwhile.
    again: HashSet<ObjectKey>,
    looks: FuturesUnordered<Look>,
    /// When to look again at what is not ready, and the pause after that.
    pauses: HashMap<ObjectKey, (Instant, Duration)>,
    /// Probes under way, by their places; they end when they are dropped.
    probes: HashMap<usize, AbortOnDropHandle<()>>,
    /// Whether each of them ends with its first good answer.
    once: bool,
    verdicts: mpsc::UnboundedSender<Verdict>,
    answers: mpsc::UnboundedReceiver<Verdict>,
}

impl Observer {
    async fn run(mut self) {
        loop {
            let next_look = self.pauses.values().map(|(at, _)| *at).min();
            let timer = async move {
                match next_look {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = self.inbox.recv() => match command {
                    Some(Command::Observe(observation)) => self.begin(*observation).await,
                    Some(Command::Stop) => self.stop(),
                    Some(Command::SettleProbes) => {
                        let open = self.table.settle_probes();
                        self.once = true;
                        self.probes.retain(|place, _| open.contains(place));
                        self.tell();
                    }
                    None => return,
                },
                (kind, seen) = self.watches.next() => self.see(&kind, seen),
                () = self.versions.ended() => {
                    let mut consequences = self.table.written(&self.versions.take_ended(), &self.versions);
                    let recorded = self.table.recorded(&self.versions.take_recorded(), &self.versions);
                    consequences.add(recorded);
                    self.follow(consequences);
                }
                Some(answers) = self.looks.next() => {
                    for (key, answer) in answers {
                        self.looked(&key, answer);
                    }
                    self.tell();
                }
                Some((place, readiness)) = self.answers.recv() => {
                    if self.once && readiness.health == Health::Healthy {
                        self.probes.remove(&place);
                    }
                    self.table.probed(place, readiness);
                    self.tell();
                }
                () = timer => self.look_again(),
            }
            self.start_looks();
        }
    }

    /// Takes in what a watch says, and what others have said meanwhile.
    fn see(&mut self, kind: &KindName, seen: Seen) {
        let mut consequences = self.see_one(kind, seen);
        for _ in 0..AT_ONCE {
            let Some((kind, seen)) = self.watches.at_once() else {
                break;
            };
            consequences.add(self.see_one(&kind, seen));
        }
        self.follow(consequences);
    }

    fn see_one(&mut self, kind: &KindName, seen: Seen) -> Consequences {
        if let Seen::Broken(error) = &seen {
            tracing::debug!(kind = kind.1, %error, "a watch broke; it begins again");
            self.doubt();
        }
        self.table.see(kind, seen, &self.versions)
    }

    async fn begin(&mut self, observation: Observation) {
        let Observation {
            ticket,
            targets,
            apps,
            isolated,
            probes,
            once,
            records,
            cluster,
        } = observation;
        self.end_probes();
        self.once = once;
        let mut table = Table::new(targets, apps);
        table.isolate(&isolated);
        for probe in probes {
            let place = table.expect_probe(&probe.app);
            let asked = probe::begin(&cluster, place, probe, &self.verdicts);
            self.probes.insert(place, asked);
        }
        match &self.current {
            Some((_, former)) if Arc::ptr_eq(former, &cluster) => {
                self.watches.end(&table.inherit(&mut self.table));
            }
            // Another Kubernetes, or the same one after a pause: its lists say anew what is there.
            _ => self.watches.clear(),
        }
        self.table = table;
        self.told = None;
        self.queue.clear();
        self.again.clear();
        self.pauses.clear();
        self.versions.retain(self.table.keys());
        // Only now: the table before would hold them against what it saw in an earlier Kubernetes.
        self.versions.recorded(records);
        self.current = Some((ticket, cluster.clone()));
        for (kind, error) in self.watches.set(&cluster, &self.table.kinds()).await {
            tracing::warn!(kind = kind.1, %error, "a kind cannot be watched now");
            self.pause_kind(&kind);
        }
        // A look tells at once what a watch would tell only with the next change.
        let all = self.table.keys().filter(|key| !is_ready_by_being_there(key));
        self.queue.extend(all);
        self.tell();
    }

    fn end_probes(&mut self) {
        self.probes.clear();
        self.table.forget_probes();
        // What they said until now is of no use to the next ones.
        while self.answers.try_recv().is_ok() {}
    }

    fn stop(&mut self) {
        self.current = None;
        self.end_probes();
        self.watches.clear();
        self.queue.clear();
        self.pauses.clear();
    }

    /// Objects of a kind that cannot be watched are looked at instead, and the watch is tried again with them.
    fn pause_kind(&mut self, kind: &(String, String)) {
        let pause = (Instant::now() + LAST_LOOK, LAST_LOOK);
        for key in self.table.keys() {
            if key.api_version == kind.0 && key.kind == kind.1 {
                self.pauses.insert(key, pause);
            }
        }
    }

    fn follow(&mut self, consequences: Consequences) {
        for key in consequences.look {
            // A change starts the series of looks anew.
            self.pauses.remove(&key);
            self.want_look(key);
        }
        if !consequences.drifted.is_empty() && self.current.is_some() {
            let keys = consequences.drifted;
            let _ = self.output.events.send(Event::DriftDetected { keys });
        }
        self.tell();
    }

    fn want_look(&mut self, key: ObjectKey) {
        if self.busy.contains(&key) {
            self.again.insert(key);
        } else if !is_ready_by_being_there(&key) && !self.queue.contains(&key) {
            self.queue.push_back(key);
        }
    }

    fn start_looks(&mut self) {
        let Some((_, cluster)) = &self.current else {
            return;
        };
        while self.looks.len() < LOOKS
            && let Some(key) = self.queue.pop_front()
        {
            if is_ready_by_being_there(&key) {
                continue;
            }
            let cluster = cluster.clone();
            let is_alike = |other: &ObjectKey| other.api_version == key.api_version && other.kind == key.kind;
            if self
                .queue
                .iter()
                .filter(|other| is_alike(other))
                .take(TOGETHER)
                .count()
                < TOGETHER
            {
                self.busy.insert(key.clone());
                self.looks.push(Box::pin(async move {
                    let answer = look(&cluster, &key).await;
                    vec![(key, answer)]
                }));
                continue;
            }
            let kind = (key.api_version.clone(), key.kind.clone());
            let (mut alike, others) = std::mem::take(&mut self.queue)
                .into_iter()
                .partition::<Vec<_>, _>(|other| is_alike(other));
            self.queue = others.into();
            alike.push(key);
            self.busy.extend(alike.iter().cloned());
            self.looks.push(Box::pin(
                async move { look_at_many(&cluster, &kind, alike).await },
            ));
        }
    }

    fn looked(&mut self, key: &ObjectKey, answer: Result<Readiness, KubernetesError>) {
        self.busy.remove(key);
        if !self.table.contains(key) || self.current.is_none() {
            self.again.remove(key);
            return;
        }
        match answer {
            Ok(readiness) => {
                self.table.looked(key, readiness);
            }
            Err(error) => tracing::debug!(%error, "no look at an object"),
        }
        if self.again.remove(key) {
            self.queue.push_back(key.clone());
        } else if self.table.is_unready(key) {
            let pause = self
                .pauses
                .get(key)
                .map_or(SECOND_LOOK, |(_, pause)| (*pause * 2).min(LAST_LOOK));
            self.pauses.insert(key.clone(), (Instant::now() + pause, pause));
        } else {
            self.pauses.remove(key);
        }
        self.thin_out();
    }

    /// Lets go of what the looks at many objects needed, once none is under way.
    fn thin_out(&mut self) {
        if self.busy.is_empty() && self.queue.is_empty() {
            self.busy = HashSet::new();
            self.again.shrink_to_fit();
            self.queue = VecDeque::new();
            self.pauses.shrink_to_fit();
        }
    }

    fn look_again(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self
            .pauses
            .iter_mut()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(key, (at, _))| {
                // Set for good when the look has ended.
                *at = now + LAST_LOOK;
                key.clone()
            })
            .collect();
        for key in due {
            self.want_look(key);
        }
    }

    fn tell(&mut self) {
        let Some((ticket, _)) = &self.current else {
            return;
        };
        let states = self.table.app_states();
        self.output.apps.send_if_modified(|known| {
            let other = *known != states;
            *known = states;
            other
        });
        let summary = self.table.summary();
        if self.told.as_ref() != Some(&summary) {
            self.told = Some(summary.clone());
            let event = Event::ReadinessChanged {
                ticket: *ticket,
                summary,
            };
            let _ = self.output.events.send(event);
        }
    }

    fn doubt(&self) {
        if let Some((_, cluster)) = &self.current {
            cluster.raise_doubt();
        }
    }
}
