//! The composition root: opens what is on disk, starts every part, waits, and ends them in order.

use crate::{
    api::{self, operators},
    authority::{Authority, FirstStart},
    blobs::BlobFiles,
    broker::{
        Broker, Ingest,
        embedded::{Embedded, EmbeddedSettings, Limits},
        external::{External, ExternalSettings},
    },
    config::{BrokerKind, Config},
    database::{
        Database,
        audit::{self, Actor},
        operators as stored, reports,
    },
    files,
    hub::{Attached, Hub},
    names::Names,
    publisher, server,
    tls::{self, Certificate},
};
use anyhow::{Context as _, bail};
use holdfast_protocol::operator::OperatorRole;
use jiff::Timestamp;
use serde::Serialize;
use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Time that requests have to finish on shutdown.
const DRAIN: Duration = Duration::from_secs(10);
/// Keep-alive of the hub's session with an external broker.
const BROKER_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Where the hub can be reached, printed as one line of JSON on standard output when it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// URL of the HTTPS listener, from this machine.
    pub api: String,
    /// URL of the plain listener, where there is one.
    pub plain: Option<String>,
    /// URL of the broker's MQTT listener, from this machine; nodes may be told another (`broker.public`).
    pub mqtt: String,
    /// File with the bearer token of the first administrator.
    pub admin_token_file: PathBuf,
}

/// What is on disk, opened.
pub struct Opened {
    /// The database.
    pub database: Database,
    /// The keys.
    pub authority: Authority,
    /// Where the first administrator's token is.
    pub admin_token_file: PathBuf,
    _lock: File,
}

/// Opens the data directory for this process alone; on the first start makes database, keys and administrator.
pub async fn open(config: &Config) -> anyhow::Result<Opened> {
    let data_dir = &config.data_dir;
    files::private_directory(data_dir)
        .with_context(|| format!("data directory {} cannot be made", data_dir.display()))?;
    let lock = lock(data_dir)?;
    BlobFiles::new(data_dir)
        .prepare()
        .context("the blob directory cannot be used")?;
    let path = database_file(config);
    let first_start = if path.exists() {
        FirstStart::No
    } else {
        FirstStart::Yes
    };
    let authority = Authority::open(data_dir, first_start).map_err(|error| error.problem())?;
    if first_start == FirstStart::Yes {
        // SQLite gives its other files the mode of this one. An empty file is an empty database.
        files::write(&path, &[], files::PRIVATE).with_context(|| path.display().to_string())?;
    }
    let database = Database::open(&path).await.map_err(|error| error.problem())?;
    let admin_token_file = data_dir.join("admin.token");
    first_administrator(&database, &admin_token_file).await?;
    Ok(Opened {
        database,
        authority,
        admin_token_file,
        _lock: lock,
    })
}

/// The broker's address by which it is reached from this machine.
fn reachable_broker(listen: String) -> String {
    let bound = listen
        .strip_prefix("mqtts://")
        .and_then(|address| address.parse().ok());
    bound.map_or(listen, |bound| format!("mqtts://{}", Names::reachable(bound)))
}

/// Where the database is.
fn database_file(config: &Config) -> PathBuf {
    config.data_dir.join("hub.db")
}

fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("{} cannot be opened", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another holdfast-hub uses the data directory {}; stop it, or choose another data_dir",
            data_dir.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Makes the first administrator where there are no operators. The file is written first: after a crash in between, the next start
/// writes it again.
async fn first_administrator(database: &Database, file: &Path) -> anyhow::Result<()> {
    if !stored::list(database.read()).await?.is_empty() {
        return Ok(());
    }
    let token = operators::new_token().map_err(|error| error.problem)?;
    files::write(file, format!("{token}\n").as_bytes(), files::PRIVATE)
        .with_context(|| format!("{} cannot be written", file.display()))?;
    operators::add(database, &Actor::Hub, "admin", OperatorRole::Admin, token)
        .await
        .map_err(|error| error.problem)?;
    Ok(())
}

/// Runs the hub until `shutdown`; calls `ready` once everything is reachable.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: impl FnOnce(&Ready),
) -> anyhow::Result<()> {
    let opened = open(&config).await?;
    let listener = bind(config.api.listen, "api.listen").await?;
    let address = listener.local_addr()?;
    let plain = match config.api.plain_listen {
        Some(address) => Some(bind(address, "api.plain_listen").await?),
        None => None,
    };
    let names = Names::new(&config, address);
    let lifetime = config.enrolment.hub_certificate_lifetime.0;
    let renewal = opened
        .authority
        .renew_hub_certificate(names.certificate(), lifetime)?;
    let certificate = Arc::new(Certificate::read(opened.authority.tls_files())?);
    let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(Arc::clone(&certificate))?));

    let hub = Arc::new(Hub::new(
        config,
        opened.database,
        opened.authority,
        names.public_url().to_owned(),
        shutdown.clone(),
    ));
    hub.write_revoked().await?;
    let broker = RunningBroker::start(&hub).await?;
    let listen_address = broker.as_broker().listen_address();
    let addresses = names.broker_addresses(&hub.config, &listen_address);
    hub.set_broker(Attached {
        broker: broker.as_broker(),
        addresses,
        connected: broker.connected(),
    });

    let tasks = TaskTracker::new();
    let router = api::router(Arc::clone(&hub));
    let ready_line = Ready {
        ready: true,
        api: format!("https://{}", Names::reachable(address)),
        plain: plain
            .as_ref()
            .map(|listener| {
                listener
                    .local_addr()
                    .map(|address| format!("http://{}", Names::reachable(address)))
            })
            .transpose()?,
        mqtt: reachable_broker(listen_address),
        admin_token_file: opened.admin_token_file,
    };
    tasks.spawn(server::serve(
        Arc::clone(&hub),
        listener,
        Some(acceptor),
        router.clone(),
        tasks.clone(),
    ));
    if let Some(listener) = plain {
        tasks.spawn(server::serve(
            Arc::clone(&hub),
            listener,
            None,
            router,
            tasks.clone(),
        ));
    }
    tasks.spawn(publisher::run(Arc::clone(&hub)));
    tasks.spawn(keep_certificate(
        Arc::clone(&hub),
        certificate,
        broker.clone(),
        names.certificate().to_vec(),
        renewal,
    ));
    tasks.close();
    tracing::info!(api = ready_line.api, mqtt = ready_line.mqtt, "the hub is ready");
    ready(&ready_line);

    shutdown.cancelled().await;
    tracing::info!("the hub is stopping");
    if timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!("requests that did not finish in time are cut off");
    }
    broker.stop().await;
    hub.database.close().await;
    Ok(())
}

async fn bind(address: std::net::SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{key}: {address} cannot be listened on"))
}

/// The broker of the configuration's kind.
#[derive(Clone)]
enum RunningBroker {
    Embedded(Arc<Embedded>),
    External(Arc<External>),
}

impl RunningBroker {
    async fn start(hub: &Arc<Hub>) -> anyhow::Result<Self> {
        let settings = &hub.config.broker;
        let tls = hub.authority.tls_files();
        let ingest: Arc<dyn Ingest> = Arc::clone(hub) as _;
        // No session outlives the process that held it, and an external broker tells of each that goes on.
        let mut tx = hub.database.write().await?;
        reports::all_offline(&mut tx).await?;
        tx.commit().await?;
        match settings.kind {
            BrokerKind::Embedded => {
                let settings = EmbeddedSettings {
                    listen: settings.listen,
                    tls,
                    limits: Limits::default(),
                };
                Ok(Self::Embedded(Arc::new(Embedded::start(settings, ingest).await?)))
            }
            BrokerKind::External => {
                let address = settings.address.clone().unwrap_or_default();
                let (host, port) = address
                    .rsplit_once(':')
                    .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
                    .with_context(|| format!("broker.address: {address:?} is not host:port"))?;
                let settings = ExternalSettings {
                    host: host.to_owned(),
                    port,
                    tls,
                    keep_alive: BROKER_KEEP_ALIVE,
                    revocation_command: settings.revocation_command.clone(),
                };
                Ok(Self::External(Arc::new(External::start(settings, ingest)?)))
            }
        }
    }

    fn as_broker(&self) -> Arc<dyn Broker> {
        match self {
            Self::Embedded(broker) => Arc::clone(broker) as _,
            Self::External(broker) => Arc::clone(broker) as _,
        }
    }

    fn connected(&self) -> Option<watch::Receiver<bool>> {
        match self {
            Self::Embedded(_) => None,
            Self::External(broker) => Some(broker.connected()),
        }
    }

    /// Takes the hub's new certificate into use. An external broker is connected to with it the next time.
    fn reload(&self) -> anyhow::Result<()> {
        if let Self::Embedded(broker) = self {
            broker.reload_tls()?;
        }
        Ok(())
    }

    async fn stop(&self) {
        match self {
            Self::Embedded(broker) => broker.stop().await,
            Self::External(broker) => broker.stop().await,
        }
    }
}

/// Renews the hub's certificate when it is due, for as long as the hub runs.
async fn keep_certificate(
    hub: Arc<Hub>,
    certificate: Arc<Certificate>,
    broker: RunningBroker,
    names: Vec<String>,
    mut due: Timestamp,
) {
    /// Pause after a renewal that failed, and the longest sleep: a clock that is set is noticed within it.
    const PAUSE: Duration = Duration::from_secs(3_600);
    loop {
        let left = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
        tokio::select! {
            () = hub.shutdown.cancelled() => return,
            () = tokio::time::sleep(left.min(PAUSE)) => {}
        }
        if due > Timestamp::now() {
            continue;
        }
        let lifetime = hub.config.enrolment.hub_certificate_lifetime.0;
        let renewed = hub
            .authority
            .renew_hub_certificate(&names, lifetime)
            .map_err(anyhow::Error::from)
            .and_then(|next| {
                certificate.reload()?;
                broker.reload()?;
                Ok(next)
            });
        match renewed {
            Ok(next) => due = next,
            Err(error) => {
                tracing::error!(%error, "the hub's certificate could not be renewed; trying again in an hour");
                due = Timestamp::now().saturating_add(PAUSE).unwrap_or(due);
            }
        }
    }
}

/// Issues a certificate of this hub to an external broker and writes what the broker needs into `out`; also while the hub runs.
pub async fn issue_broker_certificate(
    config: &Config,
    names: &[String],
    lifetime: Duration,
    out: &Path,
) -> anyhow::Result<()> {
    let database = open_existing(config).await?;
    let authority = Authority::open(&config.data_dir, FirstStart::No).map_err(|error| error.problem())?;
    let common_name = names.first().context("no name is given")?;
    let (chain, key) = authority.issue_server(common_name, names, lifetime)?;
    let revoked = authority.tls_files().revoked_file;
    if !revoked.exists() {
        authority.write_revoked(0, &[])?;
    }
    let revoked = std::fs::read(&revoked).with_context(|| revoked.display().to_string())?;
    let mut tx = database.write().await?;
    let subject = format!("broker/{common_name}");
    audit::record(
        &mut tx,
        &Actor::Hub,
        "broker.certificate",
        &subject,
        &names.join(","),
    )
    .await?;
    tx.commit().await?;
    database.close().await;
    files::private_directory(out).with_context(|| format!("{} cannot be made", out.display()))?;
    for (name, content, mode) in [
        ("broker.key", key.as_bytes(), files::PRIVATE),
        ("broker.pem", chain.as_bytes(), files::PUBLIC),
        ("ca.pem", authority.ca_pem().as_bytes(), files::PUBLIC),
        ("revoked.pem", &revoked, files::PUBLIC),
    ] {
        let path = out.join(name);
        files::write(&path, content, mode).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Opens the database of a hub that was started before, beside the hub where it runs.
pub async fn open_existing(config: &Config) -> anyhow::Result<Database> {
    let path = database_file(config);
    if !path.exists() {
        bail!(
            "there is no database {}: run `holdfast-hub init` or `holdfast-hub run` first",
            path.display()
        );
    }
    Ok(Database::open(&path).await.map_err(|error| error.problem())?)
}
