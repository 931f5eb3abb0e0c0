//! Blobs over a real HTTPS connection: resumed after a cut, refused with a wrong content, not fetched twice.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result};
use engine_support::{broker::Hub, config_map, namespace, node::Node};
use holdfast_protocol::{Digest, codes, event::EventKind, report::Phase};
use rcgen::KeyPair;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// A blob server that demands the node's certificate and keeps to what the hub promises; the first answers can be cut short.
struct BlobServer {
    url: String,
    /// Path and `Range` of each request.
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl BlobServer {
    async fn start(hub: &Hub, content: Vec<u8>, cuts: Vec<usize>) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateDer::from_pem_slice(hub.certificate("localhost", &key)?.as_bytes())?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(hub.ca_pem.as_bytes())?)?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
        let config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?,
            )?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        tokio::spawn(async move {
            let mut cuts = cuts.into_iter();
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap().to_owned();
                let range = head
                    .lines()
                    .find_map(|line| line.to_lowercase().strip_prefix("range: ").map(str::to_owned))
                    .unwrap_or_default();
                let begin: usize = range
                    .trim_start_matches("bytes=")
                    .trim_end_matches('-')
                    .parse()
                    .unwrap();
                log.lock().unwrap().push((path, range));
                let rest = &content[begin..];
                let answer = format!(
                    "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\ncontent-range: bytes {begin}-{}/{}\r\n\r\n",
                    rest.len(),
                    content.len() - 1,
                    content.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
                let sent = cuts.next().unwrap_or(rest.len()).min(rest.len());
                stream.write_all(&rest[..sent]).await.unwrap();
                stream.flush().await.unwrap();
                drop(stream);
            }
        });
        Ok(Self { url, asked })
    }
}

async fn node_with_blobs(hub: &Hub, name: &str, server: &BlobServer) -> Result<Node> {
    let mut node = Node::enrolled(hub, name).await?;
    let file = node.settings.identity_dir().join("node.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    record["hubUrl"] = server.url.clone().into();
    holdfast::identity::write_private(&file, record.to_string().as_bytes())?;
    node.settings.apply.retry_max = node.settings.apply.retry_min;
    node.run().await?;
    Ok(node)
}

fn blob_app(digest: Digest, size: usize) -> Value {
    json!({"name": "big", "namespace": "blobs", "manifests": [{"blob": {"digest": digest, "size": size}}]})
}

#[tokio::test]
async fn a_blob_is_fetched_on_after_each_cut_and_then_applied() -> Result<()> {
    let hub = Hub::start().await?;
    let mut objects = vec![namespace("blobs")];
    objects.extend((0..20).map(|number| config_map(&format!("part-{number}"), &"x".repeat(4000))));
    let content = Value::from(objects).to_string().into_bytes();
    let (digest, size) = (Digest::of(&content), content.len());
    let server = BlobServer::start(&hub, content, vec![10_000, 20_000]).await?;
    let node = node_with_blobs(&hub, "fetching", &server).await?;
    node.publish(&hub, 1, &[blob_app(digest, size)]).await?;
    node.until_proven(1).await?;
    assert!(node.object("blobs", "configmap", "part-19").await?.is_some());
    let asked = server.asked.lock().unwrap().clone();
    let path = format!("/v1/blobs/{digest}");
    let expected = [0, 10_000, 30_000].map(|begin| (path.clone(), format!("bytes={begin}-")));
    assert_eq!(asked, expected);

    // The next document names the same blob: it is here.
    node.publish(&hub, 2, &[blob_app(digest, size)]).await?;
    node.until_proven(2).await?;
    assert_eq!(server.asked.lock().unwrap().len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_blob_with_another_content_is_refused_by_name() -> Result<()> {
    let hub = Hub::start().await?;
    let content = Value::from(vec![config_map("forged", "1")])
        .to_string()
        .into_bytes();
    let wanted = Digest::of(&vec![b'x'; content.len()]);
    let size = content.len();
    let server = BlobServer::start(&hub, content, Vec::new()).await?;
    let node = node_with_blobs(&hub, "careful", &server).await?;
    node.publish(&hub, 1, &[blob_app(wanted, size)]).await?;
    let status = node
        .until("the document failed", |status| {
            status.generation.phase == Phase::Failed
        })
        .await?;
    assert_eq!(
        status.generation.cause.context("a cause")?.code,
        codes::BLOB_DIGEST_MISMATCH
    );
    hub.hear_event(EventKind::DocumentFailed).await?;
    assert!(node.object("blobs", "configmap", "forged").await?.is_none());
    Ok(())
}
