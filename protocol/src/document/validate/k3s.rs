//! Rules of the k3s section.

use super::{Checked, architecture, artifact, fail, images, line, require};
use crate::document::{Datastore, K3sRole, K3sSection, Registries};
use serde_json::{Map, Value};

/// The most registries with mirrors, settings or credentials.
const MAX_REGISTRIES: usize = 64;

/// Keys of k3s's `config.yaml` that have a place of their own: the box would have another value all the same, or fall out of its site.
/// With the short names that k3s takes for them.
const RESERVED: [(&str, &str); 13] = [
    ("data-dir", DATA_DIR),
    ("d", DATA_DIR),
    ("write-kubeconfig", KUBECONFIG),
    ("o", KUBECONFIG),
    (
        "https-listen-port",
        "each box says it in its settings: kubernetes.https_port",
    ),
    ("token", TOKEN),
    ("t", TOKEN),
    ("token-file", TOKEN),
    ("agent-token", TOKEN),
    ("agent-token-file", TOKEN),
    ("server", SERVER),
    ("s", SERVER),
    (
        "cluster-init",
        "use k3s.site with servers: 3, which begins the cluster on the first of them",
    ),
];
const DATA_DIR: &str = "each box says it in its settings: kubernetes.data_dir";
const KUBECONFIG: &str = "each box says it in its settings: kubernetes.kubeconfig";
const TOKEN: &str = "use k3s.site: the hub makes the secret of a site and seals it to each box";
const SERVER: &str = "use k3s.site, with its server where no label says the address";

/// `has_apps`: whether the document has any.
pub(super) fn check(section: &K3sSection, has_apps: bool) -> Checked {
    role(section, has_apps)?;
    for key in section.config.keys() {
        // k3s appends to what it has where the key ends in a plus.
        let name = key.trim_end_matches('+');
        if let Some((_, instead)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
            return fail(
                format!("k3s.config.{key}"),
                format!("it is not set here: {instead}"),
            );
        }
    }
    if let Some(version) = &section.version {
        line("k3s.version", version, 128)?;
        require(
            is_version(version),
            "k3s.version",
            format!(
                "{version:?} is no version: write it as `k3s --version` prints it, v1.36.3+k3s1; a channel such as \"latest\" means another program from day to day"
            ),
        )?;
    }
    for (name, binary) in &section.binaries {
        let place = format!("k3s.binaries.{name}");
        architecture(&place, name)?;
        artifact(&place, binary)?;
    }
    images("k3s.images", &section.images)?;
    if let Some(address) = section.node_address {
        require(
            !address.is_unspecified() && !address.is_loopback() && !address.is_multicast(),
            "k3s.nodeAddress",
            format!("{address} cannot be the address of a node"),
        )?;
    }
    if let Some(server) = section.join.as_ref().and_then(|join| join.server.as_ref()) {
        line("k3s.join.server", server, 512)?;
        require(
            server
                .strip_prefix("https://")
                .is_some_and(|host| !host.is_empty()),
            "k3s.join.server",
            format!("{server:?}: write https://ADDRESS:6443"),
        )?;
    }
    if let Some(site) = &section.site {
        require(
            matches!(site.servers, 1 | 3),
            "k3s.site.servers",
            format!(
                "{}: a site has one server, or three with embedded etcd",
                site.servers
            ),
        )?;
        require(
            section.join.is_none(),
            "k3s.join",
            "the hub makes it of k3s.site; leave it out",
        )?;
        require(
            site.servers == 1 || section.datastore != Some(Datastore::Ram),
            "k3s.datastore",
            "three servers keep their state in etcd, on the disk; leave it out",
        )?;
    }
    section.registries.as_ref().map_or(Ok(()), registries)
}

/// What a program of k3s can say of itself: `v1.36.3+k3s1`, `v1.36.0-rc1+k3s1`. What none can say is never reached.
fn is_version(text: &str) -> bool {
    let Some(numbers) = text.strip_prefix('v') else {
        return false;
    };
    let (numbers, rest) = numbers.split_at(numbers.find(['+', '-']).unwrap_or(numbers.len()));
    let is_number = |text: &str| {
        text.len() <= 9
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.is_empty() && !text.starts_with('0'))
    };
    numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && rest.len() != 1
        && (rest.chars()).all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// What the hub made of a site has `join`; whether such a document fits is seen by the box.
fn role(section: &K3sSection, has_apps: bool) -> Checked {
    if section.role != K3sRole::Agent || section.join.is_some() {
        return Ok(());
    }
    require(
        section.site.is_some(),
        "k3s.role",
        "an agent needs servers to join: use k3s.site, which makes each node a server or an agent by its labels, or leave the role out",
    )?;
    require(
        !has_apps,
        "k3s.role",
        "agents take no apps, which are for the servers of a site: leave the role out, and k3s.site takes it from the labels of each node",
    )
}

fn registries(registries: &Registries) -> Checked {
    for (name, count) in [
        ("mirrors", registries.mirrors.len()),
        ("configs", registries.configs.len()),
        ("credentials", registries.credentials.len()),
    ] {
        require(
            count <= MAX_REGISTRIES,
            format!("k3s.registries.{name}"),
            format!("{count} registries; at most {MAX_REGISTRIES}"),
        )?;
    }
    each(&registries.mirrors, "mirrors")?;
    each(&registries.configs, "configs")?;
    for (registry, value) in &registries.configs {
        require(
            value.get("auth").is_none(),
            format!("k3s.registries.configs.{registry}.auth"),
            "a password does not belong into a document: store it as a secret, and name it below credentials",
        )?;
    }
    Ok(())
}

fn each(registries: &Map<String, Value>, section: &str) -> Checked {
    for (registry, value) in registries {
        let place = format!("k3s.registries.{section}.{registry}");
        line(&place, registry, 253)?;
        if !value.is_object() {
            return fail(place, "is no map; see the documentation of k3s's registries.yaml");
        }
    }
    Ok(())
}
