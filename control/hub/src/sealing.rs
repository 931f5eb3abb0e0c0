//! What a node's document gets that only this node can read: values that operators sealed to it, and the join secret of its site.
//!
//! In: the content of a release, rendered for a node. Out: the same with every sealed value in its place. Guarantees: the hub knows no
//! operator's value; a value that is missing, or sealed to another key than the node has, is an error here, with node and secret; a
//! join secret is sealed to nodes with that site's label and to nobody else; the same node gets the same bytes each time.

use crate::{
    api::ApiError,
    codes as hub_codes,
    database::{Write, nodes, secrets},
    hub::Hub,
};
use holdfast_protocol::{
    NodeId, Problem,
    document::{K3sJoin, K3sRole, K3sSection, K3sSite, SealedValue},
    operator::{Labels, ReleaseContent},
    seal,
    sealing::{JOIN_TOKEN_NAME, SealingPublicKey},
};
use http::StatusCode;

/// Port at which the servers of a site are joined: that of the Kubernetes API.
const JOIN_PORT: u16 = 6443;

/// Whether a release says something else for each node because of what is sealed.
pub fn differs(content: &ReleaseContent) -> bool {
    sources(content).next().is_some() || content.k3s.as_ref().is_some_and(|k3s| k3s.site.is_some())
}

/// Whether a release uses a secret.
pub fn uses(content: &ReleaseContent, secret: &str) -> bool {
    sources(content).any(|value| value.source == secret)
}

/// Every place of a release that takes a sealed value.
fn sources(content: &ReleaseContent) -> impl Iterator<Item = &SealedValue> {
    let registries = content.k3s.iter().filter_map(|k3s| k3s.registries.as_ref());
    let of_apps = content.apps.iter().flat_map(|app| &app.secrets);
    of_apps
        .flat_map(|secret| secret.data.values())
        .chain(registries.flat_map(|registries| registries.credentials.values()))
}

/// Puts everything that is sealed into the content for a node.
pub async fn fill(
    hub: &Hub,
    tx: &mut Write,
    node: &NodeId,
    content: &mut ReleaseContent,
) -> Result<(), ApiError> {
    if !differs(content) {
        return Ok(());
    }
    let key = nodes::sealing_key(tx, node).await?.ok_or_else(|| {
        refused(
            hub_codes::SEALING_KEY_MISSING,
            format!("node {node} has no sealing key yet, and the release holds values for it alone"),
            "update holdfast on the box; it tells its key as soon as it reaches the hub",
        )
    })?;
    fill_secrets(tx, node, &key, content).await?;
    if let Some(section) = &mut content.k3s {
        fill_site(hub, tx, node, &key, section).await?;
    }
    Ok(())
}

async fn fill_secrets(
    tx: &mut Write,
    node: &NodeId,
    key: &SealingPublicKey,
    content: &mut ReleaseContent,
) -> Result<(), ApiError> {
    let registries = content.k3s.iter_mut().filter_map(|k3s| k3s.registries.as_mut());
    let of_registries = registries.flat_map(|registries| registries.credentials.values_mut());
    let of_apps = content.apps.iter_mut().flat_map(|app| &mut app.secrets);
    let of_apps = of_apps.flat_map(|secret| secret.data.values_mut());
    let mut all: Vec<&mut SealedValue> = of_apps.chain(of_registries).collect();
    for value in &mut all {
        let name = &value.source;
        let sealed = secrets::get(tx, name, node).await?.ok_or_else(|| {
            refused(
                hub_codes::SECRET_MISSING,
                format!("node {node}: the secret {name:?} has no value for it"),
                format!("seal one: holdfastctl secret set {name} --node {node} --from-file FILE"),
            )
        })?;
        if sealed.key != key.digest() {
            return Err(refused(
                hub_codes::SEALED_TO_OTHER_KEY,
                format!("node {node}: the secret {name:?} is sealed to an older key of the node"),
                format!("seal it again: holdfastctl secret set {name} --node {node} --from-file FILE"),
            ));
        }
        value.sealed = Some(sealed);
    }
    Ok(())
}

async fn fill_site(
    hub: &Hub,
    tx: &mut Write,
    node: &NodeId,
    key: &SealingPublicKey,
    section: &mut K3sSection,
) -> Result<(), ApiError> {
    let Some(rules) = section.site.take() else {
        return Ok(());
    };
    let labels = nodes::labels(tx, node).await?.unwrap_or_default();
    let wrong = |reason: String| {
        refused(
            hub_codes::SITE_INVALID,
            format!("node {node}: {reason}"),
            "correct the labels of the nodes of this site (`holdfastctl node label`), or k3s.site of the release",
        )
    };
    let site = label(&labels, &rules.label).map_err(wrong)?;
    section.role = role(&labels, &rules).map_err(wrong)?;
    if section.node_address.is_none()
        && let Some(text) = labels.get(&rules.address_label)
    {
        let address = text.parse().map_err(|_| {
            wrong(format!(
                "its label {} is {text:?}, which is no address",
                rules.address_label
            ))
        })?;
        section.node_address = Some(address);
    }
    let (first, address) = first_server(tx, &site, &rules).await?.map_err(wrong)?;
    let server = if first == *node {
        None
    } else {
        match rules
            .server
            .clone()
            .or_else(|| address.map(|address| url(&address)))
        {
            Some(server) => Some(server),
            None => {
                return Err(wrong(format!(
                    "nobody says where to join: its site's first server, {first}, has no label {}, and the release names no server",
                    rules.address_label
                )));
            }
        }
    };
    let token = match secrets::site_token(tx, node, &site).await? {
        Some(token) if token.key == key.digest() => token,
        _ => {
            let secret = hub.authority.site_token(&site)?;
            let token = seal::seal(key, JOIN_TOKEN_NAME, secret.as_bytes())
                .map_err(|error| ApiError::internal(&error))?;
            secrets::put_site_token(tx, node, &site, &token).await?;
            token
        }
    };
    section.join = Some(K3sJoin {
        server,
        token,
        etcd: rules.servers > 1,
    });
    Ok(())
}

/// The server that begins the cluster of a site, and its address where a label says it.
///
/// It stays the one that it was for as long as it is a server of the site: another one would begin a second cluster.
async fn first_server(
    tx: &mut Write,
    site: &str,
    rules: &K3sSite,
) -> Result<Result<(NodeId, Option<String>), String>, ApiError> {
    let mut servers = Vec::new();
    for (id, labels) in nodes::oldest_first(tx).await? {
        if labels.get(&rules.label).is_some_and(|of| of == site)
            && role(&labels, rules) == Ok(K3sRole::Server)
        {
            servers.push((id, labels.get(&rules.address_label).cloned()));
        }
    }
    if servers.len() > usize::from(rules.servers) {
        let names: Vec<_> = servers.iter().map(|(id, _)| id.as_str()).collect();
        return Ok(Err(format!(
            "site {site} has {} servers ({}); the release says {}",
            servers.len(),
            names.join(", "),
            rules.servers
        )));
    }
    let known = secrets::first_server(tx, site).await?;
    let found = match servers.iter().position(|(id, _)| known.as_ref() == Some(id)) {
        Some(place) => servers.swap_remove(place),
        None if servers.is_empty() => {
            return Ok(Err(format!(
                "site {site} has no server: label one of its nodes {}=server",
                rules.role_label
            )));
        }
        None => {
            let first = servers.swap_remove(0);
            secrets::set_first_server(tx, site, &first.0).await?;
            first
        }
    };
    Ok(Ok(found))
}

fn label(labels: &Labels, name: &str) -> Result<String, String> {
    match labels.get(name) {
        Some(value) if !value.is_empty() => Ok(value.clone()),
        _ => Err(format!("it has no label {name}")),
    }
}

fn role(labels: &Labels, rules: &K3sSite) -> Result<K3sRole, String> {
    match label(labels, &rules.role_label)?.as_str() {
        "server" => Ok(K3sRole::Server),
        "agent" => Ok(K3sRole::Agent),
        other => Err(format!(
            "its label {} is {other:?}; write server or agent",
            rules.role_label
        )),
    }
}

fn url(address: &str) -> String {
    if address.contains(':') {
        return format!("https://[{address}]:{JOIN_PORT}");
    }
    format!("https://{address}:{JOIN_PORT}")
}

fn refused(code: &'static str, message: String, action: impl Into<String>) -> ApiError {
    ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        Problem::new(code, message, action.into()),
    )
}
