//! A running hub, and its operator API.

use crate::{
    link::Link,
    paths,
    process::{Process, run},
};
use anyhow::{Context as _, Result, bail};
use holdfast_protocol::{
    Digest, Generation,
    document::{App, ManifestSource},
    event::Event,
    operator::{
        AssignRelease, Assigned, CreateRelease, CreateToken, CreatedToken, NodeInfo, ReleaseContent,
        ReleaseInfo,
    },
    report::Health,
};
use reqwest::{Client, Method, Response};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::process::Command;

/// How long a hub may take to start.
const START: Duration = Duration::from_secs(30);

/// What the hub prints when it is ready.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// Address of the HTTPS listener.
    pub api: String,
    /// Address of the plain listener, where one is configured.
    pub plain: Option<String>,
    /// Address of the MQTT listener.
    pub mqtt: String,
    /// File with the first administrator's bearer token.
    pub admin_token_file: PathBuf,
}

/// A running hub whose nodes reach it through two links: one for HTTPS, one for MQTT.
pub struct Hub {
    /// Its directory: configuration, data, log.
    pub directory: PathBuf,
    /// What it said when it was ready.
    pub ready: Ready,
    /// The link to its HTTPS listener.
    pub api_link: Link,
    /// The link to its MQTT listener.
    pub mqtt_link: Link,
    process: Process,
    client: Client,
    token: String,
}

impl Hub {
    /// Starts a hub with its own broker below `directory`.
    pub async fn start(directory: &Path) -> Result<Self> {
        Self::start_with(directory, "listen = \"127.0.0.1:0\"").await
    }

    /// Starts a hub that uses the broker at `broker`, which need not run yet.
    pub async fn start_with_external_broker(directory: &Path, broker: SocketAddr) -> Result<Self> {
        let hub =
            Self::start_with(directory, &format!("kind = \"external\"\naddress = \"{broker}\"")).await?;
        hub.mqtt_link.lead_to(broker);
        Ok(hub)
    }

    /// Starts a hub whose nodes reach this machine's loopback as `host`, as virtual machines do. Its links are at these ports
    /// (HTTPS, MQTT), free ones where they are 0: on the data of an earlier hub at the same ports it is that hub, for its nodes.
    pub async fn start_for_guests(directory: &Path, host: IpAddr, ports: (u16, u16)) -> Result<Self> {
        Self::start_at(directory, "listen = \"127.0.0.1:0\"", host, ports).await
    }

    async fn start_with(directory: &Path, broker: &str) -> Result<Self> {
        Self::start_at(directory, broker, Ipv4Addr::LOCALHOST.into(), (0, 0)).await
    }

    async fn start_at(directory: &Path, broker: &str, host: IpAddr, ports: (u16, u16)) -> Result<Self> {
        crate::install_tls_provider();
        fs::create_dir_all(directory)?;
        let (api_link, mqtt_link) = (Link::open_at(ports.0).await?, Link::open_at(ports.1).await?);
        let config = format!(
            "data_dir = {data:?}\n\n[api]\nlisten = \"127.0.0.1:0\"\nplain_listen = \"127.0.0.1:0\"\npublic_url = \"https://{api}\"\n\n\
             [broker]\npublic = [\"mqtts://{mqtt}\"]\n{broker}\n",
            data = directory.join("data"),
            api = SocketAddr::new(host, api_link.address().port()),
            mqtt = SocketAddr::new(host, mqtt_link.address().port()),
        );
        let path = directory.join("hub.toml");
        fs::File::create(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, config.as_bytes()))?;
        let (process, ready) = Self::spawn(directory).await?;
        api_link.lead_to(socket_address(&ready.api)?);
        mqtt_link.lead_to(socket_address(&ready.mqtt)?);
        let token = fs::read_to_string(&ready.admin_token_file)
            .context("the administrator's token")?
            .trim()
            .to_owned();
        Ok(Self {
            directory: directory.to_owned(),
            ready,
            api_link,
            mqtt_link,
            process,
            client: Client::new(),
            token,
        })
    }

    async fn spawn(directory: &Path) -> Result<(Process, Ready)> {
        let mut command = Command::new(paths::binary("holdfast-hub")?);
        command
            .arg("run")
            .arg("--config")
            .arg(directory.join("hub.toml"))
            .env_remove("RUST_BACKTRACE");
        let mut process = Process::start("holdfast-hub", command, &directory.join("hub.log"))?;
        let line = process.line(START).await?;
        let ready = serde_json::from_str(&line).with_context(|| format!("the hub's ready line {line:?}"))?;
        Ok((process, ready))
    }

    /// Runs another command of the hub with the same configuration.
    pub async fn command(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(paths::binary("holdfast-hub")?);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.directory.join("hub.toml"));
        run(command).await
    }

    /// Kills the hub without warning and starts it again on the same data; its ports may change, its links stay.
    pub async fn kill_and_restart(&mut self) -> Result<()> {
        self.process.kill().await?;
        let (process, ready) = Self::spawn(&self.directory).await?;
        self.api_link.lead_to(socket_address(&ready.api)?);
        self.mqtt_link.lead_to(socket_address(&ready.mqtt)?);
        (self.process, self.ready) = (process, ready);
        Ok(())
    }

    /// Asks the hub to end, and gives the ports of its links, which are free from then on.
    pub async fn stop(mut self) -> Result<(u16, u16)> {
        let ports = (self.api_link.address().port(), self.mqtt_link.address().port());
        self.process.stop(START).await?;
        Ok(ports)
    }

    /// Process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        self.process.log_tail(lines)
    }

    /// The first administrator's bearer token.
    pub fn admin_token(&self) -> &str {
        &self.token
    }

    /// Address of the plain listener: web page and API.
    pub fn plain_url(&self) -> Result<&str> {
        self.ready
            .plain
            .as_deref()
            .context("the hub has no plain listener")
    }

    /// Cuts both links of the nodes.
    pub fn cut(&self) {
        self.api_link.cut();
        self.mqtt_link.cut();
    }

    /// Restores both links of the nodes.
    pub fn restore(&self) {
        self.api_link.restore();
        self.mqtt_link.restore();
    }

    /// Sends a request to the operator API as the administrator; `path` starts with `/`.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response> {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.plain_url()?))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        if response.status().is_success() {
            return Ok(response);
        }
        bail!(
            "{path}: {}: {}",
            response.status(),
            response.text().await.unwrap_or_default()
        )
    }

    /// Reads from the operator API.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        Ok(self.request(Method::GET, path, None::<&()>).await?.json().await?)
    }

    /// Makes an enrolment token.
    pub async fn create_token(&self, request: &CreateToken) -> Result<CreatedToken> {
        Ok(self
            .request(Method::POST, "/api/v1/tokens", Some(request))
            .await?
            .json()
            .await?)
    }

    /// Makes a release of one app with these objects inline.
    pub async fn create_release(&self, name: &str, app: &str, objects: Vec<Value>) -> Result<ReleaseInfo> {
        let app = App {
            name: app.to_owned(),
            namespace: None,
            manifests: vec![ManifestSource::Inline(objects)],
            ..App::default()
        };
        let content = ReleaseContent {
            apps: vec![app],
            ..ReleaseContent::default()
        };
        self.create_release_of(name, content).await
    }

    /// Makes a release of any content.
    pub async fn create_release_of(&self, name: &str, content: ReleaseContent) -> Result<ReleaseInfo> {
        let request = CreateRelease {
            name: name.to_owned(),
            content,
        };
        Ok(self
            .request(Method::POST, "/api/v1/releases", Some(&request))
            .await?
            .json()
            .await?)
    }

    /// Gives a release to a node and says which generation that became.
    pub async fn assign(&self, release: &str, node: &str) -> Result<Generation> {
        let request = AssignRelease {
            nodes: vec![node.parse()?],
            selector: None,
        };
        let path = format!("/api/v1/releases/{release}/assign");
        let assigned: Assigned = self
            .request(Method::POST, &path, Some(&request))
            .await?
            .json()
            .await?;
        assigned
            .generations
            .get(&request.nodes[0])
            .copied()
            .context("the assignment names no generation of the node")
    }

    /// Uploads a blob.
    pub async fn put_blob(&self, content: Vec<u8>) -> Result<Digest> {
        let digest = Digest::of(&content);
        let url = format!("{}/api/v1/blobs/{digest}", self.plain_url()?);
        let response = self
            .client
            .put(url)
            .bearer_auth(&self.token)
            .body(content)
            .send()
            .await?;
        if response.status().is_success() {
            return Ok(digest);
        }
        bail!(
            "blob {digest}: {}: {}",
            response.status(),
            response.text().await.unwrap_or_default()
        )
    }

    /// Events of a node, the oldest first.
    pub async fn events(&self, name: &str) -> Result<Vec<Event>> {
        let mut events: Vec<Event> = self.get(&format!("/api/v1/nodes/{name}/events")).await?;
        events.sort_by_key(|event| event.sequence);
        Ok(events)
    }

    /// Waits until the node has proven a generation and is healthy.
    pub async fn wait_for_proven(
        &self,
        name: &str,
        generation: Generation,
        within: Duration,
    ) -> Result<NodeInfo> {
        let what = format!("{name} proves generation {generation}");
        self.wait_for_node(name, &what, within, |node| {
            node.proven == Some(generation) && node.health == Health::Healthy
        })
        .await
    }

    /// What the hub knows of a node.
    pub async fn node(&self, name: &str) -> Result<NodeInfo> {
        self.get(&format!("/api/v1/nodes/{name}")).await
    }

    /// Waits until what the hub knows of a node satisfies `condition`; looks again with each message of the hub's stream.
    pub async fn wait_for_node(
        &self,
        name: &str,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&NodeInfo) -> bool,
    ) -> Result<NodeInfo> {
        let deadline = Instant::now() + within;
        let mut stream = self.request(Method::GET, "/api/v1/stream", None::<&()>).await?;
        loop {
            let seen = self.node(name).await;
            if let Ok(node) = &seen
                && condition(node)
            {
                return seen;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, stream.chunk()).await {
                Ok(Ok(Some(_))) => {}
                // The hub ends the stream of a reader that is too slow, which on a busy machine this one can be: it connects again.
                Ok(Ok(None) | Err(_)) => {
                    stream = self
                        .request(Method::GET, "/api/v1/stream", None::<&()>)
                        .await
                        .with_context(|| {
                            format!(
                                "{what}: the hub ended its stream and gives no other; its log ends:\n{}",
                                self.log_tail(20)
                            )
                        })?;
                }
                Err(_) => bail!("{what}: not within {within:?}; the hub says of {name}: {seen:#?}"),
            }
        }
    }
}

/// Host and port of an address like `https://127.0.0.1:8443`.
pub fn socket_address(url: &str) -> Result<SocketAddr> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.trim_end_matches('/')
        .parse()
        .with_context(|| format!("address {url:?}"))
}
