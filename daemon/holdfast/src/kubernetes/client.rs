//! A small Kubernetes client: from a kubeconfig to a [`kube::Client`] that holds few connections and little memory.
//!
//! In: path of a kubeconfig. Out: a client. It guarantees: HTTP/1.1 only, no compression, only as many idle connections kept as are used at once, and
//! those for seconds only, no retries of its own (the caller decides), and certificates that are judged without a clock: the
//! Kubernetes of a box that woke up in 1970 is still its own.

use super::KubernetesError;
use crate::enrol::tls;
use hyper_util::{
    client::legacy::connect::HttpConnector,
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt},
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{path::Path, time::Duration};
use tower::{BoxError, ServiceBuilder};

/// How long an unused connection is kept. Long enough for the requests of one document, short enough to cost nothing when idle.
const IDLE_CONNECTION: Duration = Duration::from_secs(5);
/// Unused connections kept at most: as many as are used at once, or each request of a document would begin with a handshake.
const IDLE_CONNECTIONS: usize = 16;
/// The read buffer of a connection, in bytes. Left to itself, hyper lets it grow to 400 KiB with what a list brings, and a watch, which lives
/// on the connection of its list, keeps it. A TLS record has at most 16 KiB, so a larger one saves next to nothing.
const READ_BUFFER: usize = 8 * 1024;

/// Reads the kubeconfig and makes a client of it; opens no connection yet.
pub async fn connect(kubeconfig: &Path) -> Result<Client, KubernetesError> {
    let unusable = |reason: String| KubernetesError::KubeconfigUnusable {
        path: kubeconfig.to_owned(),
        reason,
    };
    let parsed = Kubeconfig::read_from(kubeconfig).map_err(|error| unusable(error.to_string()))?;
    let config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
        .await
        .map_err(|error| unusable(error.to_string()))?;
    let mut tls = config
        .rustls_client_config()
        .map_err(|error| unusable(error.to_string()))?;
    if let Some(authority) = config.root_cert.as_ref().filter(|_| !config.accept_invalid_certs) {
        let verifier = tls::of_own_authority(authority).map_err(|error| unusable(error.to_string()))?;
        tls.dangerous().set_certificate_verifier(verifier);
    }
    build(&config, tls).map_err(|error| unusable(error.to_string()))
}

fn build(config: &Config, tls: rustls::ClientConfig) -> Result<Client, kube::Error> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(Duration::from_secs(10)));
    // A watch that is silent for minutes is normal; a dead peer is found by the kernel's probes.
    http.set_keepalive(Some(Duration::from_secs(120)));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    let transport = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_CONNECTION)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .http1_read_buf_exact_size(READ_BUFFER)
        .build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .service(transport);
    Ok(Client::new(service, config.default_namespace.clone()))
}
