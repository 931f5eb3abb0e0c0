//! The node: every part built, connected and started in one place.
//!
//! ```text
//! sync ──▶ intake ──▶ driver ──▶ apply ──▶ Kubernetes
//!  ▲      (admission,  (machine)    │         │
//!  │        store)        ▲         ▼         ▼
//!  └── report ◀───────────┴───── observe ◀── watches
//! ```
//!
//! In: settings, identity, store. Out: a node that runs until shutdown, and a [`RunningNode`] for the local API. It guarantees that no part
//! waits for the link, that no part's failure ends another, and that what the store holds is taken up before the first packet leaves.

mod handle;

pub use handle::Handle;

use crate::{
    apply::Objects,
    artifacts::Fetcher,
    boots::{self, BootLog},
    enrol::{
        client::{first_desired, forget_first_desired},
        renew::validity,
    },
    identity::{Identity, clock::TimeFloor},
    images::{Keeper, Looks},
    kubernetes::{
        KubernetesState,
        care::{self, Care},
        control,
        datastore::Snapshots,
        own_node::OwnNode,
        runner::Runner,
        supervisor::{ChildSupervisor, NotSupervised},
        supervisor_systemd::SystemdSupervisor,
        switch::Switcher,
    },
    local_api::view::RunningNode,
    machine::{Flash, Space},
    observe::{self, Versions},
    os,
    pace::Pace,
    reconcile::{
        Driver, Intake, Parts,
        system::{Surroundings, System},
    },
    report::{Conditions, Live, News, Progress, Recorder, Reporter, agent},
    settings::Settings,
    sync::{Link, LinkState, Mailbox as _, Signals},
};
use holdfast_protocol::{
    NodeId, Problem,
    event::{EventKind, Severity},
};
use holdfast_store::{Blobs, Store};
use jiff::SignedDuration;
use std::sync::{Arc, atomic::AtomicU64};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Runs the node until `shutdown`. `running` gets the node once it is built.
pub async fn run(
    settings: Arc<Settings>,
    identity: watch::Receiver<Arc<Identity>>,
    store: Arc<Store>,
    floor: Arc<TimeFloor>,
    shutdown: CancellationToken,
    running: watch::Sender<Option<Arc<dyn RunningNode>>>,
) -> anyhow::Result<()> {
    let node = identity.borrow().node.clone();
    let blobs = Blobs::open(&settings.state_dir).map_err(|error| error.problem())?;
    let signals = Signals::default();
    let conditions = Arc::new(Conditions::default());
    let recorder = Recorder {
        node: node.clone(),
        store: store.clone(),
        floor: floor.clone(),
        signals: signals.clone(),
        conditions: conditions.clone(),
    };
    boots::tell(&BootLog::new(&settings.state_dir), &recorder);
    tell_start(&recorder);

    let (kubernetes, kubernetes_state) = watch::channel(KubernetesState::default());
    let (control, orders) = control::channel();
    let switcher = Arc::new(Switcher::new(
        settings.clone(),
        node.clone(),
        blobs.clone(),
        control,
        kubernetes_state.clone(),
    ));
    let (progress, progress_state) = watch::channel(Progress::default());
    let (apps, app_states) = watch::channel(Vec::new());
    let (documents, new_documents) = mpsc::unbounded_channel();
    let (orders_of_people, people) = mpsc::channel(1);
    let (events, machine_events) = mpsc::unbounded_channel();
    let (link, link_state) = watch::channel(LinkState::default());

    let versions = Arc::new(Versions::default());
    let observer = observe::spawn(
        versions.clone(),
        observe::Output {
            events: events.clone(),
            apps,
        },
    );
    let objects = Objects::new(store.clone(), blobs.clone(), identity.clone());
    let images = Keeper::new(&settings, store.clone(), blobs.clone(), identity.clone());
    let fetcher = Fetcher::new(blobs, identity.clone(), settings.clone());
    let live = Live {
        fetch: fetcher.progress(),
        apply: Arc::default(),
    };
    let (os_shown, os_status) = watch::channel(None);
    let system = match os::open(&settings, Some(fetcher.clone())) {
        Ok(slots) => slots.map(|slots| {
            let surroundings = Surroundings {
                settings: settings.clone(),
                recorder: recorder.clone(),
                switcher: switcher.clone(),
                boots: BootLog::new(&settings.state_dir),
                slots,
            };
            System::new(surroundings, os_shown)
        }),
        // It runs on as a box whose system nobody switches.
        Err(problem) => {
            tracing::error!(%problem, "the slots of the operating system cannot be used");
            conditions.set("os", problem, floor.now());
            None
        }
    };
    let driver = Driver::new(Parts {
        settings: settings.clone(),
        objects: objects.clone(),
        fetcher,
        live: live.clone(),
        images: images.clone(),
        recorder: recorder.clone(),
        versions,
        observer,
        documents: new_documents,
        orders: people,
        events: machine_events,
        event_sender: events,
        kubernetes: kubernetes_state.clone(),
        switcher,
        system: system.clone(),
        progress,
        shutdown: shutdown.clone(),
    })
    .await;
    let reporter = Arc::new(Reporter {
        node: node.clone(),
        settings: settings.clone(),
        store: store.clone(),
        floor: floor.clone(),
        conditions,
        progress: progress_state,
        kubernetes: kubernetes_state.clone(),
        os: os_status,
        apps: app_states,
        live,
        flash: Flash::new(
            "/sys".into(),
            "/proc".into(),
            &settings.state_dir,
            settings.kubernetes_pid_file(),
        ),
        agent: agent(),
        last_sequence: AtomicU64::new(0),
    });
    let mut intake = Intake {
        store: store.clone(),
        identity: identity.clone(),
        floor: floor.clone(),
        recorder,
        reporter: reporter.clone(),
        documents,
        refused: None,
    };
    take_first_document(&settings, &mut intake);

    let mut parts = JoinSet::new();
    parts.spawn(tell_renewals(identity.clone(), intake.recorder.clone()));
    if let Some(system) = system.clone() {
        parts.spawn(system.follow().instrument(tracing::info_span!("os")));
    }
    parts.spawn(driver.run().instrument(tracing::info_span!("reconcile")));
    let looks = Looks {
        progress: reporter.progress.clone(),
        kubernetes: kubernetes_state.clone(),
        apps: reporter.apps.clone(),
    };
    let keeping = images.run(looks, intake.recorder.clone());
    parts.spawn(keeping.instrument(tracing::info_span!("images")));
    let space = Arc::new(Space {
        state_directory: settings.state_dir.clone(),
        data_directory: settings.kubernetes.data_dir.clone(),
        reserve: settings.disk_reserve.0,
        store: store.clone(),
        blobs: Blobs::open(&settings.state_dir).map_err(|error| error.problem())?,
        snapshots: Snapshots::new(care::snapshot_directory(&settings)),
        recorder: intake.recorder.clone(),
    });
    parts.spawn(space.run().instrument(tracing::info_span!("space")));
    let repair = Arc::new(Notify::new());
    let care = settings.kubernetes.supervise.then(|| {
        let (recorder, state) = (intake.recorder.clone(), kubernetes_state.clone());
        Arc::new(Care::new(&settings, recorder, state, repair.clone()))
    });
    if let Some(care) = care.clone() {
        let span = tracing::info_span!("kubernetes-care");
        parts.spawn(care.run(reporter.progress.clone()).instrument(span));
    }
    spawn_kubernetes(
        &mut parts,
        &settings,
        &node,
        orders,
        kubernetes,
        care.clone(),
        repair,
    );
    parts.spawn(
        reporter
            .clone()
            .announce(signals.clone())
            .instrument(tracing::info_span!("report")),
    );
    let enabled = settings.sync.enabled;
    let handle = Handle {
        reporter,
        objects,
        kubernetes: kubernetes_state,
        link: link_state,
        orders: orders_of_people,
        system: system.clone(),
        enabled,
    };
    running.send_replace(Some(Arc::new(handle)));
    if enabled {
        let link = Link {
            settings,
            identity,
            signals,
            state: link,
            shutdown: shutdown.clone(),
        };
        // The link alone has something to say before the end.
        link.run(intake).instrument(tracing::info_span!("sync")).await;
    } else {
        shutdown.cancelled().await;
    }
    parts.shutdown().await;
    if let Some(care) = care {
        // The machine may be about to go down: what is in memory alone must not go with it.
        tokio::task::spawn_blocking(move || care.save()).await?;
    }
    Ok(())
}

/// Tells the hub of this start, and of a store that was damaged before it.
fn tell_start(recorder: &Recorder) {
    let started = recorder.tell(News {
        kind: EventKind::Started,
        severity: Severity::Info,
        message: format!("holdfast {} started", env!("CARGO_PKG_VERSION")),
        generation: None,
        problem: None,
    });
    // What the disk does not take is in the log and in the conditions already.
    let _ = started;
    let quarantined = match recorder.store.quarantined() {
        Ok(Some(quarantined)) => quarantined,
        Ok(None) => return,
        Err(error) => return recorder.check(Some(&error)),
    };
    // The store remembers it for good; it is news right after it happened.
    if recorder.floor.now().duration_since(quarantined.at) > SignedDuration::from_mins(1) {
        return;
    }
    let (code, what) = if quarantined.newer {
        (
            holdfast_store::codes::STORE_NEWER,
            "was written by a newer version",
        )
    } else {
        (holdfast_store::codes::STORE_CORRUPT, "was damaged")
    };
    let problem = Problem::new(
        code,
        format!(
            "the store {what} and set aside as {}: {}",
            quarantined.path.display(),
            quarantined.detail
        ),
        if quarantined.newer {
            "nothing: the hub sends the desired state again"
        } else {
            "nothing: the hub sends the desired state again; replace the disk if this recurs"
        },
    );
    let _ = recorder.tell(News {
        kind: EventKind::StoreQuarantined,
        severity: Severity::Alarm,
        message: problem.message.clone(),
        generation: None,
        problem: Some(problem),
    });
}

/// Tells the hub of each new certificate.
async fn tell_renewals(mut identity: watch::Receiver<Arc<Identity>>, recorder: Recorder) {
    while identity.changed().await.is_ok() {
        let renewed = identity.borrow_and_update().clone();
        let until = validity(&renewed.certificate)
            .map(|(_, end)| format!(" until {end}"))
            .unwrap_or_default();
        // What the disk does not take is in the log and in the conditions already.
        let _ = recorder.tell(News {
            kind: EventKind::CertificateRenewed,
            severity: Severity::Info,
            message: format!("certificate renewed{until}"),
            generation: None,
            problem: None,
        });
    }
}

/// The document that came with the enrolment, so that a new box begins before its first session.
fn take_first_document(settings: &Settings, intake: &mut Intake) {
    let Some(envelope) = first_desired(settings) else {
        return;
    };
    if let Err(problem) = intake.desired(&envelope.to_json()) {
        tracing::warn!(%problem, "the first document cannot be stored now; the hub sends it again");
        return;
    }
    if let Err(error) = forget_first_desired(settings) {
        tracing::warn!(%error, "the first document's file cannot be removed");
    }
}

fn spawn_kubernetes(
    parts: &mut JoinSet<()>,
    settings: &Settings,
    node: &NodeId,
    orders: control::Orders,
    state: watch::Sender<KubernetesState>,
    care: Option<Arc<Care>>,
    restart: Arc<Notify>,
) {
    let kubernetes = &settings.kubernetes;
    let supervised = kubernetes.supervise;
    let runner = Runner {
        kubeconfig: kubernetes.kubeconfig.clone(),
        supervised,
        log: kubernetes.log_file.clone().filter(|_| supervised),
        node: OwnNode {
            name: kubernetes
                .node_name
                .clone()
                .unwrap_or_else(|| node.as_str().to_owned()),
            required: supervised || kubernetes.node_name.is_some(),
        },
        ready_poll: kubernetes.ready_poll,
        request_timeout: settings.apply.request_timeout,
        pace: Pace::new(kubernetes.restart_min, kubernetes.restart_max),
        orders,
        before_start: Arc::new(move |target| care.as_ref().map_or(Ok(()), |care| care.before_start(target))),
        restart,
        doubt: Arc::new(Notify::new()),
        state,
    };
    let span = tracing::info_span!("kubernetes");
    if supervised {
        if kubernetes.supervisor == "systemd" {
            parts.spawn(runner.run(SystemdSupervisor::new(settings)).instrument(span));
        } else {
            parts.spawn(runner.run(ChildSupervisor::new(settings)).instrument(span));
        }
    } else {
        parts.spawn(runner.run(NotSupervised).instrument(span));
    }
}
