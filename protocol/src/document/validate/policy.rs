//! Rules of the policy.

use super::{Checked, require, within};
use crate::document::{MaintenanceWindow, Policy, policy::minutes};

/// The most maintenance windows.
const MAX_WINDOWS: usize = 32;
/// The longest time in seconds: a day.
const DAY: u32 = 86_400;

pub(super) fn check(policy: &Policy) -> Checked {
    let deadline = policy.ready_deadline_seconds;
    within("policy.readyDeadlineSeconds".into(), deadline, 1, DAY)?;
    require(
        policy.stability_seconds < deadline,
        "policy.stabilitySeconds",
        format!(
            "{} is not below readyDeadlineSeconds, {deadline}",
            policy.stability_seconds
        ),
    )?;
    require(
        policy.windows.len() <= MAX_WINDOWS,
        "policy.windows",
        format!("{} windows; at most {MAX_WINDOWS}", policy.windows.len()),
    )?;
    for (index, window) in policy.windows.iter().enumerate() {
        check_window(&format!("policy.windows[{index}]"), window)?;
    }
    Ok(())
}

fn check_window(place: &str, window: &MaintenanceWindow) -> Checked {
    for (key, text) in [("start", &window.start), ("end", &window.end)] {
        require(
            minutes(text).is_some(),
            format!("{place}.{key}"),
            format!("{text:?} is no time of day: write \"22:00\", in quotes"),
        )?;
    }
    let mut days = window.days.clone();
    days.sort_by_key(|day| *day as u8);
    days.dedup();
    require(
        days.len() == window.days.len(),
        format!("{place}.days"),
        "a day is named twice",
    )?;
    let zone = &window.time_zone;
    require(
        (1..=64).contains(&zone.len())
            && zone
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte)),
        format!("{place}.timeZone"),
        format!("{zone:?} is no name of a time zone: write Europe/Zurich, Asia/Shanghai or UTC"),
    )
}
