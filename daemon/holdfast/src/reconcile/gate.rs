//! Waits for a document's maintenance window.
//!
//! In: the document's policy, the node's time. Out: each new reason why changes may not begin yet, then the end of the wait. It guarantees
//! that nothing is polled: the kernel rings at the opening, and when somebody sets the clock.

use super::clock::reached_or_set;
use crate::identity::clock::TimeFloor;
use holdfast_core::window::{Gate, open};
use holdfast_protocol::{Problem, document::Policy};
use jiff::Timestamp;

/// Clocks that show an earlier time than this version of Holdfast has were never set: 2026-01-01.
const NOT_BEFORE: i64 = 1_767_225_600;

/// Changes may not begin yet.
pub struct Closed {
    /// When they may, where that is known.
    pub opens: Option<Timestamp>,
    /// Why not.
    pub problem: Problem,
}

/// Returns when changes may begin. Until then, `closed` is told each new reason why not.
pub async fn opened(policy: &Policy, floor: &TimeFloor, mut closed: impl FnMut(Closed)) {
    let mut told = None;
    loop {
        let now = floor.now();
        let trusted = floor.is_system_clock_trusted() && now.as_second() >= NOT_BEFORE;
        let (opens, problem) = match open(policy, now, trusted) {
            Gate::Open { .. } => return,
            Gate::Closed { until, problem } => (until, problem),
        };
        if told.as_ref() != Some(&problem) {
            told = Some(problem.clone());
            closed(Closed { opens, problem });
        }
        reached_or_set(opens).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::document::MaintenanceWindow;
    use jiff::{SignedDuration, Zoned, tz::TimeZone};
    use std::time::Duration;
    use tokio::time::timeout;

    fn at(zoned: &Zoned) -> String {
        zoned.strftime("%H:%M").to_string()
    }

    fn window(start: &str, end: &str) -> Policy {
        Policy {
            windows: vec![MaintenanceWindow {
                days: Vec::new(),
                start: start.into(),
                end: end.into(),
                time_zone: "UTC".into(),
            }],
            ..Policy::default()
        }
    }

    #[tokio::test]
    async fn a_closed_window_tells_when_it_opens_and_an_open_one_lets_through() {
        let directory = tempfile::tempdir().unwrap();
        let floor = TimeFloor::open(directory.path()).unwrap();
        let now = Timestamp::now().to_zoned(TimeZone::UTC);
        let hours = |hours| now.checked_add(SignedDuration::from_hours(hours)).unwrap();

        let closed_now = window(&at(&hours(2)), &at(&hours(3)));
        let mut told = Vec::new();
        let waited = timeout(
            Duration::from_millis(300),
            opened(&closed_now, &floor, |closed| told.push(closed.opens)),
        );
        assert!(waited.await.is_err(), "it opened two hours early");
        assert_eq!(told.len(), 1, "one reason is told once");
        let opens = told[0].expect("when it opens is known");
        let wait = opens.duration_since(now.timestamp());
        assert!(
            wait > SignedDuration::from_mins(118) && wait <= SignedDuration::from_mins(120),
            "{wait}"
        );

        let open_now = window(&at(&hours(-1)), &at(&hours(1)));
        opened(&open_now, &floor, |_| panic!("it is open")).await;
    }

    #[tokio::test]
    async fn without_a_trusted_clock_a_window_is_closed_unless_the_document_says_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let floor = TimeFloor::open(directory.path()).unwrap();
        // The hub has signed a later time than this clock shows.
        floor
            .raise(Timestamp::now() + SignedDuration::from_hours(24))
            .unwrap();
        let mut policy = window("00:00", "00:00");
        let mut codes = Vec::new();
        let waited = timeout(
            Duration::from_millis(300),
            opened(&policy, &floor, |closed| codes.push(closed.problem.code)),
        );
        assert!(waited.await.is_err());
        assert_eq!(codes, [holdfast_core::codes::WINDOW_WITHOUT_CLOCK]);
        policy.windows_without_clock = true;
        opened(&policy, &floor, |_| panic!("the document lets it through")).await;
    }
}
