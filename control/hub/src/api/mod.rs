//! The HTTP API: all routes, and what is the same for each of them.
//!
//! In: requests of nodes, operators, browsers and machines. Out: JSON, or a [`Problem`] for everything that is refused or fails,
//! unknown paths and methods included.

mod audit;
mod auth;
mod blobs;
mod body;
mod error;
mod health;
mod node;
mod nodes;
pub mod openapi;
pub mod operators;
mod query;
mod releases;
mod secrets;
mod sessions;
mod stream;
mod tokens;
mod uploads;

pub use auth::{Peer, too_many};
pub use error::ApiError;

use crate::{codes as hub_codes, config::nearest, hub::Hub, metrics, web};
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    handler::Handler,
    middleware::{self, Next},
    response::Response,
    routing::{MethodFilter, on},
};
use holdfast_protocol::{Problem, codes};
use http::{HeaderValue, StatusCode, header};
use std::{sync::Arc, time::Instant};

/// Method and path of a route.
pub type Route = (&'static str, &'static str);

struct Routes {
    router: Router<Arc<Hub>>,
    table: Vec<Route>,
}

impl Routes {
    fn add<H, T>(mut self, method: &'static str, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Hub>>,
        T: 'static,
    {
        let filter = match method {
            "POST" => MethodFilter::POST,
            "PUT" => MethodFilter::PUT,
            "PATCH" => MethodFilter::PATCH,
            "DELETE" => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        self.router = self.router.route(path, on(filter, handler));
        self.table.push((method, path));
        self
    }
}

fn all() -> Routes {
    Routes {
        router: Router::new(),
        table: Vec::new(),
    }
    .add("POST", "/v1/enrol", node::enrol)
    .add("POST", "/v1/renew", node::renew)
    .add("GET", "/v1/time", node::time)
    .add("GET", "/v1/blobs/{digest}", node::blob)
    .add("POST", "/api/v1/session", sessions::create)
    .add("DELETE", "/api/v1/session", sessions::delete)
    .add("GET", "/api/v1/whoami", sessions::whoami)
    .add("GET", "/api/v1/operators", operators::list)
    .add("POST", "/api/v1/operators", operators::create)
    .add("DELETE", "/api/v1/operators/{name}", operators::delete)
    .add("GET", "/api/v1/tokens", tokens::list)
    .add("POST", "/api/v1/tokens", tokens::create)
    .add("DELETE", "/api/v1/tokens/{id}", tokens::revoke)
    .add("GET", "/api/v1/nodes", nodes::list)
    .add("GET", "/api/v1/nodes/{id}", nodes::get)
    .add("DELETE", "/api/v1/nodes/{id}", nodes::delete)
    .add("PATCH", "/api/v1/nodes/{id}/labels", nodes::patch_labels)
    .add("GET", "/api/v1/nodes/{id}/events", nodes::events)
    .add("GET", "/api/v1/releases", releases::list)
    .add("POST", "/api/v1/releases", releases::create)
    .add("GET", "/api/v1/releases/{name}", releases::get)
    .add("DELETE", "/api/v1/releases/{name}", releases::delete)
    .add("POST", "/api/v1/releases/{name}/assign", releases::assign)
    .add("GET", "/api/v1/blobs", blobs::list)
    .add("POST", "/api/v1/blobs/collect", blobs::collect)
    .add("PUT", "/api/v1/blobs/{digest}", blobs::put_blob)
    .add("POST", "/api/v1/blobs/{digest}/upload", uploads::begin)
    .add("PATCH", "/api/v1/blobs/{digest}/upload", uploads::piece)
    .add("GET", "/api/v1/secrets", secrets::list)
    .add("PUT", "/api/v1/secrets/{name}", secrets::put)
    .add("DELETE", "/api/v1/secrets/{name}", secrets::delete)
    .add("GET", "/api/v1/audit", audit::list)
    .add("GET", "/api/v1/stream", stream::stream)
    .add("GET", "/api/v1/openapi.json", health::openapi)
    .add("GET", "/healthz", health::healthz)
    .add("GET", "/readyz", health::readyz)
    .add("GET", "/metrics", health::metrics)
}

/// All routes of the API.
pub fn routes() -> Vec<Route> {
    all().table
}

/// The whole of what the hub serves over HTTP.
pub fn router(hub: Arc<Hub>) -> Router {
    let Routes { router, .. } = all();
    router
        .route_layer(middleware::from_fn(query::refuse_unknown))
        .merge(web::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        // Bodies are limited where they are read: JSON and blobs differ.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(&hub), observe))
        .with_state(hub)
}

async fn observe(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    // Methods are the client's text: only known ones become labels.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let seconds = started.elapsed().as_secs_f64();
    hub.metrics
        .count(metrics::HTTP_REQUESTS, &[&method, response.status().as_str()]);
    hub.metrics.add(metrics::HTTP_SECONDS, &[], seconds);
    tracing::debug!(
        method,
        path,
        status = response.status().as_u16(),
        seconds,
        "request"
    );
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // Answers of the API are of this moment and of this caller; the page's files say themselves how long they keep.
    if path.starts_with("/api/") || path.starts_with("/v1/") {
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
    }
    response
}

async fn unknown_path(request: Request) -> ApiError {
    let path = request.uri().path();
    let table = routes();
    let hint = nearest(path, table.iter().map(|(_, path)| *path)).map_or_else(
        || "see /api/v1/openapi.json".to_owned(),
        |known| format!("did you mean {known}?"),
    );
    ApiError::new(
        StatusCode::NOT_FOUND,
        Problem::new(codes::NOT_FOUND, format!("there is nothing at {path}"), hint),
    )
}

async fn unknown_method(request: Request) -> ApiError {
    let path = request.uri().path();
    let mut allowed: Vec<&str> = routes()
        .into_iter()
        .filter(|(_, template)| fits(template, path))
        .map(|(method, _)| method)
        .collect();
    if allowed.is_empty() {
        allowed.push("GET");
    }
    let allowed = allowed.join(", ");
    let error = ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Problem::new(
            hub_codes::METHOD_NOT_ALLOWED,
            format!("{} is not possible at {path}", request.method()),
            format!("use {allowed}"),
        ),
    );
    match HeaderValue::from_str(&allowed) {
        Ok(value) => error.with(header::ALLOW, value),
        Err(_) => error,
    }
}

/// Whether a path is one of a template such as `/api/v1/nodes/{id}`.
fn fits(template: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    template.split('/').all(|expected| {
        parts
            .next()
            .is_some_and(|part| expected.starts_with('{') || expected == part)
    }) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_described_and_every_description_is_a_route() {
        let document = serde_json::to_value(openapi::document()).unwrap();
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                described.insert((method.to_uppercase(), path.clone()));
            }
        }
        let routes: BTreeSet<_> = routes()
            .into_iter()
            .map(|(method, path)| (method.to_owned(), path.to_owned()))
            .collect();
        assert_eq!(described, routes);
    }

    #[test]
    fn every_reference_of_the_description_leads_somewhere() {
        let document = serde_json::to_value(openapi::document()).unwrap();
        let text = document.to_string();
        let mut names = 0;
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
            names += 1;
        }
        assert!(names > 20, "{names}");
    }

    #[test]
    fn a_path_fits_its_template_only() {
        assert!(fits("/api/v1/nodes/{id}", "/api/v1/nodes/x"));
        assert!(!fits("/api/v1/nodes/{id}", "/api/v1/nodes/x/labels"));
        assert!(!fits("/api/v1/nodes/{id}/labels", "/api/v1/nodes/x"));
    }
}
