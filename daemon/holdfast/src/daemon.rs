//! The daemon around the node: state directory, lock, store, local API, enrolment; the node itself is [`crate::node`].
//!
//! An enrolled box needs nothing from outside to start. One that is not enrolled serves the local API and waits for a token; after
//! the enrolment it goes on without a restart.

use crate::{
    boots::{BootLog, Note},
    codes,
    enrol::{
        client::{self, EnrolError},
        renew,
        token::{self, FoundToken, Wiped},
    },
    identity::{self, Identity, IdentityError, clock::TimeFloor},
    local_api::{
        self, Surroundings,
        view::{EnrolResult, RunningNode},
    },
    node,
    pace::Pace,
    personal, quiet,
    reset::{self, Outcome},
    seed,
    settings::Settings,
    telemetry::metrics::METRICS,
};
use holdfast_protocol::Problem;
use holdfast_store::{Options, StateLock, Store};
use jiff::Timestamp;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How often a box that waits for its token looks for the token file. The file may come with a mount (a USB stick, the EFI system
/// partition), which no file watch sees. Once the box is enrolled, nobody looks.
const LOOK_FOR_TOKEN: Duration = Duration::from_secs(10);
/// A token that the hub refused is tried again after this many times `enrolment.retry_max`: what was wrong may have been mended at the
/// hub, and nobody comes to the box to say so.
const REFUSED: u32 = 4;
/// How long the parts may take to end.
const DRAIN: Duration = Duration::from_secs(10);

type EnrolOrders = mpsc::Receiver<local_api::EnrolCommand>;

/// Everything that is opened before the daemon says that it is ready.
pub struct Daemon {
    settings: Arc<Settings>,
    lock: StateLock,
    floor: Arc<TimeFloor>,
    store: Arc<Store>,
    identity: Option<Identity>,
    socket: UnixListener,
    metrics: Option<TcpListener>,
}

/// The parts that run.
pub struct Running {
    _lock: StateLock,
    shutdown: CancellationToken,
    life: JoinHandle<Result<(), Problem>>,
    local: JoinSet<()>,
    socket: PathBuf,
}

impl Daemon {
    /// Opens everything; the first thing that is wrong is named.
    pub async fn build(settings: Arc<Settings>) -> Result<Self, Problem> {
        identity::prepare_state_dir(&settings.state_dir).map_err(|error| Problem::from(&error))?;
        let lock = StateLock::acquire(&settings.state_dir).map_err(|error| error.problem())?;
        carry_out_reset(&settings, &lock)?;
        if let Err(error) = reset::reserve(&settings.state_dir) {
            tracing::warn!(%error, "there is no room for the order of a factory reset");
        }
        let directory = settings.identity_dir();
        let floor = TimeFloor::open(&directory).map_err(|error| Problem::from(&error))?;
        heed_clock(&settings, &floor);
        let mut identity = Identity::load(&directory).map_err(|error| Problem::from(&error))?;
        if let Some(identity) = &mut identity {
            match Identity::load_or_make_sealing(&directory) {
                Ok(key) => identity.sealing = Some(key),
                Err(error @ (IdentityError::ModeTooWide { .. } | IdentityError::OwnerWrong { .. })) => {
                    return Err(Problem::from(&error));
                }
                // A full disk is no reason not to run: what is sealed to this box is what fails, and it says why.
                Err(error) => tracing::warn!("there is no sealing key: {error}"),
            }
        }
        let options = Options {
            outbox_max_events: usize::try_from(settings.report.outbox_max_events).unwrap_or(usize::MAX),
            outbox_max_bytes: settings.report.outbox_max_bytes.0,
            ..Options::default()
        };
        let (store, quarantined) = Store::open_or_quarantine(&settings.state_dir, options, floor.now())
            .map_err(|error| error.problem())?;
        if let Some(quarantined) = quarantined {
            tracing::error!(path = %quarantined.path.display(), "the store was set aside: {}", quarantined.detail);
        }
        // A disk that takes no note is named in the log and keeps nothing from starting.
        BootLog::new(&settings.state_dir).note_or_log(Note::Daemon {
            generation: store.highest().ok().flatten().map(|highest| highest.generation),
            clock_trusted: floor.is_system_clock_trusted(),
        });
        let socket = local_api::bind(&settings.socket).map_err(|error| Problem::from(&error))?;
        let metrics = match settings.metrics.listen {
            Some(address) => Some(TcpListener::bind(address).await.map_err(|error| {
                Problem::new(
                    codes::METRICS_ADDRESS_UNUSABLE,
                    format!("cannot listen on {address}: {error}"),
                    "set metrics.listen to a free address of this machine, or leave it out",
                )
            })?),
            None => None,
        };
        METRICS.started.set(Timestamp::now().as_second());
        Ok(Self {
            settings,
            lock,
            floor: Arc::new(floor),
            store: Arc::new(store),
            identity,
            socket,
            metrics,
        })
    }

    /// Starts all parts.
    pub fn spawn(self) -> Running {
        let shutdown = CancellationToken::new();
        let (identity_sender, identity) = watch::channel(None);
        let (problem_sender, enrolment_problem) = watch::channel(None);
        let (node_sender, node) = watch::channel(None);
        let (enrol, orders) = mpsc::channel(1);
        let surroundings = Surroundings {
            settings: self.settings.clone(),
            identity,
            enrolment_problem,
            node,
            store: Some(self.store.clone()),
            enrol,
        };
        let mut local = JoinSet::new();
        local.spawn(local_api::serve(self.socket, Arc::new(surroundings)));
        if let Some(listener) = self.metrics {
            local.spawn(local_api::serve_metrics(listener));
        }
        local.spawn(quiet::run(self.store.clone()));
        let socket = self.settings.socket.clone();
        let life = Life {
            settings: self.settings,
            floor: self.floor,
            store: self.store,
            shutdown: shutdown.clone(),
            identity: identity_sender,
            problem: problem_sender,
            node: node_sender,
        };
        Running {
            _lock: self.lock,
            life: tokio::spawn(life.live(self.identity, orders)),
            local,
            shutdown,
            socket,
        }
    }
}

impl Running {
    /// Waits until the node ends by itself, which it does only when it cannot go on.
    pub async fn ended(&mut self) -> Result<(), Problem> {
        (&mut self.life)
            .await
            .unwrap_or_else(|error| Err(internal(&error.to_string())))
    }

    /// Ends all parts in good order. Kubernetes is left running.
    pub async fn drain(mut self) -> Result<(), Problem> {
        self.shutdown.cancel();
        let ended = timeout(DRAIN, self.ended()).await;
        self.local.shutdown().await;
        // A socket that is left behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.socket);
        ended.unwrap_or_else(|_| Err(internal("some parts did not end in time and were cut off")))
    }
}

/// Carries out a factory reset that was ordered before the machine was restarted, where no unit of the system did.
fn carry_out_reset(settings: &Settings, lock: &StateLock) -> Result<(), Problem> {
    let boots = BootLog::new(&settings.state_dir);
    match reset::carry_out(settings, Path::new(personal::SOURCE), &boots, lock) {
        Ok(Outcome::Done(lines)) => {
            for line in lines {
                tracing::warn!("factory reset: {line}");
            }
            // What was erased made room for directories that must be there.
            identity::prepare_state_dir(&settings.state_dir).map_err(|error| Problem::from(&error))
        }
        Ok(Outcome::None | Outcome::NotYet) => Ok(()),
        Err(problem) if problem.code == codes::RESET_ORDER_DAMAGED => {
            tracing::error!(code = %problem.code, "{}; {}", problem.message, problem.action);
            Ok(())
        }
        Err(problem) => Err(problem),
    }
}

fn internal(message: &str) -> Problem {
    Problem::new(
        holdfast_protocol::codes::INTERNAL,
        message,
        "report this with the log of the same moment",
    )
}

/// Sets a system clock that is certainly wrong, where the settings allow it, and says so otherwise.
fn heed_clock(settings: &Settings, floor: &TimeFloor) {
    let Some(behind) = floor.behind() else { return };
    METRICS.clock_behind.set(behind.as_secs());
    if settings.clock.set_system {
        match set_clock(floor.now()) {
            Ok(()) => {
                tracing::warn!(
                    behind_s = behind.as_secs(),
                    "the system clock was behind the hub's signed time and was set to it"
                );
                METRICS.clock_behind.set(0);
                return;
            }
            Err(error) => tracing::warn!(%error, "the system clock cannot be set"),
        }
    }
    tracing::warn!(
        behind_s = behind.as_secs(),
        "the system clock is behind the hub's signed time; the hub's time is used, and nothing that runs is touched"
    );
}

fn set_clock(time: Timestamp) -> nix::Result<()> {
    let time = nix::sys::time::TimeSpec::new(time.as_second(), i64::from(time.subsec_nanosecond()));
    nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, time)
}

struct Life {
    settings: Arc<Settings>,
    floor: Arc<TimeFloor>,
    store: Arc<Store>,
    shutdown: CancellationToken,
    identity: watch::Sender<Option<Arc<Identity>>>,
    problem: watch::Sender<Option<Problem>>,
    node: watch::Sender<Option<Arc<dyn RunningNode>>>,
}

impl Life {
    /// From a box without a name to a node that runs, until the shutdown.
    async fn live(self, identity: Option<Identity>, mut orders: EnrolOrders) -> Result<(), Problem> {
        let identity = match identity {
            Some(identity) => {
                wipe_leftover(&self.settings, &identity);
                identity
            }
            // Cutting it off is safe at any point: the key is on the disk before it is shown to the hub.
            None => {
                let seed = self.run_seed();
                let identity = tokio::select! {
                    identity = self.enrolment(&mut orders) => Some(identity),
                    () = self.shutdown.cancelled() => None,
                };
                if let Some(seed) = seed {
                    seed.end().await;
                }
                let Some(identity) = identity else { return Ok(()) };
                identity
            }
        };
        let settings = seed::settings_after(&self.settings, &self.store, &identity);
        tracing::info!(node = %identity.node, hub = %identity.hub_url, "enrolled");
        METRICS.enrolled.set(1);
        let identity = Arc::new(identity);
        let (renewed, current) = watch::channel(identity.clone());
        self.identity.send_replace(Some(identity.clone()));
        let mut beside = JoinSet::new();
        beside.spawn(refuse_orders(orders, identity));
        beside.spawn(renew::run(
            self.settings.clone(),
            renewed,
            self.floor.clone(),
            self.shutdown.clone(),
        ));
        beside.spawn(follow(current.clone(), self.identity));
        node::run(
            settings,
            current,
            self.store,
            self.floor,
            self.shutdown,
            self.node,
        )
        .await
        .map_err(|error| match error.downcast::<Problem>() {
            Ok(problem) => problem,
            Err(error) => internal(&format!("{error:#}")),
        })
    }

    /// A box without a hub runs what came with its image.
    fn run_seed(&self) -> Option<seed::Running> {
        seed::start(
            &self.settings,
            &self.store,
            &self.floor,
            &self.shutdown,
            &self.node,
        )
        .unwrap_or_else(|problem| {
            self.complain(problem);
            None
        })
    }

    /// Waits for a token, from the local API or from where an unattended box finds one, until one enrols the box.
    async fn enrolment(&self, orders: &mut EnrolOrders) -> Identity {
        tracing::info!("not enrolled; waiting for a token");
        let enrolment = &self.settings.enrolment;
        let mut pace = Pace::new(enrolment.retry_min, enrolment.retry_max);
        // The token that was tried last, and when it is tried again.
        let mut tried: Option<(String, Instant)> = None;
        loop {
            match token::find(enrolment) {
                Some(Ok(found)) => {
                    let now = Instant::now();
                    let rests = tried
                        .as_ref()
                        .is_some_and(|(id, again)| *id == found.token.id && now < *again);
                    if !rests {
                        match self.try_once(&found).await {
                            Ok((identity, _)) => return identity,
                            Err(error) => {
                                let wait = if error.is_transient() {
                                    pace.next_wait()
                                } else {
                                    enrolment.retry_max * REFUSED
                                };
                                tried = Some((found.token.id, Instant::now() + wait));
                            }
                        }
                    }
                }
                Some(Err(problem)) => self.complain(problem),
                None => {}
            }
            let again = tried
                .as_ref()
                .map(|(_, again)| again.saturating_duration_since(Instant::now()));
            let look = enrolment.token_file.is_some().then_some(LOOK_FOR_TOKEN);
            let next = again.into_iter().chain(look).min();
            tokio::select! {
                () = async { match next {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                } } => {}
                Some((token, reply)) = orders.recv() => {
                    let found = FoundToken { token, source: token::TokenSource::Given };
                    match self.try_once(&found).await {
                        Ok((identity, result)) => {
                            answer(reply, Ok(result));
                            return identity;
                        }
                        Err(error) => answer(reply, Err((&error).into())),
                    }
                }
            }
        }
    }

    async fn try_once(&self, found: &FoundToken) -> Result<(Identity, EnrolResult), EnrolError> {
        tracing::info!(source = %found.source, hub = %found.token.hub_url, "enrolling");
        match client::enrol(&self.settings, &found.token, &self.floor).await {
            Ok(identity) => {
                self.problem.send_replace(None);
                let mut notes = Vec::new();
                if let Wiped::Left(note) = found.source.wipe() {
                    tracing::warn!("{note}");
                    notes.push(note);
                }
                let result = EnrolResult {
                    node: identity.node.clone(),
                    hub_url: identity.hub_url.clone(),
                    notes,
                };
                Ok((identity, result))
            }
            Err(error) => {
                self.complain((&error).into());
                Err(error)
            }
        }
    }

    fn complain(&self, problem: Problem) {
        let known = self.problem.borrow().as_ref() == Some(&problem);
        if !known {
            tracing::warn!(code = %problem.code, action = %problem.action, "not enrolled: {}", problem.message);
            self.problem.send_replace(Some(problem));
        }
    }
}

fn answer(reply: oneshot::Sender<Result<EnrolResult, Problem>>, result: Result<EnrolResult, Problem>) {
    if reply.send(result).is_err() {
        tracing::debug!("nobody waited for the outcome of the enrolment");
    }
}

/// A crash between the enrolment and the wiping leaves the token's file behind.
fn wipe_leftover(settings: &Settings, identity: &Identity) {
    let Some(path) = &settings.enrolment.token_file else {
        return;
    };
    let Ok(found) = token::from_file(path) else { return };
    if Some(&found.token.id) == identity.enrolled_by.as_ref() {
        if let Wiped::Left(note) = found.source.wipe() {
            tracing::warn!("{note}");
        }
    } else {
        tracing::warn!(path = %path.display(), "this box is enrolled already; the token in the file was not used and should be removed");
    }
}

/// Shows renewed identities to the local API.
async fn follow(mut current: watch::Receiver<Arc<Identity>>, shown: watch::Sender<Option<Arc<Identity>>>) {
    while current.changed().await.is_ok() {
        let identity = current.borrow_and_update().clone();
        shown.send_replace(Some(identity));
    }
}

async fn refuse_orders(mut orders: EnrolOrders, identity: Arc<Identity>) {
    while let Some((_, reply)) = orders.recv().await {
        let error = EnrolError::AlreadyEnrolled {
            node: identity.node.clone(),
        };
        answer(reply, Err((&error).into()));
    }
}
