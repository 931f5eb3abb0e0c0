//! How a node treats the apps of a document.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How the node treats the apps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// What happens when someone changes or deletes an applied object.
    pub drift: DriftPolicy,
    /// Whether objects that left the document are deleted.
    pub prune: bool,
    /// Seconds within which all apps must be ready; then the node goes back to the last good generation. 1 to 86,400.
    pub ready_deadline_seconds: u32,
    /// Seconds that all apps must stay ready before the document counts as good; 0 to 86,400, below the deadline.
    #[serde(skip_serializing_if = "is_zero")]
    pub stability_seconds: u32,
    /// What happens when the document fails.
    #[serde(skip_serializing_if = "is_rollback")]
    pub on_failure: FailurePolicy,
    /// When changes may begin; at any time where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<MaintenanceWindow>,
    /// Whether windows are open while the node's clock is not trusted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub windows_without_clock: bool,
    /// Whether this document waits for no window. A pause made at the box holds it all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub urgent: bool,
    /// Fields of a newer minor version, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

// serde hands a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

// serde hands a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_rollback(value: &FailurePolicy) -> bool {
    *value == FailurePolicy::RollBack
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            drift: DriftPolicy::Correct,
            prune: true,
            ready_deadline_seconds: 600,
            stability_seconds: 0,
            on_failure: FailurePolicy::RollBack,
            windows: Vec::new(),
            windows_without_clock: false,
            urgent: false,
            extra: Map::new(),
        }
    }
}

/// What happens on drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriftPolicy {
    /// The object is put back at once, and the correction is reported.
    #[default]
    Correct,
    /// The drift is reported only.
    Report,
}

/// What happens when a document, or an app of it, fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailurePolicy {
    /// The node goes back to the last good generation, k3s with its apps.
    #[default]
    RollBack,
    /// Of a document: it stays, and is reported as failed. Of an app: it fails alone, and does not keep the document from being good.
    Isolate,
}

/// A span of the week in which changes may begin. It ends at `end` of the same day, or of the next one where `end` is not after `start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaintenanceWindow {
    /// Days on which it begins: `mon` to `sun`; every day where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Weekday>,
    /// When it begins, on the wall clock of the time zone: `22:00`.
    pub start: String,
    /// When it ends: `04:30`. Equal to `start`: a whole day.
    pub end: String,
    /// IANA name of the time zone, `Asia/Shanghai`; `UTC` where absent. Daylight saving is followed: a time that does not exist on a day is
    /// the same distance after the gap, one that exists twice is the first of both.
    #[serde(default = "utc")]
    pub time_zone: String,
}

impl MaintenanceWindow {
    /// When it begins and ends, in minutes from midnight.
    ///
    /// # Errors
    /// The text that is no time of a day from `00:00` to `23:59`.
    pub fn minutes(&self) -> Result<(u16, u16), &str> {
        let parse = |text| minutes(text).ok_or(text);
        Ok((parse(self.start.as_str())?, parse(self.end.as_str())?))
    }
}

/// Minutes from midnight of a time like `23:59`, always of five characters.
pub(super) fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |part: &str, limit: u16| -> Option<u16> {
        let fits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        let number = part.parse().ok().filter(|number: &u16| *number < limit);
        number.filter(|_| fits)
    };
    Some(number(hour, 24)? * 60 + number(minute, 60)?)
}

fn utc() -> String {
    "UTC".into()
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}
