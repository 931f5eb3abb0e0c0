//! How long the node takes from the start of its process to its first request of the Kubernetes API, offline, from its cache.
//!
//! The API server is a TLS listener here that does nothing but note when the first byte of the first request has been decrypted: what is
//! measured is the node, up to the moment at which the API has its request.

use crate::figures::{Figures, median};
use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_harness::{Node, Site, paths, site::KUBERNETES};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;
use std::{
    fs,
    io::Write as _,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt as _, net::TcpListener, process::Command};
use tokio_rustls::TlsAcceptor;

/// Starts that are timed.
const STARTS: usize = 15;
/// Longest time of one start.
const LONGEST: Duration = Duration::from_secs(10);

/// Times the starts of a node that has a document in its cache.
pub async fn measure(figures: &mut Figures) -> Result<()> {
    let site = Site::start().await?;
    let mut node = site.enrolled_node("start").await?;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "page", "namespace": "default"}, "data": {"value": "1"}});
    site.hub.create_release("one", "page", vec![object]).await?;
    let generation = site.hub.assign("one", "start").await?;
    site.hub.wait_for_proven("start", generation, KUBERNETES).await?;
    node.stop().await?;
    node.kill_kubernetes()?;
    site.hub.cut();

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let acceptor = stand_in(&node, listener.local_addr()?.port())?;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        times.push(one(&node, &listener, &acceptor).await?.as_secs_f64() * 1000.0);
    }
    let how = format!(
        "p50 of {STARTS} starts, from the start of the process to the first byte of the first request inside TLS; no link"
    );
    figures.add(
        "node.start_to_first_apply_ms",
        median(&mut times),
        "ms",
        Some(50.0),
        how,
    );
    Ok(())
}

async fn one(node: &Node, listener: &TcpListener, acceptor: &TlsAcceptor) -> Result<Duration> {
    let mut command = Command::new(paths::binary("holdfast")?);
    command
        .arg("run")
        .arg("--config")
        .arg(node.directory.join("start.toml"))
        .env_remove("RUST_BACKTRACE");
    let log = fs::File::create(node.directory.join("start.log"))?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true);
    let started = Instant::now();
    let mut child = command.spawn()?;
    let first_byte = async {
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        stream.read_u8().await
    };
    tokio::time::timeout(LONGEST, first_byte)
        .await
        .context("no request came")??;
    let elapsed = started.elapsed();
    child.kill().await?;
    Ok(elapsed)
}

/// Writes a configuration whose kubeconfig leads to a listener of our own, and gives the listener's TLS side.
fn stand_in(node: &Node, port: u16) -> Result<TlsAcceptor> {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    let certificate = STANDARD.encode(key.cert.pem());
    let kubeconfig = node.directory.join("start-kubeconfig.yaml");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority-data: {certificate}}}}}]\n\
         users: [{{name: u, user: {{token: none}}}}]\n"
    );
    fs::File::create(&kubeconfig)?.write_all(text.as_bytes())?;
    let config = fs::read_to_string(node.directory.join("node.toml"))?
        .lines()
        .map(|line| {
            if line.starts_with("kubeconfig = ") {
                format!("kubeconfig = {kubeconfig:?}\nsupervise = false\n")
            } else {
                format!("{line}\n")
            }
        })
        .collect::<String>();
    fs::File::create(node.directory.join("start.toml"))?.write_all(config.as_bytes())?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)?;
    Ok(TlsAcceptor::from(Arc::new(tls)))
}
