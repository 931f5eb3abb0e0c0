//! Direct access to the Kubernetes of a box, as a bare client has it: the thing to compare with.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Certificate, Client, Identity, Response};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Kinds whose requests are counted. Those that Kubernetes itself keeps writing (leases, events, end points) are not among them.
const COUNTED: [&str; 11] = [
    "namespaces",
    "customresourcedefinitions",
    "configmaps",
    "secrets",
    "services",
    "deployments",
    "holdfasts",
    "serviceaccounts",
    "roles",
    "rolebindings",
    "clusterroles",
];

/// A client with the administrator's certificate.
pub struct Access {
    /// Address of the API server.
    pub server: String,
    client: Client,
}

impl Access {
    /// Reads a kubeconfig with embedded certificates.
    pub fn from_kubeconfig(path: &Path) -> Result<Self> {
        let config: Value = serde_saphyr::from_str(&fs::read_to_string(path)?)?;
        let cluster = &config["clusters"][0]["cluster"];
        let user = &config["users"][0]["user"];
        let decode = |value: &Value| -> Result<Vec<u8>> {
            Ok(STANDARD.decode(value.as_str().context("embedded data")?)?)
        };
        let mut identity = decode(&user["client-certificate-data"])?;
        identity.push(b'\n');
        identity.extend(decode(&user["client-key-data"])?);
        let client = Client::builder()
            .tls_certs_only([Certificate::from_pem(&decode(
                &cluster["certificate-authority-data"],
            )?)?])
            .identity(Identity::from_pem(&identity)?)
            .tcp_nodelay(true)
            .build()?;
        Ok(Self {
            server: cluster["server"].as_str().context("server")?.to_owned(),
            client,
        })
    }

    /// Server-side apply of one configuration map.
    pub async fn patch(&self, name: &str, value: &str) -> Result<()> {
        let url = format!(
            "{}/api/v1/namespaces/default/configmaps/{name}?fieldManager=bench&force=true",
            self.server
        );
        let body = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"value": value}});
        let request = self
            .client
            .patch(url)
            .header("content-type", "application/apply-patch+yaml")
            .body(body.to_string());
        let response = request.send().await?;
        ensure!(response.status().is_success(), "PATCH: {}", response.status());
        response.bytes().await?;
        Ok(())
    }

    /// Server-side apply of any object, answered by its metadata alone.
    pub async fn apply(&self, path: &str, body: Vec<u8>) -> Result<()> {
        let response = self
            .client
            .patch(format!("{}{path}?fieldManager=bench&force=true", self.server))
            .header("content-type", "application/apply-patch+yaml")
            .header(
                "accept",
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            )
            .body(body)
            .send()
            .await?;
        let status = response.status();
        let answer = response.bytes().await?;
        ensure!(
            status.is_success(),
            "{path}: {status}: {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(())
    }

    /// Reads an object again and again until it is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            let object: Value = self
                .client
                .get(format!("{}{path}", self.server))
                .send()
                .await?
                .json()
                .await?;
            if wanted(&object) {
                return Ok(());
            }
            ensure!(begun.elapsed() < Duration::from_secs(30), "{path}: {object}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether the API server says that it is ready; no answer is no.
    pub async fn is_ready(&self) -> bool {
        let answer = self.client.get(format!("{}/readyz", self.server)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Deletes an object and says when that was answered.
    pub async fn delete(&self, path: &str) -> Result<Instant> {
        let response = self
            .client
            .delete(format!("{}{path}", self.server))
            .send()
            .await?;
        ensure!(
            response.status().is_success(),
            "DELETE {path}: {}",
            response.status()
        );
        response.bytes().await?;
        Ok(Instant::now())
    }

    /// How many requests the API server has answered so far for objects of the counted kinds, by verb; parts of an object (its status, say)
    /// do not count.
    pub async fn requests(&self) -> Result<BTreeMap<String, f64>> {
        let text = self
            .client
            .get(format!("{}/metrics", self.server))
            .send()
            .await?
            .text()
            .await?;
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            let Some((labels, value)) = line
                .strip_prefix("apiserver_request_total{")
                .and_then(|line| line.split_once("} "))
            else {
                continue;
            };
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split('"').next()
            };
            let counted = label("resource").is_some_and(|resource| COUNTED.contains(&resource))
                && label("subresource").is_none_or(str::is_empty);
            if let (true, Some(verb)) = (counted, label("verb")) {
                *counts.entry(verb.to_owned()).or_default() += value.parse::<f64>().unwrap_or_default();
            }
        }
        Ok(counts)
    }

    /// Watches one configuration map from now on.
    pub async fn watch(&self, name: &str) -> Result<Watch> {
        let url = format!(
            "{}/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3D{name}",
            self.server
        );
        self.watch_at(url).await
    }

    /// Watches all configuration maps of the default namespace from now on.
    pub async fn watch_all(&self) -> Result<Watch> {
        self.watch_at(format!(
            "{}/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0",
            self.server
        ))
        .await
    }

    async fn watch_at(&self, url: String) -> Result<Watch> {
        let response = self.client.get(url).send().await?;
        ensure!(response.status().is_success(), "watch: {}", response.status());
        Ok(Watch {
            response,
            buffer: Vec::new(),
        })
    }
}

/// Events of a watch.
pub struct Watch {
    response: Response,
    buffer: Vec<u8>,
}

impl Watch {
    /// Waits until the object's `data.value` is `value`.
    pub async fn until_value(&mut self, value: &str) -> Result<()> {
        self.until(|event| event["object"]["data"]["value"] == value)
            .await
    }

    /// Waits until an object of this name is there (again).
    pub async fn until_added(&mut self, name: &str) -> Result<()> {
        self.until(|event| event["type"] == "ADDED" && event["object"]["metadata"]["name"] == name)
            .await
    }

    /// Waits until each of these names was there once.
    pub async fn until_all_added(&mut self, mut names: HashSet<String>) -> Result<()> {
        self.until(|event| {
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
            names.remove(name);
            names.is_empty()
        })
        .await
    }

    async fn until(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Result<()> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if wanted(&serde_json::from_slice(&line)?) {
                    return Ok(());
                }
            }
            let chunk = self.response.chunk().await?.context("the watch ended")?;
            self.buffer.extend_from_slice(&chunk);
        }
    }
}
