//! Servers over real TLS, and a fetcher of an enrolled box.

use anyhow::{Context as _, Result};
use holdfast::{
    artifacts::Fetcher,
    identity::{DeviceKey, Identity, prepare_state_dir, write_private},
    settings::Settings,
};
use holdfast_protocol::{
    Digest,
    document::{Artifact, ArtifactSource},
    trust::TrustPolicy,
};
use holdfast_store::Blobs;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use std::{path::Path, sync::Arc};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

/// A certificate authority of hub and servers alike.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Result<Self> {
        holdfast_harness::install_tls_provider();
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "artifact test authority");
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    pub fn certificate(&self, key: &KeyPair) -> Result<String> {
        let mut params = CertificateParams::new(vec!["localhost".into()])?;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

/// What a server does with one request.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Answers as it should.
    Good,
    /// Ends the connection after so many bytes of the body.
    Cut(usize),
    /// As [`Self::Cut`], and knows no ranges.
    CutWhole(usize),
    /// Sends the whole whatever was asked for.
    Whole,
    /// Sends the whole without saying how long it is.
    Lengthless,
    /// Has another content of the same length.
    Lies,
    /// Sends other bytes, so many, and ends the connection.
    LiesAndCuts(usize),
    /// Has a content that is longer.
    Longer,
    /// Sends a part that was not asked for.
    OtherPart,
    /// Sends elsewhere.
    Redirect(String),
    /// Compresses without being asked.
    Compressed,
    /// Asks for credentials so.
    Challenge(String),
    /// Answers with this text.
    Json(String),
    /// Refuses.
    Status(u16),
    /// Sends so many bytes, and then nothing, without an end.
    Stalls(usize),
}

/// Path, first byte asked for, and authorization of each request.
type Asked = Arc<watch::Sender<Vec<(String, u64, Option<String>)>>>;

/// A web server.
pub struct Server {
    pub port: u16,
    /// What was asked for.
    pub asked: Asked,
}

impl Server {
    /// Serves `content`; the first requests in these manners, all further ones in the last of them.
    pub async fn start(authority: &Authority, content: &[u8], manners: &[Manner]) -> Result<Self> {
        Self::build(authority, content, manners, false).await
    }

    /// As [`Self::start`], for those with a certificate of the authority alone, as the hub does.
    pub async fn hub(authority: &Authority, content: &[u8], manners: &[Manner]) -> Result<Self> {
        Self::build(authority, content, manners, true).await
    }

    async fn build(authority: &Authority, content: &[u8], manners: &[Manner], mutual: bool) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateDer::from_pem_slice(authority.certificate(&key)?.as_bytes())?;
        let builder = if mutual {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes())?)?;
            ServerConfig::builder()
                .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build()?)
        } else {
            ServerConfig::builder().with_no_client_auth()
        };
        let config = builder.with_single_cert(
            vec![certificate],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?,
        )?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let asked = Arc::new(watch::Sender::default());
        let (log, content, manners) = (asked.clone(), Arc::new(content.to_vec()), manners.to_vec());
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let manner = manners[number.min(manners.len() - 1)].clone();
                number += 1;
                tokio::spawn(serve(stream, content.clone(), manner, log.clone()));
            }
        });
        Ok(Self { port, asked })
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// First bytes that were asked for.
    pub fn offsets(&self) -> Vec<u64> {
        self.asked.borrow().iter().map(|(_, offset, _)| *offset).collect()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    content: Arc<Vec<u8>>,
    manner: Manner,
    log: Asked,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
    };
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let range = header("range").unwrap_or_default();
    let (offset, last) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
        .unwrap_or_default();
    let offset: usize = offset.parse().unwrap_or(0);
    log.send_modify(|asked| asked.push((path, offset as u64, header("authorization"))));
    let size = content.len();
    let end = last.parse().map_or(size, |last: usize| size.min(last + 1));
    let lie: Vec<u8> = content.iter().map(|byte| byte ^ 1).collect();
    let part = |first: usize, body: &[u8]| {
        format!(
            "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\ncontent-range: bytes {first}-{}/{size}\r\n\r\n",
            body.len(),
            first + body.len() - 1
        )
    };
    let whole = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    let rest = &content[offset.min(end)..end];
    let (head, body, end): (String, &[u8], bool) = match &manner {
        Manner::Good => (part(offset, rest), rest, true),
        Manner::Cut(after) => (part(offset, rest), &rest[..rest.len().min(*after)], true),
        Manner::CutWhole(after) => (whole(size), &content[..*after], true),
        Manner::Whole => (whole(size), &content, true),
        Manner::Lengthless => (
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".into(),
            &content,
            true,
        ),
        Manner::Lies => (part(offset, rest), &lie[offset..end], true),
        Manner::LiesAndCuts(after) => (part(offset, rest), &lie[offset..][..*after], true),
        Manner::Longer => (whole(size + 1), &content, true),
        Manner::OtherPart => (part(offset + 1, &rest[1..]), &rest[1..], true),
        Manner::Redirect(to) => (
            format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"),
            &[],
            true,
        ),
        Manner::Compressed => (
            format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {size}\r\n\r\n"),
            &content,
            true,
        ),
        Manner::Challenge(challenge) => (
            format!(
                "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: {challenge}\r\ncontent-length: 0\r\n\r\n"
            ),
            &[],
            true,
        ),
        Manner::Json(text) => (whole(text.len()), text.as_bytes(), true),
        Manner::Status(status) => (
            format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n"),
            &[],
            true,
        ),
        Manner::Stalls(after) => (part(offset, rest), &rest[..*after], false),
    };
    // The other side may have heard enough.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body).await;
    let _ = stream.flush().await;
    if !end {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}

/// A box with a store, and a fetcher.
pub struct Box {
    pub directory: TempDir,
    pub settings: Settings,
    pub authority: Authority,
}

impl Box {
    pub fn new() -> Result<Self> {
        let directory = TempDir::new()?;
        let authority = Authority::new()?;
        let state_dir = directory.path().join("state");
        prepare_state_dir(&state_dir)?;
        let mut settings = Settings {
            state_dir,
            ..Settings::default()
        };
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, &authority.pem)?;
        settings.artifacts.ca_file = Some(ca_file);
        settings.artifacts.baked = directory.path().join("baked");
        Ok(Self {
            directory,
            settings,
            authority,
        })
    }

    /// The identity of the enrolled box.
    pub fn identity(&self, hub: Option<&Server>) -> Result<Identity> {
        // A port that nothing listens on: no hub.
        let hub_url = hub.map_or_else(|| "https://localhost:1".into(), Server::url);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let directory = self.settings.identity_dir();
        write_private(&directory.join("device.key"), key.serialize_pem().as_bytes())?;
        Ok(Identity {
            node: "box".parse()?,
            hub_url,
            brokers: Vec::new(),
            trust: TrustPolicy::default(),
            public_roots: false,
            enrolled_by: None,
            sealing: None,
            told_sealing: None,
            seed: None,
            certificate: self.authority.certificate(&key)?,
            ca_certificates: self.authority.pem.clone(),
            key: Arc::new(DeviceKey::load(&directory)?.context("the key was just written")?),
        })
    }

    pub fn fetcher(&self, hub: Option<&Server>) -> Result<Fetcher> {
        let (_, identity) = watch::channel(Arc::new(self.identity(hub)?));
        Ok(Fetcher::new(
            Blobs::open(&self.settings.state_dir)?,
            identity,
            Arc::new(self.settings.clone()),
        ))
    }

    /// Files of contents that are not whole.
    pub fn partial_files(&self) -> Vec<std::path::PathBuf> {
        files(&self.settings.state_dir.join("store/blobs/partial"))
    }
}

pub fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// Bytes that repeat nowhere near.
pub fn content(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size as u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(size)
    .collect()
}

/// An artifact with this content, from these addresses.
pub fn artifact(content: &[u8], urls: &[String]) -> Artifact {
    Artifact {
        digest: Digest::of(content),
        size: content.len() as u64,
        name: "thing.tar".into(),
        sources: urls.iter().cloned().map(ArtifactSource::Url).collect(),
        extra: serde_json::Map::new(),
    }
}
