//! Reading requests: JSON bodies, queries and path parts, each refused with the place of what is wrong and the nearest known name.

use super::error::{ApiError, Result};
use crate::{codes as hub_codes, config::nearest, hub::Hub};
use axum::{
    Json, RequestExt as _,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
};
use holdfast_protocol::{Problem, codes};
use http::{StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::{fmt::Display, str::FromStr, sync::Arc, time::Duration};
use tokio::time::timeout;

/// What to do about a value of a body.
const CORRECT_BODY: &str = "correct the body at this place";

/// A JSON body that is wholly understood.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Hub>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, hub: &Arc<Hub>) -> Result<Self> {
        let declared = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media_type = declared.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Problem::new(
                    hub_codes::MEDIA_TYPE_UNSUPPORTED,
                    format!("the body is declared as {declared:?}"),
                    "send JSON with the header `Content-Type: application/json`",
                ),
            ));
        }
        let bytes = read(request, hub.config.api.max_body_bytes).await?;
        // The JSON reader takes an array for an object, field by field; nobody means that.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            return Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                Problem::new(
                    codes::BAD_REQUEST,
                    "the body is a JSON array",
                    "send one JSON object",
                ),
            ));
        }
        match Json::<T>::from_bytes(&bytes) {
            Ok(Json(value)) => Ok(Self(value)),
            Err(JsonRejection::JsonDataError(error)) => {
                let text = reason(&error.body_text());
                Err(ApiError::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    Problem::new(codes::BAD_REQUEST, text.clone(), hint(&text, CORRECT_BODY)),
                ))
            }
            Err(error) => Err(ApiError::bad_request(
                reason(&error.body_text()),
                "send one JSON object",
            )),
        }
    }
}

/// Time for a body to arrive.
const ARRIVAL: Duration = Duration::from_secs(60);

/// Reads a body of at most `limit` bytes.
pub async fn read(request: Request, limit: usize) -> Result<Bytes> {
    let body = Limited::new(request.with_limited_body().into_body(), limit);
    match timeout(ARRIVAL, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit as u64)),
        Ok(Err(error)) => Err(ApiError::bad_request(
            format!("the body broke off: {error}"),
            "send it again",
        )),
        Err(_) => Err(ApiError::bad_request(
            format!("the body did not arrive within {} seconds", ARRIVAL.as_secs()),
            "send it again",
        )),
    }
}

/// 413: the body is larger than `limit` bytes.
pub fn too_large(limit: u64) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        Problem::new(
            hub_codes::BODY_TOO_LARGE,
            format!("the body has more than {limit} bytes"),
            "move large manifests into blobs, or raise api.max_body_bytes or api.max_blob_bytes in the hub's configuration",
        ),
    )
}

/// What the JSON reader says, without its fixed beginning.
fn reason(text: &str) -> String {
    text.trim_start_matches("Failed to deserialize the JSON body into the target type: ")
        .trim_start_matches("Failed to parse the request body as JSON: ")
        .to_owned()
}

/// The known name that is nearest to an unknown one, out of what serde says: unknown field `x`, expected one of `a`, `b`.
fn hint(text: &str, otherwise: &str) -> String {
    let mut quoted = text.split('`').skip(1).step_by(2);
    if !(text.contains("unknown field") || text.contains("unknown variant")) {
        return otherwise.to_owned();
    }
    quoted
        .next()
        .and_then(|unknown| nearest(unknown, quoted))
        .map_or_else(
            || "remove it".to_owned(),
            |known| format!("did you mean `{known}`?"),
        )
}

/// A query that is wholly understood.
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(error) => {
                let text = error
                    .body_text()
                    .trim_start_matches("Failed to deserialize query string: ")
                    .to_owned();
                let action = hint(&text, "correct the query at this place");
                Err(ApiError::bad_request(format!("query: {text}"), action))
            }
        }
    }
}

/// The one variable part of a path, checked.
pub struct Part<T>(pub T);

impl<T: FromStr<Err: Display>, S: Send + Sync> FromRequestParts<S> for Part<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::bad_request(error.body_text(), "correct the path"))?;
        text.parse()
            .map(Self)
            .map_err(|error: T::Err| ApiError::bad_request(error.to_string(), "correct the path"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_gets_the_nearest_known_name() {
        let text = "content: unknown field `aps`, expected one of `k3s`, `apps`, `policy` at line 1 column 9";
        assert_eq!(hint(text, CORRECT_BODY), "did you mean `apps`?");
        assert_eq!(
            hint("unknown field `zzz`, there are no fields", CORRECT_BODY),
            "remove it"
        );
        assert_eq!(
            hint("name: invalid type: integer `1`, expected a string", CORRECT_BODY),
            "correct the body at this place"
        );
    }
}
