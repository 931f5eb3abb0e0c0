//! Answers of a real API server, and what they mean.

use super::*;

fn key() -> ObjectKey {
    ObjectKey {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        namespace: Some("shop".into()),
        name: "web".into(),
    }
}

#[test]
fn only_what_another_document_alone_can_mend_is_permanent() {
    let cases = [
        (
            422,
            "Invalid",
            "spec.selector: field is immutable",
            codes::OBJECT_REFUSED,
            false,
        ),
        (
            400,
            "BadRequest",
            "strict decoding error",
            codes::OBJECT_REFUSED,
            false,
        ),
        (
            403,
            "Forbidden",
            "exceeded quota: small",
            codes::OBJECT_REFUSED,
            false,
        ),
        (
            403,
            "Forbidden",
            "unable to create new content in namespace shop because it is being terminated",
            codes::APPLY_FAILED,
            true,
        ),
        (
            404,
            "NotFound",
            "namespaces \"shop\" not found",
            codes::KIND_UNKNOWN,
            true,
        ),
        (
            409,
            "Conflict",
            "the object has been modified",
            codes::APPLY_FAILED,
            true,
        ),
        (401, "Unauthorized", "Unauthorized", codes::APPLY_FAILED, true),
        (429, "TooManyRequests", "", codes::APPLY_FAILED, true),
        (
            500,
            "InternalError",
            "etcdserver: request timed out",
            codes::APPLY_FAILED,
            true,
        ),
        (
            400,
            "BadRequest",
            "failed calling webhook \"x\": connection refused",
            codes::APPLY_FAILED,
            true,
        ),
        (
            503,
            "ServiceUnavailable",
            "starting up",
            codes::APPLY_FAILED,
            true,
        ),
    ];
    for (status, reason, message, code, retryable) in cases {
        let failure = api_refusal(&key(), status, reason, message);
        assert_eq!(
            (failure.problem.code.as_ref(), failure.retryable),
            (code, retryable),
            "{status} {reason} {message}"
        );
        assert!(failure.problem.message.starts_with("Deployment shop/web: "));
    }
    assert!(no_answer(&key(), "connection refused").retryable);
}
