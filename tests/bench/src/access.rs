//! Direct access to the Kubernetes of a box, as a bare client has it: the thing to compare with.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Certificate, Client, Identity, Response};
use serde_json::Value;
use std::{fs, path::Path};

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

    /// Watches one configuration map from now on.
    pub async fn watch(&self, name: &str) -> Result<Watch> {
        let url = format!(
            "{}/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3D{name}",
            self.server
        );
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
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line)?;
                if event["object"]["data"]["value"] == value {
                    return Ok(());
                }
            }
            let chunk = self.response.chunk().await?.context("the watch ended")?;
            self.buffer.extend_from_slice(&chunk);
        }
    }
}
