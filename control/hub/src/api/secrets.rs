//! Secrets: sealed by operators, kept sealed, given to nodes as they are.

use super::{
    auth::{Admin, Viewer},
    body::{Body, Part},
    error::{ApiError, Result},
    nodes::unknown,
};
use crate::{
    codes as hub_codes,
    database::{
        Write,
        audit::{self, Actor},
        nodes, releases, secrets as stored,
    },
    hub::Hub,
    render::Renderer,
    sealing,
};
use axum::{Json, extract::State};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use holdfast_protocol::{
    Generation, NodeId, Problem,
    document::Sealed,
    operator::{PutSecret, SecretInfo, StoredSecret},
    seal::MAX_VALUE_BYTES,
};
use http::StatusCode;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Length of an encapsulated key, and of what the cipher adds to a value, in bytes.
const ENCAPSULATED_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// All secrets by name: who has a value, and nothing of the value.
#[utoipa::path(get, path = "/api/v1/secrets", tag = "secrets", responses((status = 200, body = [SecretInfo])))]
pub async fn list(State(hub): State<Arc<Hub>>, _viewer: Viewer) -> Result<Json<Vec<SecretInfo>>> {
    Ok(Json(stored::list(hub.database.read()).await?))
}

/// Stores values of a secret, each sealed to one node. Nodes whose release uses the secret get a new generation.
#[utoipa::path(put, path = "/api/v1/secrets/{name}", tag = "secrets", params(("name" = String, Path)), request_body = PutSecret,
    responses((status = 200, body = StoredSecret),
        (status = 409, description = "sealed-to-other-key: the node has another key now", body = Problem),
        (status = "4XX", body = Problem)))]
pub async fn put(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Part(name): Part<NodeId>,
    Body(request): Body<PutSecret>,
) -> Result<Json<StoredSecret>> {
    if request.values.is_empty() {
        return Err(ApiError::bad_request(
            "values: there is none",
            "seal the value to one node at least",
        ));
    }
    let mut tx = hub.database.write().await?;
    for (node, sealed) in &request.values {
        check(node, sealed)?;
        nodes::labels(&mut tx, node).await?.ok_or_else(|| unknown(node))?;
        let key = nodes::sealing_key(&mut tx, node).await?.map(|key| key.digest());
        if key != Some(sealed.key) {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                Problem::new(
                    hub_codes::SEALED_TO_OTHER_KEY,
                    format!("the value for node {node} is sealed to a key that is not the node's"),
                    "seal it again: holdfastctl asks for the keys each time",
                ),
            ));
        }
        stored::put(
            &mut tx,
            name.as_str(),
            node,
            sealed,
            &who.name,
            crate::database::now(),
        )
        .await?;
    }
    let nodes: Vec<NodeId> = request.values.into_keys().collect();
    let generations = render_again(&hub, &mut tx, name.as_str(), &nodes).await?;
    let shown: Vec<_> = nodes.iter().take(20).map(NodeId::as_str).collect();
    let detail = format!("sealed to {} nodes: {}", nodes.len(), shown.join(","));
    let actor = Actor::Operator(who.name);
    audit::record(&mut tx, &actor, "secret.set", &format!("secret/{name}"), &detail).await?;
    tx.commit().await?;
    hub.outbox.notify_one();
    for node in generations.keys() {
        hub.changed(node);
    }
    Ok(Json(StoredSecret {
        name: name.to_string(),
        nodes,
        generations,
    }))
}

/// Forgets a secret with all its values. One that a node's release uses is kept.
#[utoipa::path(delete, path = "/api/v1/secrets/{name}", tag = "secrets", params(("name" = String, Path)),
    responses((status = 204), (status = 404, description = "not-found", body = Problem),
        (status = 409, description = "conflict: the release of a node uses it", body = Problem)))]
pub async fn delete(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Part(name): Part<NodeId>,
) -> Result<StatusCode> {
    let mut tx = hub.database.write().await?;
    for (release, node) in nodes::releases_in_use(&mut tx).await? {
        let Some(info) = releases::get(hub.database.read(), &release).await? else {
            continue;
        };
        if info
            .content
            .is_some_and(|content| sealing::uses(&content, name.as_str()))
        {
            return Err(ApiError::conflict(
                format!("release {release}, which node {node} should run, uses the secret {name}"),
                "give the nodes a release without it first",
            ));
        }
    }
    if !stored::delete(&mut tx, name.as_str()).await? {
        return Err(ApiError::not_found(
            "secret",
            &name,
            "`holdfastctl secret list` lists them",
        ));
    }
    let actor = Actor::Operator(who.name);
    audit::record(
        &mut tx,
        &actor,
        "secret.delete",
        &format!("secret/{name}"),
        "with all values",
    )
    .await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a value has the form of a sealed one; what is in it, only the node can tell.
fn check(node: &NodeId, sealed: &Sealed) -> Result<()> {
    let length = |text: &str| URL_SAFE_NO_PAD.decode(text).ok().map(|bytes| bytes.len());
    let key = length(&sealed.encapsulated) == Some(ENCAPSULATED_BYTES);
    let value = length(&sealed.ciphertext)
        .is_some_and(|length| (TAG_BYTES..=TAG_BYTES + MAX_VALUE_BYTES).contains(&length));
    if key && value {
        return Ok(());
    }
    Err(ApiError::bad_request(
        format!("values.{node}: this is no sealed value of at most {MAX_VALUE_BYTES} bytes"),
        "seal it with holdfastctl secret set",
    ))
}

/// Renders the releases of those nodes anew that use the secret.
async fn render_again(
    hub: &Hub,
    tx: &mut Write,
    secret: &str,
    sealed_to: &[NodeId],
) -> Result<BTreeMap<NodeId, Generation>> {
    let mut by_release: BTreeMap<String, BTreeSet<&NodeId>> = BTreeMap::new();
    for node in sealed_to {
        if let Some(release) = nodes::release(tx, node).await? {
            by_release.entry(release).or_default().insert(node);
        }
    }
    let mut generations = BTreeMap::new();
    for (name, nodes) in by_release {
        let Some(release) = releases::get(hub.database.read(), &name).await? else {
            continue;
        };
        if !release
            .content
            .as_ref()
            .is_some_and(|content| sealing::uses(content, secret))
        {
            continue;
        }
        let renderer = Renderer::new(hub, &release).await?;
        for node in nodes {
            generations.insert(node.clone(), renderer.assign(tx, node).await?);
        }
    }
    Ok(generations)
}
