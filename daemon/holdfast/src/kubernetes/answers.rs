//! What an answer of the API server means, where it is none that was hoped for: nothing there, come again later, or a refusal.

use super::KubernetesError;
use crate::pace::random;
use http::{HeaderMap, StatusCode, header};
use kube::core::Status;
use std::time::Duration;

/// The wait after "too many requests" that does not say how long; the API server itself says one second.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);
/// The longest such wait that is borne.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// An object, or none where it is not there.
pub(super) fn found<T>(answer: Result<T, KubernetesError>) -> Result<Option<T>, KubernetesError> {
    match answer {
        Ok(object) => Ok(Some(object)),
        // A kind that is not served has no objects.
        Err(KubernetesError::KindUnknown { .. }) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// How long to wait before the same request is sent again: the priority and fairness of the API server answers 429 with `Retry-After`, and
/// one that is just starting 503 with it. Nothing of such a request was carried out.
pub(super) fn wait_before_next(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(seconds.unwrap_or(DEFAULT_WAIT)),
        StatusCode::SERVICE_UNAVAILABLE => seconds,
        _ => None,
    }
    .map(|wait| {
        let wait = wait.min(LONGEST_WAIT);
        // Those that were refused together would else come back together.
        wait + (wait / 2).mul_f64(random() as f64 / u64::MAX as f64)
    })
}

/// What the API server says where it refuses: a `Status`, or plain text.
pub(super) fn refusal(what: &str, status: StatusCode, answer: &[u8]) -> KubernetesError {
    let said = serde_json::from_slice::<Status>(answer).unwrap_or_else(|_| Status {
        message: String::from_utf8_lossy(answer).trim().to_owned(),
        reason: status.canonical_reason().unwrap_or_default().replace(' ', ""),
        ..Status::default()
    });
    let message = if said.message.is_empty() {
        &said.reason
    } else {
        &said.message
    };
    KubernetesError::Answered {
        what: what.to_owned(),
        status: status.as_u16(),
        message: message.clone(),
        reason: said.reason,
    }
}

/// A name that no path can hold: the API server would refuse it too.
pub(super) fn unusable(what: &str, error: &http::Error) -> KubernetesError {
    KubernetesError::Answered {
        what: what.to_owned(),
        status: 400,
        reason: "BadRequest".into(),
        message: format!("its name cannot be part of a request: {error}"),
    }
}
