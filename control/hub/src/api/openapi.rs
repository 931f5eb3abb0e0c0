//! The OpenAPI description, generated from the handlers. A test holds that every route is in it.

use super::{
    audit, blobs, health, node, nodes, operators, releases, secrets, sessions, stream, tokens, uploads,
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Holdfast hub",
        description = "Enrolment, releases and state of a fleet. Errors are `application/problem+json`: a stable code, what happened, what to do."
    ),
    paths(
        node::enrol, node::renew, node::time, node::blob,
        sessions::create, sessions::delete, sessions::whoami,
        operators::list, operators::create, operators::delete,
        tokens::list, tokens::create, tokens::revoke,
        nodes::list, nodes::get, nodes::delete, nodes::patch_labels, nodes::events,
        releases::list, releases::get, releases::create, releases::delete, releases::assign, blobs::list, blobs::collect, blobs::put_blob, uploads::begin, uploads::piece,
        secrets::list, secrets::put, secrets::delete,
        audit::list, stream::stream,
        health::healthz, health::readyz, health::metrics, health::openapi,
    ),
    tags(
        (name = "node", description = "What nodes ask for"),
        (name = "session", description = "Log-in of browsers"),
        (name = "operators", description = "Who may use this API"),
        (name = "tokens", description = "Enrolment tokens"),
        (name = "nodes", description = "The fleet"),
        (name = "releases", description = "What nodes run"),
        (name = "secrets", description = "Values that single nodes can read, sealed before they come here"),
        (name = "audit", description = "Who did what"),
        (name = "machine", description = "Health and figures"),
    ),
    security(("bearer" = []), ("session" = [])),
    modifiers(&Schemes)
)]
struct Description;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme(
            "bearer",
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
        );
        components.add_security_scheme(
            "session",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(super::auth::COOKIE))),
        );
    }
}

/// The description.
pub fn document() -> utoipa::openapi::OpenApi {
    Description::openapi()
}
