//! Commands that tell a running daemon to do something: pause, resume, rollback.

use super::{
    Common, Exit, PauseArguments, RollbackArguments,
    query::{Done, post, show},
};
use crate::{
    local_api::view::{PauseOrder, RollbackOrder},
    reconcile::orders::{LONGEST_PAUSE, Paused, Resumed, RollingBack, reason_fault},
    settings::value::parse_duration,
};
use serde_json::json;
use std::time::Duration;

/// Reads the length of a pause.
pub(super) fn length(text: &str) -> Result<Duration, String> {
    let longest = Duration::try_from(LONGEST_PAUSE).unwrap_or_default();
    if text.starts_with('-') {
        return Err("it is below one second; write a time such as 30m, 2h or 1d".into());
    }
    match parse_duration(text) {
        Some(length) if length < Duration::from_secs(1) => Err("it is below one second".into()),
        Some(length) if length > longest => Err("it is above 30 days".into()),
        Some(length) => Ok(length),
        None => Err("it is no time such as 30m, 2h or 1d".into()),
    }
}

/// Reads why changes are paused.
pub(super) fn reason(text: &str) -> Result<String, String> {
    reason_fault(text).map_or_else(|| Ok(text.to_owned()), Err)
}

pub(super) async fn pause(arguments: PauseArguments, common: &Common) -> Done {
    let order = PauseOrder {
        seconds: arguments.length.as_secs(),
        reason: arguments.reason,
    };
    let paused: Paused = post(common, "/v1/pause", &order).await?;
    show(common.output, &paused, |paused| {
        format!(
            "changes are paused until {}; holdfast resume ends the pause\n",
            paused.paused_until
        )
    })?;
    Ok(Exit::Done)
}

pub(super) async fn resume(common: &Common) -> Done {
    let resumed: Resumed = post(common, "/v1/resume", &json!({})).await?;
    show(common.output, &resumed, |resumed| {
        if resumed.was_paused {
            "changes go on\n".into()
        } else {
            "changes were not paused\n".into()
        }
    })?;
    Ok(Exit::Done)
}

pub(super) async fn roll_back(arguments: &RollbackArguments, common: &Common) -> Done {
    let order = RollbackOrder {
        generation: arguments.generation,
    };
    let begun: RollingBack = post(common, "/v1/rollback", &order).await?;
    show(common.output, &begun, |begun| {
        format!(
            "going back from {} to {}, until a newer document comes; holdfast status shows how far it is\n",
            begun.from, begun.to
        )
    })?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_with_control_characters_is_refused() {
        assert_eq!(
            reason("Inventur bei Müller, 2. Stock").unwrap(),
            "Inventur bei Müller, 2. Stock"
        );
        assert_eq!(reason("").unwrap(), "");
        for bad in ["two\nlines", "\u{1b}[2J", "a\tb", "\u{9b}2J", "\u{7f}"] {
            let error = reason(bad).unwrap_err();
            assert!(error.contains("write it on one line"), "{error}");
        }
    }

    #[test]
    fn a_reason_that_is_too_long_is_refused_with_the_limit() {
        assert!(reason(&"x".repeat(1024)).is_ok());
        let error = reason(&"x".repeat(100_000)).unwrap_err();
        assert!(error.contains("100000") && error.contains("1024"), "{error}");
    }
}
