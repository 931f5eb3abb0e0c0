//! What the API server's answers mean: try again, or not.
//!
//! In: status code, reason and message of a refused request. Out: a [`Failure`] with the problem in words. Guarantees: an
//! answer that could be another one a minute later (overload, start-up, a missing definition, a conflict) is retryable; one
//! that says that the object itself is wrong is not.

#[cfg(test)]
mod tests;

use crate::{codes, object::ObjectKey};
use holdfast_protocol::Problem;
use serde::{Deserialize, Serialize};

/// Something that went wrong while a document was being carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The object that it concerns; none where it concerns the document as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ObjectKey>,
    /// The app that the object belongs to, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// What is wrong.
    pub problem: Problem,
    /// Whether the same work can succeed later without another document.
    pub retryable: bool,
}

impl Failure {
    /// A failure of the document as a whole.
    pub const fn of_document(problem: Problem, retryable: bool) -> Self {
        Self {
            key: None,
            app: None,
            problem,
            retryable,
        }
    }

    /// The same failure, of an object of this app.
    #[must_use]
    pub fn in_app(self, app: impl Into<String>) -> Self {
        Self {
            app: Some(app.into()),
            ..self
        }
    }
}

/// Judges an answer of the API server (`code` is the HTTP status, `reason` and `message` come from the body's `Status`).
pub fn api_refusal(key: &ObjectKey, code: u16, reason: &str, message: &str) -> Failure {
    let message = message.trim();
    let (problem_code, action, retryable) = match (code, reason) {
        // 404 on apply: the kind is not served (yet), or the namespace is missing (it may be on its way).
        (404, _) => (
            codes::KIND_UNKNOWN,
            "add the definition or the namespace to the release; it is tried again until it is there",
            true,
        ),
        // A namespace that is being deleted refuses new objects with 403 until it is gone.
        (403, _) if message.contains("being terminated") => (
            codes::APPLY_FAILED,
            "it is tried again when the namespace is gone",
            true,
        ),
        // Webhooks that are not up yet answer through the API server with 500 or with "failed calling webhook".
        _ if message.contains("failed calling webhook") => (
            codes::APPLY_FAILED,
            "it is tried again when the webhook answers",
            true,
        ),
        // Server-side apply answers 500 to a field that the kind's schema does not have or that has the wrong type.
        _ if message.contains("failed to create typed patch object") => (
            codes::OBJECT_REFUSED,
            "correct the manifest and publish the release again",
            false,
        ),
        (401, _) => (
            codes::APPLY_FAILED,
            "check the kubeconfig of the node; it is tried again",
            true,
        ),
        (400 | 403 | 405 | 406 | 413 | 415 | 422, _) => (
            codes::OBJECT_REFUSED,
            "correct the manifest and publish the release again",
            false,
        ),
        _ => (codes::APPLY_FAILED, "it is tried again", true),
    };
    let text = if message.is_empty() {
        format!("{key}: the API server answers {code} {reason}")
    } else {
        format!("{key}: {message}")
    };
    Failure {
        key: Some(key.clone()),
        app: None,
        problem: Problem::new(problem_code, text, action),
        retryable,
    }
}

/// A request that got no answer at all.
pub fn no_answer(key: &ObjectKey, error: &str) -> Failure {
    Failure {
        key: Some(key.clone()),
        app: None,
        problem: Problem::new(
            codes::KUBERNETES_UNREACHABLE,
            format!("{key}: no answer of the API server: {error}"),
            "it is tried again when Kubernetes answers",
        ),
        retryable: true,
    }
}
