//! Values that have a form of their own: durations, labels, selectors, roles. In: what was typed. Out: the value, or what is wrong with it.

use holdfast_protocol::operator::OperatorRole;
use std::time::Duration;

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 30s, 10m, 24h or 7d");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(seconds)
        .filter(|seconds| (1..=366 * 86_400).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is not within 1 second and 366 days"))
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is no label: write KEY=VALUE"))
}

/// A selector that is not empty: that one means the whole fleet, and often comes from a variable that is not set.
pub(super) fn some_nodes(text: &str) -> Result<String, String> {
    if text.split(',').all(|part| part.trim().is_empty()) {
        return Err("it is empty, which would mean every node; say --all if you mean that".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn label_change(text: &str) -> Result<(String, Option<String>), String> {
    if let Ok((key, value)) = pair(text) {
        return Ok((key, Some(value)));
    }
    text.strip_suffix('-')
        .filter(|key| !key.is_empty())
        .map(|key| (key.to_owned(), None))
        .ok_or_else(|| format!("{text:?} is neither KEY=VALUE nor KEY-"))
}

pub(super) fn role(text: &str) -> Result<OperatorRole, String> {
    match text {
        "admin" => Ok(OperatorRole::Admin),
        "viewer" => Ok(OperatorRole::Viewer),
        _ => Err("it is admin or viewer".to_owned()),
    }
}
