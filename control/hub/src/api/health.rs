//! What machines ask of the hub: health, readiness, figures, and the description of this API.

use super::{
    auth::{Peer, Viewer},
    error::{ApiError, Result},
    openapi,
};
use crate::{
    codes as hub_codes,
    database::{documents, nodes},
    hub::Hub,
    metrics,
};
use axum::{
    Json,
    extract::{FromRequestParts as _, Request, State},
    response::{IntoResponse, Response},
};
use holdfast_protocol::{Problem, report::Health};
use http::{StatusCode, header};
use std::{collections::BTreeMap, sync::Arc};

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "machine", security(()), responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the hub can do its work: the database answers and the broker runs.
#[utoipa::path(get, path = "/readyz", tag = "machine", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 503, description = "not-ready", body = Problem)))]
pub async fn readyz(State(hub): State<Arc<Hub>>) -> Result<&'static str> {
    let not_ready = |reason: String| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Problem::new(
                hub_codes::NOT_READY,
                reason,
                "wait, and look into the hub's log if it stays so",
            ),
        )
    };
    if hub.shutdown.is_cancelled() {
        return Err(not_ready("the hub is stopping".to_owned()));
    }
    if hub.broker().is_none() {
        return Err(not_ready("the broker does not run yet".to_owned()));
    }
    hub.database
        .ping()
        .await
        .map_err(|error| not_ready(error.to_string()))?;
    Ok("ok\n")
}

/// Figures in the Prometheus text format. From other machines an operator's bearer token is needed.
#[utoipa::path(get, path = "/metrics", tag = "machine", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(State(hub): State<Arc<Hub>>, request: Request) -> Result<Response> {
    let (mut parts, _) = request.into_parts();
    let local = parts
        .extensions
        .get::<Peer>()
        .is_some_and(|peer| peer.address.ip().is_loopback());
    // A proxy on this machine speaks for others; it passes their credentials on.
    if !local || parts.headers.contains_key("x-forwarded-for") {
        Viewer::from_request_parts(&mut parts, &hub).await?;
    }
    let all = nodes::list(hub.database.read()).await?;
    let count = |matches: &dyn Fn(&holdfast_protocol::operator::NodeInfo) -> bool| {
        all.iter().filter(|node| matches(node)).count() as f64
    };
    let figures = &hub.metrics;
    figures.set(metrics::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
    figures.set(metrics::NODES, &["online"], count(&|node| node.online));
    figures.set(metrics::NODES, &["offline"], count(&|node| !node.online));
    for (health, name) in [
        (Health::Healthy, "healthy"),
        (Health::Progressing, "progressing"),
        (Health::Degraded, "degraded"),
        (Health::Unknown, "unknown"),
    ] {
        figures.set(
            metrics::NODES_HEALTH,
            &[name],
            count(&|node| node.health == health),
        );
    }
    let mut systems: BTreeMap<&str, f64> = BTreeMap::new();
    for os in all.iter().filter_map(|node| node.status.as_ref()?.os.as_ref()) {
        *systems.entry(&os.version).or_default() += 1.0;
    }
    figures.set_all(metrics::NODES_OS, &systems);
    figures.set(
        metrics::BROKER_CONNECTED,
        &[],
        f64::from(u8::from(hub.broker_connected())),
    );
    let pending = documents::count_pending(hub.database.read()).await?;
    figures.set(metrics::OUTBOX_PENDING, &[], pending as f64);
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, figures.render()).into_response())
}

/// This description.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "machine", security(()), responses((status = 200, body = Object)))]
pub async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(openapi::document())
}
