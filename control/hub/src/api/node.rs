//! What nodes ask for: enrolment, renewal, signed time, blobs.

use super::{
    auth::Peer,
    body::{Body, Part},
    error::{ApiError, Result},
};
use crate::{
    blobs::BlobFiles,
    codes as hub_codes,
    database::{documents, nodes},
    enrolment::{self, Enrolled},
    hub::Hub,
    metrics, renewal,
};
use axum::{
    Extension, Json,
    body::Body as HttpBody,
    extract::State,
    response::{IntoResponse, Response},
};
use holdfast_protocol::{
    Digest, NodeId, Problem, codes,
    enrol::{EnrolAnswer, EnrolRequest, RenewAnswer, RenewRequest},
    envelope::Envelope,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::sync::Arc;

/// Makes a node of a box that holds an enrolment token.
#[utoipa::path(post, path = "/v1/enrol", tag = "node",
    request_body(content = Object, description = "EnrolRequest: token, PKCS #10 request, wished name, hardware"),
    responses(
        (status = 200, description = "EnrolAnswer: certificate, brokers, trust, signed time, first desired state", body = Object),
        (status = "4XX", description = "token-unknown, token-expired, token-revoked, token-spent, token-wrong-machine, name-taken, csr-invalid, too-many-attempts", body = Problem)))]
pub async fn enrol(
    State(hub): State<Arc<Hub>>,
    Extension(peer): Extension<Peer>,
    Body(request): Body<EnrolRequest>,
) -> Result<Json<EnrolAnswer>> {
    let result = enrolment::enrol(&hub, &request, peer.address.ip()).await;
    let label = match &result {
        Ok((Enrolled::First, _)) => "ok",
        Ok((Enrolled::Again, _)) => "repeated",
        Err(error) => error.problem.code.as_ref(),
    };
    hub.metrics.count(metrics::ENROLMENTS, &[label]);
    result.map(|(_, answer)| Json(answer))
}

/// Renews the certificate of a node; proof is the device key's signature, so an expired certificate is accepted.
#[utoipa::path(post, path = "/v1/renew", tag = "node",
    request_body(content = Object, description = "RenewRequest: certificate, PKCS #10 request, signature of the device key"),
    responses(
        (status = 200, description = "RenewAnswer: certificate, brokers, trust, signed time", body = Object),
        (status = "4XX", description = "certificate-revoked, certificate-unknown, renewal-signature-invalid, csr-invalid", body = Problem)))]
pub async fn renew(
    State(hub): State<Arc<Hub>>,
    Extension(peer): Extension<Peer>,
    Body(request): Body<RenewRequest>,
) -> Result<Json<RenewAnswer>> {
    let result = renewal::renew(&hub, &request, peer.address.ip()).await;
    let label = result
        .as_ref()
        .err()
        .map_or("ok", |error| error.problem.code.as_ref());
    hub.metrics.count(metrics::RENEWALS, &[label]);
    result.map(Json)
}

/// The hub's time, signed.
#[utoipa::path(get, path = "/v1/time", tag = "node",
    responses((status = 200, description = "Envelope of a TimeStatement", body = Object)))]
pub async fn time(State(hub): State<Arc<Hub>>) -> Json<Envelope> {
    Json(hub.authority.signed_time())
}

/// A blob that the node's present document names, whole or a range of it. Demands the node's client certificate.
#[utoipa::path(get, path = "/v1/blobs/{digest}", tag = "node",
    params(("digest" = String, Path, description = "sha256:…")),
    responses(
        (status = 200, description = "The content", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The range that was asked for", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "4XX", description = "unauthenticated, certificate-expired, certificate-revoked, blob-unknown, range-not-satisfiable", body = Problem)))]
pub async fn blob(
    State(hub): State<Arc<Hub>>,
    Extension(peer): Extension<Peer>,
    Part(digest): Part<Digest>,
    headers: HeaderMap,
) -> Result<Response> {
    let node = authenticate(&hub, &peer).await?;
    let unknown = || {
        ApiError::new(
            StatusCode::NOT_FOUND,
            Problem::new(
                codes::BLOB_UNKNOWN,
                format!("the present document of node {node} names no blob {digest}"),
                "fetch what the newest document names",
            ),
        )
    };
    if !documents::names_blob(hub.database.read(), &node, &digest).await? {
        return Err(unknown());
    }
    let size = hub.blob_size(&digest).await?.ok_or_else(|| {
        let problem = Problem::new(
            codes::BLOB_UNKNOWN,
            format!("the blob {digest}, which the present document of node {node} names, is not at the hub"),
            "upload it: create its release from its sources once more",
        );
        ApiError::new(StatusCode::NOT_FOUND, problem)
    })?;
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, start, length) = match range.map(|text| parse_range(text, size)) {
        None | Some(Range::Ignored) => (StatusCode::OK, 0, size),
        Some(Range::Part { start, length }) => (StatusCode::PARTIAL_CONTENT, start, length),
        Some(Range::Outside) => return Err(outside(size)),
    };
    let content = BlobFiles::new(&hub.config.data_dir)
        .stream(&digest, start, length)
        .await
        .map_err(|error| ApiError::internal(&error))?;
    let mut response = (
        status,
        [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            ),
            (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
            (header::CONTENT_LENGTH, HeaderValue::from(length)),
        ],
        HttpBody::from_stream(content),
    )
        .into_response();
    let mut insert = |name, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(name, value);
        }
    };
    insert(header::ETAG, format!("\"{digest}\""));
    if status == StatusCode::PARTIAL_CONTENT {
        insert(
            header::CONTENT_RANGE,
            format!("bytes {start}-{}/{size}", start + length - 1),
        );
    }
    Ok(response)
}

/// The node at the other end: its certificate is of this hub, its own, not revoked and not expired.
async fn authenticate(hub: &Hub, peer: &Peer) -> Result<NodeId> {
    let refuse = |status, code: &'static str, message: String, action: &'static str| {
        Err(ApiError::new(status, Problem::new(code, message, action)))
    };
    let Some(certificate) = &peer.certificate else {
        return refuse(
            StatusCode::UNAUTHORIZED,
            codes::UNAUTHENTICATED,
            "blobs are given to nodes only, and no client certificate was shown".to_owned(),
            "connect with the node's certificate, straight to the hub's TLS listener",
        );
    };
    match nodes::certificate(hub.database.read(), &Digest::of(certificate)).await? {
        None => refuse(
            StatusCode::FORBIDDEN,
            hub_codes::CERTIFICATE_UNKNOWN,
            "the certificate was not issued to a node by this hub".to_owned(),
            "enrol the box at this hub",
        ),
        Some(known) if known.revoked => Err(enrolment::revoked(&known.node)),
        Some(known) if known.not_after <= crate::database::now() => refuse(
            StatusCode::UNAUTHORIZED,
            hub_codes::CERTIFICATE_EXPIRED,
            format!(
                "the certificate of node {} ended at {}",
                known.node, known.not_after
            ),
            "renew it: POST /v1/renew",
        ),
        Some(known) => Ok(known.node),
    }
}

fn outside(size: u64) -> ApiError {
    let error = ApiError::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        Problem::new(
            hub_codes::RANGE_NOT_SATISFIABLE,
            format!("the blob has {size} bytes, and the range starts behind them"),
            "start again from the first byte",
        ),
    );
    match HeaderValue::from_str(&format!("bytes */{size}")) {
        Ok(value) => error.with(header::CONTENT_RANGE, value),
        Err(_) => error,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Part {
        start: u64,
        length: u64,
    },
    Outside,
    /// Not one that we serve; RFC 9110 §14.2 allows to answer with the whole.
    Ignored,
}

/// One byte range as RFC 9110 §14.1.2 writes it: `bytes=FIRST-LAST`, `bytes=FIRST-`, `bytes=-SUFFIX`.
fn parse_range(text: &str, size: u64) -> Range {
    let parse = || {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| text.trim().parse::<u64>().ok();
        if first.is_empty() {
            let suffix = number(last)?.min(size);
            return Some((size - suffix, size));
        }
        let first = number(first)?;
        let end = if last.is_empty() {
            size
        } else {
            number(last)?.checked_add(1)?.min(size)
        };
        (last.is_empty() || first < end || first >= size).then_some((first, end))
    };
    match parse() {
        None => Range::Ignored,
        Some((start, end)) if start >= size || start >= end => Range::Outside,
        Some((start, end)) => Range::Part {
            start,
            length: end - start,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_what_rfc_9110_says() {
        let part = |start, length| Range::Part { start, length };
        for (text, expected) in [
            ("bytes=0-99", part(0, 100)),
            ("bytes=90-", part(90, 10)),
            ("bytes=-10", part(90, 10)),
            ("bytes=50-1000", part(50, 50)),
            ("bytes=-1000", part(0, 100)),
            ("bytes=100-", Range::Outside),
            ("bytes=100-200", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=9-3", Range::Ignored),
            ("bytes=0-1,5-6", Range::Ignored),
            ("items=0-1", Range::Ignored),
            ("bytes=a-b", Range::Ignored),
        ] {
            assert_eq!(parse_range(text, 100), expected, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Range::Outside);
    }
}
