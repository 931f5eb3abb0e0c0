//! A real hub: the real binary on a directory of its own, reached over real TLS; and boxes that enrol at it.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "support of tests: what fails here fails the test"
)]

use holdfast_protocol::{
    Digest, NodeId, Problem, SchemaVersion,
    enrol::{EnrolAnswer, EnrolRequest, HardwareFacts, RenewRequest},
    operator::{CreateToken, CreatedToken},
    seal::SealingKey,
    sealing::SealingKeyStatement,
    token::EnrolmentToken,
};
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Client, Method, Response, StatusCode};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    time::{Instant, timeout},
};

pub const PATIENCE: Duration = Duration::from_secs(60);

/// The directory of a hub, which outlives its processes.
pub struct Site {
    pub directory: TempDir,
}

impl Site {
    pub fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Writes a configuration on free ports; `more` are lines by section.
    pub fn configure(&self, more: &[(&str, &str)]) -> PathBuf {
        let mut text = format!("data_dir = {:?}\n", self.data_dir());
        for (section, fixed) in [
            ("api", "listen = \"127.0.0.1:0\"\nplain_listen = \"127.0.0.1:0\""),
            ("broker", "listen = \"127.0.0.1:0\""),
            ("enrolment", ""),
            ("retention", ""),
            ("log", "level = \"debug\""),
        ] {
            text.extend(["[", section, "]\n", fixed, "\n"]);
            for (name, line) in more {
                if *name == section {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        let path = self.directory.path().join("hub.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Lets all blobs be as if they had been uploaded two hours ago.
    pub async fn age_blobs(&self) {
        let database = self.data_dir().join("hub.db");
        let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", database.display()))
            .await
            .unwrap();
        sqlx::query("UPDATE blobs SET created_at = created_at - 7200000000")
            .execute(&pool)
            .await
            .unwrap();
        pool.close().await;
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-hub"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.directory.path().join("hub.toml"))
            .kill_on_drop(true);
        command
    }

    pub async fn start(&self) -> Hub {
        self.start_with(&[]).await
    }

    pub async fn start_with(&self, more: &[(&str, &str)]) -> Hub {
        self.configure(more);
        let mut process = self
            .command(&["run"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        timeout(PATIENCE, out.read_line(&mut line))
            .await
            .unwrap()
            .unwrap();
        let mut err = process.stderr.take().unwrap();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            let mut text = String::new();
            let _ = timeout(PATIENCE, err.read_to_string(&mut text)).await;
            panic!("the hub did not become ready: {line:?}\n{text}");
        };
        let log = self.directory.path().join("hub.log");
        tokio::spawn(async move {
            let mut file = tokio::fs::File::options()
                .append(true)
                .create(true)
                .open(log)
                .await
                .unwrap();
            let _ = tokio::io::copy(&mut err, &mut file).await;
        });
        let token_file = ready["adminTokenFile"].as_str().unwrap();
        let token = std::fs::read_to_string(token_file).unwrap().trim().to_owned();
        let ca = std::fs::read_to_string(self.data_dir().join("keys/ca.pem")).unwrap();
        Hub {
            api: ready["api"].as_str().unwrap().to_owned(),
            plain: ready["plain"].as_str().unwrap().to_owned(),
            mqtt: ready["mqtt"].as_str().unwrap().to_owned(),
            client: client(&ca, None),
            ca,
            token,
            process,
        }
    }

    /// Starts a hub that must refuse to; gives what it says on standard error.
    pub async fn refused(&self) -> String {
        let output = timeout(PATIENCE, self.command(&["run"]).output())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("hub.log")).unwrap_or_default()
    }
}

/// A running hub.
pub struct Hub {
    pub api: String,
    pub plain: String,
    pub mqtt: String,
    pub ca: String,
    pub token: String,
    pub client: Client,
    pub process: Child,
}

impl Hub {
    /// Stops it as a service manager does, and waits for its end.
    pub async fn stop(mut self) {
        let pid = self.process.id().unwrap().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
        assert!(killed.success());
        let status = timeout(PATIENCE, self.process.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Ends it as a power cut does.
    pub async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    pub async fn send(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Response {
        let mut request = self.client.request(method, format!("{}{path}", self.api));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    /// A request of the administrator that must succeed.
    pub async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: impl Serialize) -> T {
        let body = serde_json::to_value(body).unwrap();
        let body = (!body.is_null()).then_some(body);
        let response = self.send(Some(&self.token), method, path, body).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(if text.is_empty() { "null" } else { &text })
            .unwrap_or_else(|error| panic!("{path}: {error} {text}"))
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.ask(Method::GET, path, ()).await
    }

    /// A request of the administrator that must be refused.
    pub async fn refused(&self, method: Method, path: &str, body: Value) -> (StatusCode, Problem) {
        let body = (!body.is_null()).then_some(body);
        problem(self.send(Some(&self.token), method, path, body).await).await
    }

    /// Uploads a blob at once.
    pub async fn put_blob(&self, content: Vec<u8>) -> (Digest, StatusCode) {
        let digest = Digest::of(&content);
        let url = format!("{}/api/v1/blobs/{digest}", self.api);
        let request = self.client.put(url).bearer_auth(&self.token).body(content);
        (digest, request.send().await.unwrap().status())
    }

    pub async fn token(&self, request: CreateToken) -> EnrolmentToken {
        let made: CreatedToken = self.ask(Method::POST, "/api/v1/tokens", request).await;
        made.token.parse().unwrap()
    }

    /// Tries to enrol a box.
    pub async fn try_enrol(
        &self,
        token: &EnrolmentToken,
        device: &Device,
    ) -> Result<EnrolAnswer, (StatusCode, Problem)> {
        self.try_enrol_request(&device.request(token)).await
    }

    pub async fn try_enrol_request(
        &self,
        request: &EnrolRequest,
    ) -> Result<EnrolAnswer, (StatusCode, Problem)> {
        let body = serde_json::to_value(request).unwrap();
        let response = self.send(None, Method::POST, "/v1/enrol", Some(body)).await;
        if response.status().is_success() {
            Ok(response.json().await.unwrap())
        } else {
            Err(problem(response).await)
        }
    }

    /// Makes a node of this name.
    pub async fn node(&self, name: &str) -> Node {
        let token = self
            .token(CreateToken {
                node_name: Some(name.parse().unwrap()),
                ..CreateToken::default()
            })
            .await;
        let device = Device::new();
        let answer = self.try_enrol(&token, &device).await.unwrap();
        Node { device, answer }
    }

    pub async fn metrics(&self) -> String {
        self.client
            .get(format!("{}/metrics", self.plain))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    /// Value of a line of /metrics.
    pub async fn figure(&self, line: &str) -> Option<f64> {
        self.metrics()
            .await
            .lines()
            .find_map(|text| text.strip_prefix(line)?.trim().parse().ok())
    }
}

/// The problem of a refusal, which must be in the right form.
pub async fn problem(response: Response) -> (StatusCode, Problem) {
    let status = response.status();
    let kind = response.headers().get("content-type").cloned();
    let text = response.text().await.unwrap();
    assert!(!status.is_success(), "{status} {text}");
    assert_eq!(
        kind.as_ref().map(|value| value.to_str().unwrap()),
        Some("application/problem+json"),
        "{text}"
    );
    (status, serde_json::from_str(&text).unwrap())
}

/// A machine with a key.
pub struct Device {
    pub key: KeyPair,
    pub serial: Option<String>,
    pub wish: Option<NodeId>,
    pub sealing: Option<SealingKey>,
}

impl Device {
    pub fn new() -> Self {
        Self {
            key: KeyPair::generate().unwrap(),
            serial: None,
            wish: None,
            sealing: Some(SealingKey::generate()),
        }
    }

    /// Signs with the device key.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        sign(&self.key, message)
    }

    /// What it says of its sealing key.
    pub fn statement(&self) -> Option<SealingKeyStatement> {
        let key = self.sealing.as_ref()?.public();
        let signature = self.sign(&SealingKeyStatement::signed_bytes(&key));
        Some(SealingKeyStatement { key, signature })
    }

    pub fn csr(&self) -> String {
        csr(&self.key)
    }

    pub fn request(&self, token: &EnrolmentToken) -> EnrolRequest {
        EnrolRequest {
            schema: SchemaVersion::CURRENT,
            token_id: token.id.clone(),
            token_secret: token.secret.to_vec(),
            csr: self.csr(),
            requested_name: self.wish.clone(),
            hardware: HardwareFacts {
                serial: self.serial.clone(),
                architecture: "x86_64".to_owned(),
                ..HardwareFacts::default()
            },
            sealing_key: self.statement(),
            extra: Map::new(),
        }
    }

    /// A renewal of `certificate` signed by `signer`.
    pub fn renewal(&self, certificate: &str, signer: &KeyPair) -> RenewRequest {
        let mut request = RenewRequest {
            schema: SchemaVersion::CURRENT,
            certificate: certificate.to_owned(),
            csr: self.csr(),
            at: jiff::Timestamp::UNIX_EPOCH,
            sealing_key: self.statement(),
            signature: Vec::new(),
        };
        request.signature = sign(signer, &request.signed_bytes());
        request
    }
}

fn sign(key: &KeyPair, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.serialized_der(), &random).unwrap();
    key.sign(&random, message).unwrap().as_ref().to_vec()
}

pub fn csr(key: &KeyPair) -> String {
    CertificateParams::new(vec!["box".to_owned()])
        .unwrap()
        .serialize_request(key)
        .unwrap()
        .pem()
        .unwrap()
}

/// A device that enrolled.
pub struct Node {
    pub device: Device,
    pub answer: EnrolAnswer,
}

impl Node {
    pub fn id(&self) -> &str {
        self.answer.node.as_str()
    }

    /// An HTTP client with the node's certificate.
    pub fn client(&self) -> Client {
        self.client_with(&self.answer.certificate)
    }

    pub fn client_with(&self, certificate: &str) -> Client {
        client(
            &self.answer.ca_certificates,
            Some((certificate, &self.device.key)),
        )
    }

    pub fn tls(&self) -> ClientConfig {
        tls(
            &self.answer.ca_certificates,
            Some((&self.answer.certificate, &self.device.key)),
        )
    }
}

pub fn tls(ca: &str, identity: Option<(&str, &KeyPair)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            )
            .unwrap(),
    }
}

pub fn client(ca: &str, identity: Option<(&str, &KeyPair)>) -> Client {
    Client::builder()
        .tls_backend_preconfigured(tls(ca, identity))
        .timeout(PATIENCE)
        .build()
        .unwrap()
}

/// Asks again until there is an answer, or patience ends.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    loop {
        if let Some(value) = ask().await {
            return value;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        pace.tick().await;
    }
}

/// A release with one config map that says `text`.
pub fn release(name: &str, text: &str) -> Value {
    json!({
        "name": name,
        "content": { "apps": [{
            "name": "hello",
            "manifests": [{ "inline": [{
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "hello" }, "data": { "text": text }
            }] }]
        }] }
    })
}

pub fn write(path: &Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
}
