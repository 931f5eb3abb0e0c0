//! Labels and selectors at the hub's API: [`holdfast_release::selector`], with the problems that they are refused with.

use crate::{api::ApiError, codes as hub_codes};
use holdfast_protocol::{Problem, operator::Labels};
pub use holdfast_release::selector::{InvalidSelector, Selector, check_key, check_value};
use http::StatusCode;

/// Most labels of a node.
const MAX_LABELS: usize = 64;

/// Checks all labels of a node.
pub fn check_labels(labels: &Labels) -> Result<(), ApiError> {
    let refuse = |reason: String| {
        ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            Problem::new(hub_codes::LABEL_INVALID, reason, "correct the label"),
        )
    };
    if labels.len() > MAX_LABELS {
        return Err(refuse(format!("{} labels; at most {MAX_LABELS}", labels.len())));
    }
    for (key, value) in labels {
        check_key(key).and_then(|()| check_value(value)).map_err(refuse)?;
    }
    Ok(())
}

impl From<InvalidSelector> for ApiError {
    fn from(error: InvalidSelector) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            Problem::new(
                hub_codes::SELECTOR_INVALID,
                error.to_string(),
                "write it as kubectl does: site=berlin,tier!=test,!old,zone in (a,b)",
            ),
        )
    }
}
