//! Releases and their blobs, and who runs which.

use super::{
    auth::{Admin, Viewer},
    blobs::sweep,
    body::{Body, Part},
    error::{ApiError, Result},
    nodes::unknown,
};
use crate::{
    database::{
        audit::{self, Actor},
        blobs, nodes, releases as stored,
    },
    hub::Hub,
    releases,
    render::Renderer,
    selector::Selector,
};
use axum::{Json, extract::State};
use holdfast_protocol::{
    NodeId, Problem,
    operator::{AssignRelease, Assigned, CreateRelease, ReleaseInfo},
};
use http::StatusCode;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The most nodes that the refusal to delete a release names.
const SHOWN_USERS: u32 = 10;

/// All releases, newest first, without their content.
#[utoipa::path(get, path = "/api/v1/releases", tag = "releases", responses((status = 200, body = [ReleaseInfo])))]
pub async fn list(State(hub): State<Arc<Hub>>, _viewer: Viewer) -> Result<Json<Vec<ReleaseInfo>>> {
    Ok(Json(stored::list(hub.database.read()).await?))
}

/// One release with its content.
#[utoipa::path(get, path = "/api/v1/releases/{name}", tag = "releases", params(("name" = String, Path)),
    responses((status = 200, body = ReleaseInfo), (status = 404, description = "not-found", body = Problem)))]
pub async fn get(
    State(hub): State<Arc<Hub>>,
    _viewer: Viewer,
    Part(name): Part<NodeId>,
) -> Result<Json<ReleaseInfo>> {
    Ok(Json(find(&hub, &name).await?))
}

async fn find(hub: &Hub, name: &NodeId) -> Result<ReleaseInfo> {
    stored::get(hub.database.read(), name.as_str())
        .await?
        .ok_or_else(|| ApiError::not_found("release", name, "`holdfastctl release list` lists them"))
}

/// Makes a release. The same name with the same content again is fine; a name never gets other content.
#[utoipa::path(post, path = "/api/v1/releases", tag = "releases", request_body = CreateRelease,
    responses((status = 201, body = ReleaseInfo), (status = 200, description = "It was there already, the same", body = ReleaseInfo),
        (status = 409, description = "conflict: other content under this name", body = Problem),
        (status = 422, description = "release-invalid, with the place", body = Problem)))]
pub async fn create(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Body(mut request): Body<CreateRelease>,
) -> Result<(StatusCode, Json<ReleaseInfo>)> {
    let name: NodeId = request
        .name
        .parse()
        .map_err(|error| ApiError::bad_request(format!("name: {error}"), "choose another name"))?;
    let parts = releases::check(&hub, name.as_str(), &mut request.content).await?;
    let info = ReleaseInfo {
        name: request.name,
        digest: stored::content_digest(&request.content)?,
        created_at: crate::database::now(),
        created_by: who.name.clone(),
        apps: request.content.apps.iter().map(|app| app.name.clone()).collect(),
        nodes: 0,
        content: None,
    };
    let mut tx = hub.database.write().await?;
    for (blob, part) in parts {
        blobs::set_part(&mut tx, &blob, &part).await?;
    }
    if stored::insert(&mut tx, &info, &request.content).await? {
        let actor = Actor::Operator(who.name);
        let detail = info.digest.to_string();
        audit::record(
            &mut tx,
            &actor,
            "release.create",
            &format!("release/{name}"),
            &detail,
        )
        .await?;
        tx.commit().await?;
        return Ok((StatusCode::CREATED, Json(info)));
    }
    drop(tx);
    let there = find(&hub, &name).await?;
    if there.digest != info.digest {
        return Err(ApiError::conflict(
            format!("release {name} exists with other content, and a release never changes"),
            "choose another name, such as one with a version in it",
        ));
    }
    Ok((
        StatusCode::OK,
        Json(ReleaseInfo {
            content: None,
            ..there
        }),
    ))
}

/// Deletes a release that no node should run, and its blobs that nothing else names.
#[utoipa::path(delete, path = "/api/v1/releases/{name}", tag = "releases", params(("name" = String, Path)),
    responses((status = 204), (status = 404, description = "not-found", body = Problem),
        (status = 409, description = "conflict: nodes should run it", body = Problem)))]
pub async fn delete(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Part(name): Part<NodeId>,
) -> Result<StatusCode> {
    let release = find(&hub, &name).await?;
    let mut tx = hub.database.write().await?;
    let users = stored::users(&mut tx, name.as_str(), SHOWN_USERS).await?;
    if !users.is_empty() {
        return Err(ApiError::conflict(
            format!("release {name} is what nodes should run: {}", users.join(", ")),
            "give them another release first",
        ));
    }
    let own = match &release.content {
        Some(content) => blobs::of_release(&mut tx, content).await?,
        None => BTreeSet::new(),
    };
    stored::delete(&mut tx, name.as_str()).await?;
    let forgotten = blobs::forget_unused(&mut tx, &own, crate::database::now()).await?;
    let actor = Actor::Operator(who.name);
    let detail = format!("{} blobs", forgotten.len());
    let subject = format!("release/{name}");
    audit::record(&mut tx, &actor, "release.delete", &subject, &detail).await?;
    tx.commit().await?;
    sweep(&hub, &forgotten).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a release to nodes at once: by name, by selector, or both.
#[utoipa::path(post, path = "/api/v1/releases/{name}/assign", tag = "releases", params(("name" = String, Path)),
    request_body = AssignRelease,
    responses((status = 200, body = Assigned), (status = "4XX", body = Problem)))]
pub async fn assign(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Part(name): Part<NodeId>,
    Body(request): Body<AssignRelease>,
) -> Result<Json<Assigned>> {
    let release = find(&hub, &name).await?;
    let renderer = Renderer::new(&hub, &release).await?;
    let selector: Option<Selector> = request.selector.as_deref().map(str::parse).transpose()?;
    if request.nodes.is_empty() && selector.is_none() {
        return Err(ApiError::bad_request(
            "neither nodes nor a selector are given",
            "name nodes, or give a selector; the empty selector \"\" means all",
        ));
    }
    let mut tx = hub.database.write().await?;
    let mut chosen = BTreeSet::new();
    for node in request.nodes {
        nodes::labels(&mut tx, &node)
            .await?
            .ok_or_else(|| unknown(&node))?;
        chosen.insert(node);
    }
    if let Some(selector) = &selector {
        let all = nodes::all_labels(&mut tx).await?;
        let meant = all.into_iter().filter(|(_, labels)| selector.matches(labels));
        chosen.extend(meant.map(|(node, _)| node));
    }
    let mut generations = BTreeMap::new();
    for node in chosen {
        let generation = renderer.assign(&mut tx, &node).await?;
        generations.insert(node, generation);
    }
    let shown: Vec<_> = generations
        .iter()
        .take(20)
        .map(|(node, generation)| format!("{node}={generation}"))
        .collect();
    let detail = format!("to {} nodes: {}", generations.len(), shown.join(","));
    let actor = Actor::Operator(who.name);
    audit::record(
        &mut tx,
        &actor,
        "release.assign",
        &format!("release/{name}"),
        &detail,
    )
    .await?;
    tx.commit().await?;
    hub.outbox.notify_one();
    for node in generations.keys() {
        hub.changed(node);
    }
    Ok(Json(Assigned {
        release: release.name,
        generations,
    }))
}
