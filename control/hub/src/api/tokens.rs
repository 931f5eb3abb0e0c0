//! Enrolment tokens.

use super::{
    auth::{Admin, Viewer},
    body::{Body, Part},
    error::{ApiError, Result},
};
use crate::{
    database::{
        audit::{self, Actor},
        tokens,
    },
    hub::Hub,
    selector::check_labels,
};
use axum::{Json, extract::State};
use holdfast_protocol::{
    Digest, NodeId, Problem,
    operator::{CreateToken, CreatedToken, TokenInfo, TokenState},
    token::{EnrolmentToken, SECRET_BYTES},
};
use http::StatusCode;
use jiff::SignedDuration;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::sync::Arc;

/// The longest life of a token, in seconds.
const MAX_TTL: u64 = 366 * 86_400;
/// The longest serial number, in bytes.
const MAX_SERIAL: usize = 128;

/// All enrolment tokens, newest first, without their secrets.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", responses((status = 200, body = [TokenInfo])))]
pub async fn list(State(hub): State<Arc<Hub>>, _viewer: Viewer) -> Result<Json<Vec<TokenInfo>>> {
    Ok(Json(
        tokens::list(hub.database.read(), crate::database::now()).await?,
    ))
}

/// Makes an enrolment token, which is shown this once.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = CreateToken,
    responses((status = 201, body = CreatedToken), (status = "4XX", body = Problem)))]
pub async fn create(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Body(request): Body<CreateToken>,
) -> Result<(StatusCode, Json<CreatedToken>)> {
    check_labels(&request.labels)?;
    let ttl = request
        .ttl_seconds
        .unwrap_or_else(|| hub.config.enrolment.token_lifetime.0.as_secs());
    if !(1..=MAX_TTL).contains(&ttl) {
        return Err(ApiError::bad_request(
            format!("ttlSeconds: {ttl} is not within 1 and {MAX_TTL}"),
            "choose a time within them",
        ));
    }
    let serial = request.serial;
    // An empty one often comes from a variable that is not set: taken for none, the token would fit every machine.
    if serial.as_ref().is_some_and(|serial| {
        serial.trim().is_empty() || serial.len() > MAX_SERIAL || serial.chars().any(char::is_control)
    }) {
        return Err(ApiError::bad_request(
            format!("serial: it is empty, has more than {MAX_SERIAL} bytes, or holds a control character"),
            "give the serial number as the firmware says it, or none for any machine",
        ));
    }
    let (id, secret) = random()?;
    let now = crate::database::now();
    let info = TokenInfo {
        state: TokenState::Open,
        created_at: now,
        created_by: who.name.clone(),
        // At most 366 days, checked above.
        expires_at: now
            .checked_add(SignedDuration::from_secs(ttl.cast_signed()))
            .map_err(|error| ApiError::internal(&error))?,
        node_name: request.node_name,
        labels: request.labels,
        serial,
        spent_by: None,
        id,
    };
    let token = EnrolmentToken {
        hub_url: hub.public_url.clone(),
        ca_pin: Some(hub.authority.pin()),
        id: info.id.clone(),
        secret,
    };
    let mut tx = hub.database.write().await?;
    tokens::insert(&mut tx, &info, &EnrolmentToken::secret_hash(&secret)).await?;
    let detail = format!(
        "until {}{}",
        info.expires_at,
        info.node_name
            .as_ref()
            .map_or_else(String::new, |name: &NodeId| format!(" for node {name}"))
    );
    let actor = Actor::Operator(who.name);
    audit::record(
        &mut tx,
        &actor,
        "token.create",
        &format!("token/{}", info.id),
        &detail,
    )
    .await?;
    tx.commit().await?;
    let made = CreatedToken {
        token: token.to_string(),
        info,
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Revokes an enrolment token that nobody used.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path)),
    responses((status = 204), (status = 404, description = "not-found", body = Problem),
        (status = 409, description = "conflict: a box used it already", body = Problem)))]
pub async fn revoke(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Part(id): Part<String>,
) -> Result<StatusCode> {
    let mut tx = hub.database.write().await?;
    let Some(token) = tokens::get_for_update(&mut tx, &id, crate::database::now()).await? else {
        return Err(ApiError::not_found(
            "enrolment token",
            &id,
            "`holdfastctl token list` lists them",
        ));
    };
    if let Some(node) = &token.info.spent_by {
        return Err(ApiError::conflict(
            format!("the token was spent by node {node}"),
            format!("to shut the box out, delete the node: `holdfastctl node delete {node}`"),
        ));
    }
    if tokens::revoke(&mut tx, &id).await? {
        let actor = Actor::Operator(who.name);
        audit::record(&mut tx, &actor, "token.revoke", &format!("token/{id}"), "").await?;
        tx.commit().await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A token's public name (16 hex digits of random) and its secret.
fn random() -> Result<(String, [u8; SECRET_BYTES])> {
    let mut name = [0; 16];
    let mut secret = [0; SECRET_BYTES];
    let random = SystemRandom::new();
    random
        .fill(&mut name)
        .and_then(|()| random.fill(&mut secret))
        .map_err(|error| ApiError::internal(&error))?;
    Ok((Digest::of(&name).hex()[..16].to_owned(), secret))
}
