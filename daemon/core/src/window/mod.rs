//! Maintenance windows: when the changes of a document may begin.
//!
//! In: a document's policy, the present time, and whether the clock can be trusted. Out: [`Gate`], open or closed, with the time at
//! which that changes by itself. Guarantees: a window that cannot be read never opens; time zones come from a database in this
//! program, so a box without one decides as any other.
//!
//! Daylight saving: a time that a day does not have is as far behind the gap as it would be into it, one that a day has twice is
//! the first of both (`Disambiguation::Compatible` of jiff, the rule of RFC 5545).

#[cfg(test)]
mod tests;

use crate::codes;
use holdfast_protocol::{
    Problem,
    document::{MaintenanceWindow, Policy, Weekday},
};
use jiff::{Timestamp, ToSpan as _, civil, tz::TimeZone};

/// Days that are looked ahead: a week, so that each day of the week comes, and one more for what is left of today.
const DAYS_AHEAD: i64 = 8;

/// Whether changes may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// They may.
    Open {
        /// Until when; without end where absent.
        until: Option<Timestamp>,
    },
    /// They may not.
    Closed {
        /// When it opens, where that is known.
        until: Option<Timestamp>,
        /// Why not.
        problem: Problem,
    },
}

/// Whether changes may begin at `now`.
pub fn open(policy: &Policy, now: Timestamp, clock_trusted: bool) -> Gate {
    if policy.urgent || policy.windows.is_empty() {
        return Gate::Open { until: None };
    }
    if !clock_trusted {
        if policy.windows_without_clock {
            return Gate::Open { until: None };
        }
        return Gate::Closed {
            until: None,
            problem: Problem::new(
                codes::WINDOW_WITHOUT_CLOCK,
                "changes wait for a maintenance window, but the clock of this box cannot be trusted",
                "set the clock or let it be set over the network; policy.windowsWithoutClock or policy.urgent let changes begin all the same",
            ),
        };
    }
    let mut spans = Vec::new();
    let mut invalid = None;
    for window in &policy.windows {
        match spans_of(window, now) {
            Ok(found) => spans.extend(found),
            Err(problem) => invalid = Some(problem),
        }
    }
    spans.sort_unstable();
    // Windows that touch or overlap are one.
    let mut until: Option<Timestamp> = None;
    for (start, end) in &spans {
        let reached = until.unwrap_or(now);
        if *start <= reached && *end > reached {
            until = Some(*end);
        }
    }
    if until.is_some() {
        return Gate::Open { until };
    }
    let next = spans.iter().map(|(start, _)| *start).find(|start| *start > now);
    let problem = match (next, invalid) {
        (None, Some(problem)) => problem,
        (Some(next), _) => Problem::new(
            codes::OUTSIDE_WINDOW,
            format!("changes wait for the maintenance window that opens at {next}"),
            "nothing; policy.urgent in the release lets changes begin at once",
        ),
        (None, None) => Problem::new(
            codes::OUTSIDE_WINDOW,
            "changes wait for a maintenance window",
            "nothing; policy.urgent in the release lets changes begin at once",
        ),
    };
    Gate::Closed { until: next, problem }
}

/// The time zone of this IANA name, where it is known.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    TimeZone::get(name).ok()
}

/// The window's spans that end after `now`, of the days from yesterday on.
fn spans_of(window: &MaintenanceWindow, now: Timestamp) -> Result<Vec<(Timestamp, Timestamp)>, Problem> {
    let invalid = |what: String| {
        Problem::new(
            codes::WINDOW_INVALID,
            format!("a maintenance window cannot be read: {what}"),
            "correct policy.windows and publish the release again; policy.urgent lets changes begin at once",
        )
    };
    let (start, end) = window
        .minutes()
        .map_err(|text| invalid(format!("{text:?} is no time of a day")))?;
    let zone = time_zone(&window.time_zone)
        .ok_or_else(|| invalid(format!("the time zone {:?} is not known", window.time_zone)))?;
    let today = now.to_zoned(zone.clone()).date();
    let at = |date: civil::Date, minutes: u16| {
        // Both are within a day.
        let hour = i8::try_from(minutes / 60).ok()?;
        let minute = i8::try_from(minutes % 60).ok()?;
        let zoned = date.at(hour, minute, 0, 0).to_zoned(zone.clone()).ok()?;
        Some(zoned.timestamp())
    };
    let spans = (-1..=DAYS_AHEAD).filter_map(|day| {
        let date = today.checked_add(day.days()).ok()?;
        if !window.days.is_empty() && !window.days.contains(&weekday(date)) {
            return None;
        }
        let last = if end > start { date } else { date.tomorrow().ok()? };
        Some((at(date, start)?, at(last, end)?))
    });
    Ok(spans.filter(|(start, end)| start < end && *end > now).collect())
}

fn weekday(date: civil::Date) -> Weekday {
    match date.weekday() {
        civil::Weekday::Monday => Weekday::Mon,
        civil::Weekday::Tuesday => Weekday::Tue,
        civil::Weekday::Wednesday => Weekday::Wed,
        civil::Weekday::Thursday => Weekday::Thu,
        civil::Weekday::Friday => Weekday::Fri,
        civil::Weekday::Saturday => Weekday::Sat,
        civil::Weekday::Sunday => Weekday::Sun,
    }
}
