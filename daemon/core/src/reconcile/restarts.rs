//! How long a change that was begun may still take after the daemon or the box was started anew.
//!
//! In: the deadline of its document, and how often it was begun anew. Out: seconds. Guarantees: they come to an end, however often the box
//! restarts; that a box was off for a day takes nothing from them, as no clock is asked.

use crate::codes;
use holdfast_protocol::{Generation, Problem};

/// Restarts in the middle of one change. Where they come so fast that no deadline ever passes, this many are enough to know that the
/// change is no good: a box that needs a minute to start goes back within half an hour.
const MOST_RESTARTS: u32 = 20;

/// A shorter time says nothing of apps that have just been started, so the halves are no shorter, in seconds.
const SHORTEST: u32 = 30;

/// Seconds that a document has from a restart on, the `restarts`th in the middle of its change, counted from 1. None are left after more
/// than 20.
///
/// The first restart may have a cause of its own, as a power cut, and the apps start anew: it gives the whole time. Each further one gives
/// half of that before, so all of them together give less than twice the deadline as long as the halves are above 30 s; the number of
/// restarts bounds the rest, to 10 minutes.
pub fn deadline_after_restarts(ready_deadline_seconds: u32, restarts: u32) -> u32 {
    if restarts > MOST_RESTARTS {
        return 0;
    }
    let before = restarts.saturating_sub(1);
    let part = ready_deadline_seconds.checked_shr(before).unwrap_or(0);
    part.max(ready_deadline_seconds.min(SHORTEST))
}

/// Why a document is given up that has no time left.
pub(super) fn restarted_too_often(generation: Generation) -> Problem {
    Problem::new(
        codes::NOT_READY_IN_TIME,
        format!(
            "the box or the daemon restarted more than {MOST_RESTARTS} times before document {generation} was ready"
        ),
        "look at what the document changes that makes the box or the daemon restart; the kernel's log and the daemon's say more",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_restart_halves_the_time_down_to_the_shortest_and_the_last_leaves_none() {
        let seconds = |restarts| deadline_after_restarts(600, restarts);
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 20].map(seconds),
            [600, 300, 150, 75, 37, 30, 30]
        );
        assert_eq!([21, 22, u32::MAX].map(seconds), [0, 0, 0]);
        assert_eq!(
            [1, 2, 20, 21].map(|restarts| deadline_after_restarts(5, restarts)),
            [5, 5, 5, 0]
        );
    }

    #[test]
    fn all_restarts_together_give_a_bounded_time() {
        for deadline in [1, 30, 31, 600, 86_400] {
            let all: u32 = (1..100)
                .map(|restarts| deadline_after_restarts(deadline, restarts))
                .sum();
            assert!(
                all <= 2 * deadline + MOST_RESTARTS * SHORTEST,
                "{deadline}: {all}"
            );
        }
    }
}
