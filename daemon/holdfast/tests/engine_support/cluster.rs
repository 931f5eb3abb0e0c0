//! The Kubernetes of this test binary.

use anyhow::{Context as _, Result};
use holdfast_harness::{Kubectl, paths, port, wait};
use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
};
use tokio::sync::OnceCell;

/// Lives as long as the test binary: its shell ends the server when this end of the pipe is closed, however the tests end.
static KEEPER: Mutex<Option<Child>> = Mutex::new(None);
static CLUSTER: OnceCell<Kubectl> = OnceCell::const_new();

/// The cluster, started by whoever needs it first.
pub async fn shared() -> Result<Kubectl> {
    CLUSTER.get_or_try_init(start).await.cloned()
}

async fn start() -> Result<Kubectl> {
    let k3s = paths::k3s()?;
    let directory: PathBuf = tempfile::Builder::new()
        .prefix("engine-cluster-")
        .tempdir()?
        .keep();
    let port = port::reserve()?;
    let kubeconfig = directory.join("k3s.yaml");
    let config = directory.join("config.yaml");
    let text = format!(
        "data-dir: {0}/data\nhttps-listen-port: {port}\nwrite-kubeconfig: {0}/k3s.yaml\nnode-name: engine\nnode-ip: {1}\n\
         kube-apiserver-arg:\n- enable-priority-and-fairness=true\n",
        directory.display(),
        own_address()
    );
    std::fs::write(&config, text)?;
    let log = std::fs::File::create(directory.join("log"))?;
    let script =
        r#"exec 3<&0 </dev/null; "$0" server --config "$1" & cat <&3 >/dev/null; kill -9 $!; rm -rf "$2""#;
    let keeper = Command::new("sh")
        .args(["-c", script])
        .arg(&k3s)
        .arg(&config)
        .arg(&directory)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start the shell that keeps the cluster")?;
    *KEEPER.lock().unwrap() = Some(keeper);
    let kubectl = Kubectl { k3s, kubeconfig };
    wait::until("Kubernetes for the tests is ready", super::PATIENCE, async || {
        kubectl.run(&["get", "--raw", "/readyz"]).await.map(Some)
    })
    .await?;
    wait::until(
        "the default service account is there",
        super::PATIENCE,
        async || kubectl.get("default", "serviceaccount", "default").await,
    )
    .await?;
    Ok(kubectl)
}

/// An address of this machine that is not its loopback, so that pods on the host's network can be reached where a server of the test listens.
/// Nothing is sent. The loopback where there is no other, as in a network namespace without a route.
fn own_address() -> IpAddr {
    let found = || {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("198.51.100.1:9").ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    found().unwrap_or(Ipv4Addr::LOCALHOST.into())
}
