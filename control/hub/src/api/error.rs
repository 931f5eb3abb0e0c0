//! Every answer that is not a success: a [`Problem`] as `application/problem+json`, with its status.

use crate::{authority::KeyError, codes as hub_codes, database::DatabaseError};
use axum::response::{IntoResponse, Response};
use holdfast_protocol::{Problem, codes};
use http::{HeaderName, HeaderValue, StatusCode, header};

/// Result of a handler.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// A refused or failed request.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// What is wrong.
    pub problem: Problem,
    /// Headers beside it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// A refusal with its status.
    pub fn new(status: StatusCode, problem: Problem) -> Self {
        Self {
            status,
            problem,
            headers: Vec::new(),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// 404: no such thing.
    pub fn not_found(what: &str, name: &dyn std::fmt::Display, action: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            Problem::new(
                codes::NOT_FOUND,
                format!("there is no {what} {name:?}", name = name.to_string()),
                action,
            ),
        )
    }

    /// 400: the request is not understood.
    pub fn bad_request(message: impl Into<String>, action: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            Problem::new(codes::BAD_REQUEST, message, action),
        )
    }

    /// 409: the thing exists already.
    pub fn conflict(message: impl Into<String>, action: impl Into<String>) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            Problem::new(codes::CONFLICT, message, action),
        )
    }

    /// 401: no valid credential.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            Problem::new(
                codes::UNAUTHENTICATED,
                message,
                "log in, or send `Authorization: Bearer hfop_…` with a token of `holdfast-hub operator create`",
            ),
        )
        .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 500: something failed inside; the log says what.
    pub fn internal(reason: &dyn std::fmt::Display) -> Self {
        tracing::error!(%reason, "a request failed inside the hub");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Problem::new(
                codes::INTERNAL,
                "the hub failed to answer",
                "try again; the hub's log of the same moment says more",
            ),
        )
    }
}

impl From<DatabaseError> for ApiError {
    fn from(error: DatabaseError) -> Self {
        tracing::error!(%error, "the database failed");
        let mut problem = error.problem();
        let status = match problem.code.as_ref() {
            codes::DISK_FULL => StatusCode::INSUFFICIENT_STORAGE,
            codes::DISK_READ_ONLY | hub_codes::DATABASE_CORRUPT => StatusCode::SERVICE_UNAVAILABLE,
            _ => {
                // What the database says is for the log; a caller can do nothing with it.
                "the hub failed to answer".clone_into(&mut problem.message);
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, problem)
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        DatabaseError::from(error).into()
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        Self::internal(&error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // A struct of texts always serialises.
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = (
            self.status,
            [
                (header::CONTENT_TYPE, "application/problem+json"),
                (header::CACHE_CONTROL, "no-store"),
            ],
            body,
        )
            .into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}
