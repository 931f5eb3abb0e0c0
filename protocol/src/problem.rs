//! One form for everything that can be wrong, the same in an HTTP answer, a status, an event and on the terminal.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// Something that is wrong: a stable name, what happened to what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Stable kebab-case name, the heading in `docs/troubleshooting.md`. See [`crate::codes`].
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub code: Cow<'static, str>,
    /// What happened, to what, in one line.
    pub message: String,
    /// What a person can do about it, in one line; empty where nothing is to be done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub action: String,
}

impl Problem {
    /// A problem with its code (from a `codes` module), message and action.
    pub fn new(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
        action: impl Into<String>,
    ) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            action: action.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if self.action.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.action)
        }
    }
}

impl std::error::Error for Problem {}
