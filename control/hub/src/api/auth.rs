//! Who calls: bearer tokens, browser sessions, client certificates.
//!
//! Bearer tokens and session names are 256 random bits and stored as one round of SHA-256: nobody can guess them however fast the
//! hash is, so a slow password hash would only cost time on each request. They are looked up by that hash, whose timing says
//! nothing about the secret.

use super::error::{ApiError, Result};
use crate::{codes as hub_codes, database::operators, hub::Hub};
use axum::extract::FromRequestParts;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use holdfast_protocol::{
    Digest, Problem, codes,
    operator::{OperatorRole, WhoAmI},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::CertificateDer;
use std::{net::SocketAddr, sync::Arc};

/// What bearer tokens of operators start with.
pub const BEARER_PREFIX: &str = "hfop_";
/// Name of the browser's cookie.
pub const COOKIE: &str = "holdfast_session";

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Its certificate, of our CA, possibly expired.
    pub certificate: Option<CertificateDer<'static>>,
}

/// Any operator.
pub struct Viewer(pub WhoAmI);

/// An operator who may change things.
pub struct Admin(pub WhoAmI);

impl FromRequestParts<Arc<Hub>> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self> {
        identify(parts, hub).await.map(Self)
    }
}

impl FromRequestParts<Arc<Hub>> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self> {
        let who = identify(parts, hub).await?;
        if who.role == OperatorRole::Admin {
            Ok(Self(who))
        } else {
            Err(ApiError::new(
                StatusCode::FORBIDDEN,
                Problem::new(
                    codes::FORBIDDEN,
                    format!("operator {} is a viewer and cannot change anything", who.name),
                    "ask an administrator",
                ),
            ))
        }
    }
}

async fn identify(parts: &Parts, hub: &Hub) -> Result<WhoAmI> {
    let read = hub.database.read();
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        let token = value
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let known = match token {
            Some(token) => operators::by_token_hash(read, &Digest::of(token.as_bytes())).await?,
            None => None,
        };
        return known.ok_or_else(|| refused(hub, parts, "the bearer token is unknown"));
    }
    if let Some(session) = session_cookie(&parts.headers) {
        let hash = Digest::of(session.as_bytes());
        let known = operators::by_session_hash(read, &hash, crate::database::now()).await?;
        let who = known.ok_or_else(|| refused(hub, parts, "the session is over"))?;
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            require_same_origin(&parts.headers)?;
        }
        return Ok(who);
    }
    Err(ApiError::unauthenticated("the request carries no credential"))
}

/// Counts a refusal, and gives the answer to it.
pub fn refused(hub: &Hub, parts: &Parts, message: &str) -> ApiError {
    let address = parts.extensions.get::<Peer>().map(|peer| peer.address.ip());
    match address {
        Some(address) if !hub.limiter.refused(address) => too_many(hub),
        _ => ApiError::unauthenticated(message),
    }
}

/// 429: too many refused attempts.
pub fn too_many(hub: &Hub) -> ApiError {
    let seconds = hub.limiter.retry_after().as_secs();
    ApiError::new(
        StatusCode::TOO_MANY_REQUESTS,
        Problem::new(
            hub_codes::TOO_MANY_ATTEMPTS,
            "too many refused attempts from this address",
            format!("wait {seconds} seconds, and check the credential"),
        ),
    )
    .with(header::RETRY_AFTER, HeaderValue::from(seconds))
}

/// Browsers send cookies along with requests that other sites make; they also say where a request comes from.
///
/// The cookie is `SameSite=Strict` already; this holds for browsers that know nothing of that, and for sibling host names.
pub fn require_same_origin(headers: &HeaderMap) -> Result<()> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let host = text(header::HOST);
    let origin = text(header::ORIGIN)
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, host)| host);
    if host.is_some() && host == origin {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        Problem::new(
            hub_codes::CROSS_SITE,
            "a request with a session cookie must come from the hub's own page (Origin and Host differ)",
            "use a bearer token outside the page; behind a proxy, pass the Host header on unchanged",
        ),
    ))
}

/// The browser's session, where it sends one.
pub fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

/// 256 random bits in base64url.
pub fn random_text() -> Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|error| ApiError::internal(&error))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// A new bearer token.
pub fn new_bearer_token() -> Result<String> {
    Ok(format!("{BEARER_PREFIX}{}", random_text()?))
}
