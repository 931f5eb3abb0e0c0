//! Nodes as operators see them.

#![allow(
    unused_qualifications,
    reason = "the derived parameter code is fully qualified"
)]

use super::{
    auth::{Admin, Viewer},
    body::{Body, Parameters, Part},
    error::{ApiError, Result},
};
use crate::{
    database::{
        audit::{self, Actor},
        nodes, reports,
    },
    hub::Hub,
    render,
    selector::{Selector, check_labels},
};
use axum::{Json, extract::State};
use holdfast_protocol::{
    NodeId, Problem,
    event::Event,
    operator::{NodeInfo, PatchLabels},
};
use http::{HeaderMap, HeaderValue, StatusCode, header::LINK};
use serde::Deserialize;
use std::{fmt::Write as _, sync::Arc};
use utoipa::IntoParams;

/// Most nodes that one page holds.
const MAX_PAGE: u32 = 1_000;
/// Most events that one answer holds.
const MAX_EVENTS: u32 = 1_000;

/// Which nodes are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NodesQuery {
    /// Label selector as kubectl writes it; all nodes where absent.
    pub selector: Option<String>,
    /// At most so many nodes, 1 to 1,000; all where absent.
    pub limit: Option<u32>,
    /// Only nodes after this name: what the header `Link` of the page before says.
    #[serde(rename = "continue")]
    #[param(rename = "continue", value_type = Option<String>)]
    pub continue_after: Option<NodeId>,
}

impl NodesQuery {
    /// The reference to the page after `last`, relative to the address of this one (RFC 8288).
    fn next(&self, limit: u32, last: &NodeId) -> String {
        let mut query = String::new();
        for byte in self.selector.iter().flat_map(|selector| selector.bytes()) {
            if query.is_empty() {
                query.push_str("selector=");
            }
            // Writing to a string cannot fail.
            let _ = write!(query, "%{byte:02X}");
        }
        let and = if query.is_empty() { "" } else { "&" };
        format!("<?{query}{and}limit={limit}&continue={last}>; rel=\"next\"")
    }
}

/// How many lines are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// The newest so many, 1 to 1,000; 100 where absent.
    pub limit: Option<u32>,
}

/// Nodes by name: all of them, or a page of them.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", params(NodesQuery),
    responses((status = 200, body = [NodeInfo],
            headers(("Link" = String, description = "Where the next page is, while there is one: <?limit=…&continue=…>; rel=\"next\""))),
        (status = 400, description = "selector-invalid, bad-request", body = Problem)))]
pub async fn list(
    State(hub): State<Arc<Hub>>,
    _viewer: Viewer,
    Parameters(query): Parameters<NodesQuery>,
) -> Result<(HeaderMap, Json<Vec<NodeInfo>>)> {
    let selector: Selector = query.selector.as_deref().unwrap_or_default().parse()?;
    let Some(limit) = query.limit else {
        let mut nodes = nodes::list(hub.database.read()).await?;
        nodes.retain(|node| {
            selector.matches(&node.labels)
                && query.continue_after.as_ref().is_none_or(|after| node.id > *after)
        });
        return Ok((HeaderMap::new(), Json(nodes)));
    };
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::bad_request(
            format!("limit={limit}: a page has 1 to {MAX_PAGE} nodes"),
            "ask for fewer at once, and follow the header Link",
        ));
    }
    let mut page: Vec<NodeInfo> = Vec::new();
    let mut after = query.continue_after.clone();
    // Where few nodes match, one page of the answer is many of the table.
    loop {
        let read = nodes::page(hub.database.read(), after.as_ref(), limit).await?;
        let is_last = read.len() < limit as usize;
        after = read.last().map(|node| node.id.clone()).or(after);
        page.extend(read.into_iter().filter(|node| selector.matches(&node.labels)));
        if page.len() > limit as usize || is_last {
            break;
        }
    }
    let mut headers = HeaderMap::new();
    if page.len() > limit as usize {
        page.truncate(limit as usize);
        if let Some(last) = page.last() {
            let link = HeaderValue::try_from(query.next(limit, &last.id));
            headers.insert(LINK, link.map_err(|error| ApiError::internal(&error))?);
        }
    }
    Ok((headers, Json(page)))
}

/// One node with its last report.
#[utoipa::path(get, path = "/api/v1/nodes/{id}", tag = "nodes", params(("id" = String, Path)),
    responses((status = 200, body = NodeInfo), (status = 404, description = "not-found", body = Problem)))]
pub async fn get(
    State(hub): State<Arc<Hub>>,
    _viewer: Viewer,
    Part(id): Part<NodeId>,
) -> Result<Json<NodeInfo>> {
    Ok(Json(find(&hub, &id).await?))
}

async fn find(hub: &Hub, id: &NodeId) -> Result<NodeInfo> {
    nodes::get(hub.database.read(), id)
        .await?
        .ok_or_else(|| unknown(id))
}

/// 404: no such node.
pub fn unknown(id: &NodeId) -> ApiError {
    ApiError::not_found("node", id, "`holdfastctl node list` lists them")
}

/// Removes a node: its certificates are revoked, its session ends, its document is withdrawn.
#[utoipa::path(delete, path = "/api/v1/nodes/{id}", tag = "nodes", params(("id" = String, Path)),
    responses((status = 204), (status = 404, description = "not-found", body = Problem)))]
pub async fn delete(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Part(id): Part<NodeId>,
) -> Result<StatusCode> {
    let mut tx = hub.database.write().await?;
    if !nodes::delete(&mut tx, &id, crate::database::now()).await? {
        return Err(unknown(&id));
    }
    let actor = Actor::Operator(who.name);
    audit::record(
        &mut tx,
        &actor,
        "node.delete",
        &format!("node/{id}"),
        "certificates revoked",
    )
    .await?;
    tx.commit().await?;
    // The list first: a broker that is told to end the session reads it.
    let written = hub.write_revoked().await;
    hub.outbox.notify_one();
    hub.deleted(&id);
    written.map_err(|error| ApiError::internal(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes labels of a node: a value sets, null removes.
#[utoipa::path(patch, path = "/api/v1/nodes/{id}/labels", tag = "nodes", params(("id" = String, Path)),
    request_body = PatchLabels,
    responses((status = 200, body = NodeInfo), (status = "4XX", body = Problem)))]
pub async fn patch_labels(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Part(id): Part<NodeId>,
    Body(patch): Body<PatchLabels>,
) -> Result<Json<NodeInfo>> {
    let mut tx = hub.database.write().await?;
    let before = nodes::labels(&mut tx, &id).await?.ok_or_else(|| unknown(&id))?;
    let mut labels = before.clone();
    for (key, value) in patch.labels {
        match value {
            Some(value) => labels.insert(key, value),
            None => labels.remove(&key),
        };
    }
    check_labels(&labels)?;
    if labels == before {
        drop(tx);
        return Ok(Json(find(&hub, &id).await?));
    }
    nodes::set_labels(&mut tx, &id, &labels).await?;
    render::again(&hub, &mut tx, &id).await?;
    let shown: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let actor = Actor::Operator(who.name);
    audit::record(
        &mut tx,
        &actor,
        "node.label",
        &format!("node/{id}"),
        &shown.join(","),
    )
    .await?;
    tx.commit().await?;
    hub.outbox.notify_one();
    hub.changed(&id);
    Ok(Json(find(&hub, &id).await?))
}

/// The newest events of a node, newest first.
#[utoipa::path(get, path = "/api/v1/nodes/{id}/events", tag = "nodes", params(("id" = String, Path), EventsQuery),
    responses((status = 200, body = [Event]), (status = 404, description = "not-found", body = Problem)))]
pub async fn events(
    State(hub): State<Arc<Hub>>,
    _viewer: Viewer,
    Part(id): Part<NodeId>,
    Parameters(query): Parameters<EventsQuery>,
) -> Result<Json<Vec<Event>>> {
    find(&hub, &id).await?;
    let limit = query.limit.unwrap_or(100).clamp(1, MAX_EVENTS);
    Ok(Json(reports::events(hub.database.read(), &id, limit).await?))
}
