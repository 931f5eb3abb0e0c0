//! Log-in of browsers, and who the caller is.

use super::{
    auth::{self, COOKIE, Peer, Viewer},
    body::Body,
    error::{ApiError, Result},
};
use crate::{
    database::{
        audit::{self, Actor},
        operators,
    },
    hub::Hub,
};
use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use holdfast_protocol::{
    Digest, Problem,
    operator::{CreateSession, WhoAmI},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::sync::Arc;

/// Logs a browser in: a bearer token becomes a session cookie.
#[utoipa::path(post, path = "/api/v1/session", tag = "session", request_body = CreateSession, security(()),
    responses((status = 200, body = WhoAmI), (status = 401, description = "unauthenticated", body = Problem)))]
pub async fn create(
    State(hub): State<Arc<Hub>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Body(request): Body<CreateSession>,
) -> Result<Response> {
    let from = peer.address.ip();
    let hash = Digest::of(request.bearer_token.trim().as_bytes());
    let Some(who) = operators::by_token_hash(hub.database.read(), &hash).await? else {
        if !hub.limiter.refused(from) {
            return Err(auth::too_many(&hub));
        }
        let mut tx = hub.database.write().await?;
        let actor = Actor::Address(from.to_string());
        audit::record(
            &mut tx,
            &actor,
            "session.create.refused",
            "hub",
            "unknown bearer token",
        )
        .await?;
        tx.commit().await?;
        return Err(ApiError::unauthenticated("the bearer token is unknown"));
    };
    let session = auth::random_text()?;
    let now = crate::database::now();
    let lifetime = hub.config.api.session_lifetime.0;
    let expires_at = now
        .checked_add(lifetime)
        .map_err(|error| ApiError::internal(&error))?;
    let mut tx = hub.database.write().await?;
    operators::insert_session(
        &mut tx,
        &Digest::of(session.as_bytes()),
        &who.name,
        now,
        expires_at,
    )
    .await?;
    let actor = Actor::Operator(who.name.clone());
    audit::record(
        &mut tx,
        &actor,
        "session.create",
        &format!("operator/{}", who.name),
        &format!("from {from}"),
    )
    .await?;
    tx.commit().await?;
    let cookie = cookie(&session, lifetime.as_secs(), encrypted(&peer, &headers))?;
    Ok(([(header::SET_COOKIE, cookie)], Json(who)).into_response())
}

/// Logs a browser out.
#[utoipa::path(delete, path = "/api/v1/session", tag = "session", responses((status = 204)))]
pub async fn delete(
    State(hub): State<Arc<Hub>>,
    Extension(peer): Extension<Peer>,
    _viewer: Viewer,
    headers: HeaderMap,
) -> Result<Response> {
    if let Some(session) = auth::session_cookie(&headers) {
        let mut tx = hub.database.write().await?;
        operators::delete_session(&mut tx, &Digest::of(session.as_bytes())).await?;
        tx.commit().await?;
    }
    let cookie = cookie("", 0, encrypted(&peer, &headers))?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Who the caller is.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "session", responses((status = 200, body = WhoAmI)))]
pub async fn whoami(Viewer(who): Viewer) -> Json<WhoAmI> {
    Json(who)
}

/// Whether the browser's connection is encrypted, here or at the proxy before the plain listener. To lie about it would only make a
/// caller's own cookie stricter.
fn encrypted(peer: &Peer, headers: &HeaderMap) -> bool {
    peer.tls
        || headers
            .get("x-forwarded-proto")
            .is_some_and(|value| value == "https")
}

fn cookie(value: &str, seconds: u64, secure: bool) -> Result<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    HeaderValue::from_str(&format!(
        "{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    ))
    .map_err(|error| ApiError::internal(&error))
}
