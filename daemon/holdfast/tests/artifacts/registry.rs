//! Debian's docker-registry, which is Distribution: real pushes over its HTTP API, and fetches from it.

use crate::support::{Authority, Box, Manner, Server, artifact, content, files};
use anyhow::{Context as _, Result, bail};
use holdfast_harness::Process;
use holdfast_protocol::{
    Digest,
    document::{Artifact, ArtifactSource},
};
use rcgen::KeyPair;
use serde_json::json;
use std::{path::Path, time::Duration};
use tokio::process::Command;

struct Registry {
    port: u16,
    _process: Process,
}

/// How a registry is reached.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain,
    Tls,
    TlsAndPassword,
}

/// `holdfast:correct horse`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "holdfast:$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n";

impl Registry {
    async fn start(directory: &Path, authority: &Authority, way: Way) -> Result<Self> {
        let port = holdfast_harness::port::reserve()?;
        let root = directory.join("registry");
        std::fs::create_dir_all(&root)?;
        let mut http = json!({"addr": format!("127.0.0.1:{port}")});
        if way != Way::Plain {
            let key = KeyPair::generate()?;
            std::fs::write(directory.join("registry.crt"), authority.certificate(&key)?)?;
            std::fs::write(directory.join("registry.key"), key.serialize_pem())?;
            http["tls"] =
                json!({"certificate": directory.join("registry.crt"), "key": directory.join("registry.key")});
        }
        let mut config = json!({
            "version": 0.1, "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": root}}, "http": http
        });
        if way == Way::TlsAndPassword {
            std::fs::write(directory.join("htpasswd"), HTPASSWD)?;
            config["auth"] = json!({"htpasswd": {"realm": "edge", "path": directory.join("htpasswd")}});
        }
        // JSON is YAML.
        let file = directory.join("registry.yml");
        std::fs::write(&file, config.to_string())?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file);
        let process = Process::start("docker-registry", command, &directory.join("registry.log"))?;
        holdfast_harness::wait::until("the registry listens", Duration::from_secs(60), async || {
            Ok(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok())
        })
        .await?;
        Ok(Self {
            port,
            _process: process,
        })
    }

    /// Pushes a blob in one piece, as any client does: a session, then the bytes. curl is not this code.
    async fn push(&self, it: &Box, way: Way, name: &str, bytes: &[u8]) -> Result<()> {
        let scheme = if way == Way::Plain { "http" } else { "https" };
        let base = format!("{scheme}://localhost:{}", self.port);
        let file = it.directory.path().join("push");
        std::fs::write(&file, bytes)?;
        let curl = async |arguments: &[&str]| -> Result<String> {
            let output = Command::new("curl")
                .args(["-sS", "-i", "--fail", "-u", "holdfast:correct horse", "--cacert"])
                .arg(it.directory.path().join("ca.pem"))
                .args(arguments)
                .output()
                .await?;
            if !output.status.success() {
                bail!("curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(String::from_utf8(output.stdout)?)
        };
        let session = curl(&["-X", "POST", &format!("{base}/v2/{name}/blobs/uploads/")]).await?;
        let place = session
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case("location"))
            .context("a place to upload to")?
            .1;
        let target = format!("{place}&digest={}", Digest::of(bytes));
        let data = format!("@{}", file.display());
        let header = "content-type: application/octet-stream";
        curl(&["-X", "PUT", "-H", header, "--data-binary", &data, &target]).await?;
        Ok(())
    }
}

fn from_registry(bytes: &[u8], port: u16) -> Artifact {
    let mut thing = artifact(bytes, &[]);
    thing.sources = vec![ArtifactSource::Oci(format!("localhost:{port}/edge/k3s"))];
    thing
}

#[tokio::test]
async fn an_artifact_comes_from_a_registry_with_and_without_tls_and_password() -> Result<()> {
    for way in [Way::Plain, Way::Tls, Way::TlsAndPassword] {
        let mut it = Box::new()?;
        let registry = Registry::start(it.directory.path(), &it.authority, way).await?;
        let bytes = content(3 << 20);
        registry.push(&it, way, "edge/k3s", &bytes).await?;
        let thing = from_registry(&bytes, registry.port);
        let password_file = it.directory.path().join("password");
        std::fs::write(&password_file, "correct horse\n")?;
        let access = match way {
            Way::Plain => json!({"http": true}),
            Way::Tls => json!({"ca_file": it.settings.artifacts.ca_file.take()}),
            Way::TlsAndPassword => {
                // Without a password the registry says no, and what it says is told.
                let failure = it
                    .fetcher(None)?
                    .fetch_artifacts(std::slice::from_ref(&thing))
                    .await
                    .unwrap_err();
                assert!(
                    failure.problem.message.contains("asks for credentials"),
                    "{}",
                    failure.problem.message
                );
                json!({"username": "holdfast", "password_file": password_file})
            }
        };
        it.settings
            .artifacts
            .registries
            .insert(format!("localhost:{}", registry.port), access);
        let fetcher = it.fetcher(None)?;

        // What another source began, the registry goes on with.
        let writer = fetcher.blobs.writer(thing.digest, thing.size)?;
        drop(writer);
        std::fs::write(&it.partial_files()[0], &bytes[..1_000_000])?;
        let mut progress = fetcher.progress();
        fetcher
            .fetch_artifacts(std::slice::from_ref(&thing))
            .await
            .unwrap();
        assert_eq!(
            progress.borrow_and_update().source,
            format!("localhost:{}/edge/k3s", registry.port)
        );
        assert_eq!(fetcher.blobs.read(thing.digest)?, bytes);

        // One that it does not have.
        let other = from_registry(&content(10), registry.port);
        let failure = fetcher.fetch_artifacts(&[other]).await.unwrap_err();
        assert!(
            failure.problem.message.contains("404"),
            "{}",
            failure.problem.message
        );

        // One that its disk damaged.
        let damaged = content(1 << 20);
        registry.push(&it, way, "edge/k3s", &damaged).await?;
        let hex = Digest::of(&damaged).hex();
        let file = it.directory.path().join(format!(
            "registry/docker/registry/v2/blobs/sha256/{}/{hex}/data",
            &hex[..2]
        ));
        std::fs::write(&file, damaged.iter().map(|byte| byte ^ 2).collect::<Vec<_>>())?;
        let failure = fetcher
            .fetch_artifacts(&[from_registry(&damaged, registry.port)])
            .await
            .unwrap_err();
        assert!(
            failure.problem.message.contains("has the content of"),
            "{}",
            failure.problem.message
        );
        assert!(files(&it.settings.state_dir.join("store/blobs/partial")).is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn a_token_is_fetched_with_the_password_and_goes_nowhere_but_to_the_registry() -> Result<()> {
    let mut it = Box::new()?;
    let bytes = content(100_000);
    let storage = Server::start(&it.authority, &bytes, &[Manner::Good]).await?;
    let answer = Manner::Json(json!({"token": "abc.def", "expires_in": 300}).to_string());
    let tokens = Server::start(&it.authority, &[], &[answer]).await?;
    let challenge = format!(
        r#"Bearer realm="{}/service/token",service="harbor-registry",scope="repository:edge/k3s:pull""#,
        tokens.url()
    );
    let there = Manner::Redirect(format!("{}/bucket?signature=1", storage.url()));
    let registry = Server::start(&it.authority, &bytes, &[Manner::Challenge(challenge), there]).await?;
    let password_file = it.directory.path().join("password");
    std::fs::write(&password_file, "word")?;
    it.settings.artifacts.registries.insert(
        format!("localhost:{}", registry.port),
        json!({"username": "user", "password_file": password_file}),
    );
    let thing = from_registry(&bytes, registry.port);
    let fetcher = it.fetcher(None)?;
    fetcher
        .fetch_artifacts(std::slice::from_ref(&thing))
        .await
        .unwrap();
    let path = format!("/v2/edge/k3s/blobs/{}", thing.digest);
    assert_eq!(
        *registry.asked.borrow(),
        [(path.clone(), 0, None), (path, 0, Some("Bearer abc.def".into()))]
    );
    let asked = tokens.asked.borrow()[0].clone();
    assert_eq!(
        asked.0,
        "/service/token?service=harbor-registry&scope=repository%3Aedge%2Fk3s%3Apull"
    );
    assert_eq!(asked.2.as_deref(), Some("Basic dXNlcjp3b3Jk"));
    assert_eq!(*storage.asked.borrow(), [("/bucket?signature=1".into(), 0, None)]);
    Ok(())
}
