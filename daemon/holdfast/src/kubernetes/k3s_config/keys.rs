//! Keys of `config.yaml`. What each means: <https://docs.k3s.io/cli/server>, <https://docs.k3s.io/cli/agent>.

use super::{files, to_json};
use crate::{kubernetes::address::INTERFACE, settings::Settings};
use holdfast_protocol::{
    NodeId,
    document::{K3sRole, K3sSection},
};
use serde_json::{Map, Value, json};
use std::{fmt::Write as _, net::IpAddr};

/// The network of services where nobody says another: k3s's own default.
const SERVICES: &str = "10.43.0.0/16";
/// Size in megabytes at which the audit log is begun anew, and how many old ones are kept: 30 MB in all.
const AUDIT_LOG: [(&str, u32); 3] = [("maxsize", 10), ("maxbackup", 2), ("maxage", 30)];

/// The address of the node: that of the document, else that of the box.
pub(super) fn address(settings: &Settings, section: &K3sSection) -> Option<IpAddr> {
    section.node_address.or(settings.kubernetes.node_address)
}

/// All keys: of Holdfast, over them those of the settings, over them those of the document, over them what ties k3s to this box.
pub(super) fn all(settings: &Settings, node: &NodeId, section: &K3sSection) -> Map<String, Value> {
    let kubernetes = &settings.kubernetes;
    let server = section.role == K3sRole::Server;
    let name = kubernetes
        .node_name
        .clone()
        .unwrap_or_else(|| node.as_str().to_owned());
    let mut keys = Map::new();
    let mut set = |key: &str, value: Value| {
        keys.insert(key.to_owned(), value);
    };
    set("node-name", name.into());
    if server {
        set("write-kubeconfig-mode", "0600".into());
    }
    if let Some(address) = address(settings, section) {
        set("node-ip", json!([address]));
        if server {
            set("advertise-address", json!(address));
        }
        // Between the boxes of a site, pods talk over the network that the boxes share, and a dummy interface leads nowhere.
        if section.join.is_none() {
            set("flannel-iface", INTERFACE.into());
        }
    }
    for source in [&kubernetes.config, &section.config] {
        for (key, value) in source {
            set(key, value.clone());
        }
    }
    set("data-dir", path(&kubernetes.data_dir));
    if server {
        // A document that changed these would cut Holdfast off from its own Kubernetes.
        set("write-kubeconfig", path(&kubernetes.kubeconfig));
        set("https-listen-port", kubernetes.https_port.into());
    }
    if let Some(join) = &section.join {
        set("token-file", path(&files::token(settings)));
        match &join.server {
            Some(address) => set("server", address.as_str().into()),
            None if server && join.etcd => set("cluster-init", true.into()),
            None => {}
        }
    }
    if files::has_registries(settings, section) {
        set("private-registry", path(&files::registries(settings)));
    }
    if server && files::has_audit_policy(settings, section) {
        let log = kubernetes.data_dir.join("server/logs/audit.log");
        let mut arguments = vec![
            format!("audit-policy-file={}", files::audit_policy(settings).display()),
            format!("audit-log-path={}", log.display()),
        ];
        arguments.extend(AUDIT_LOG.map(|(name, value)| format!("audit-log-{name}={value}")));
        append(&mut keys, "kube-apiserver-arg", arguments);
    }
    keys
}

/// Adds to a key that may be a text or a list, as k3s takes both. What is there stays behind: of two equal flags the last one counts.
fn append(keys: &mut Map<String, Value>, key: &str, values: Vec<String>) {
    let mut all: Vec<Value> = values.into_iter().map(Value::from).collect();
    match keys.remove(key) {
        Some(Value::Array(there)) => all.extend(there),
        Some(Value::Null) | None => {}
        Some(one) => all.push(one),
    }
    keys.insert(key.to_owned(), all.into());
}

/// Networks of services, as a key says them: a list, or one text with commas.
pub(super) fn service_networks(keys: &Map<String, Value>) -> Vec<String> {
    let split = |text: &str| {
        text.split(',')
            .map(|part| part.trim().to_owned())
            .collect::<Vec<_>>()
    };
    match keys.get("service-cidr") {
        Some(Value::String(text)) => split(text),
        Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).flat_map(split).collect(),
        _ => vec![SERVICES.to_owned()],
    }
}

fn path(path: &std::path::Path) -> Value {
    path.display().to_string().into()
}

/// The text of the file, keys in order.
pub(super) fn text(keys: Map<String, Value>) -> String {
    let mut text = String::from("# Written by holdfast; changes are overwritten.\n");
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    for (key, value) in keys {
        // A JSON value is a YAML value; writing to a string cannot fail.
        let _ = writeln!(text, "{key}: {}", to_json(&value));
    }
    text
}
