//! Delays between attempts: exponential backoff with full jitter.
//!
//! In: the number of the attempt, and a random number. Out: the delay. Guarantees: never longer than the longest delay, never
//! shorter than what the hub asked for; attempts are unlimited.
//!
//! The formula is `random(0, min(cap, base * 2^attempt))`, "full jitter" of
//! <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>: of the variants compared there it spreads a
//! fleet that lost its hub at one moment the widest.

use std::time::Duration;

/// Bounds of the delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Longest possible delay after the first failure.
    pub base: Duration,
    /// Longest delay at all, but for what the hub asks for.
    pub cap: Duration,
    /// Shortest delay, by which a hub under load keeps its fleet away; zero where it asked for nothing.
    pub minimum: Duration,
}

impl Backoff {
    /// Bounds without a minimum.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            minimum: Duration::ZERO,
        }
    }

    /// The same bounds, with every delay at least `minimum`.
    #[must_use]
    pub const fn stretched(self, minimum: Duration) -> Self {
        Self { minimum, ..self }
    }

    /// The longest possible delay before attempt number `attempt` (0 is the first one after a failure), without the minimum.
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// The delay before attempt number `attempt`; `random` must be uniform over all `u64`.
    ///
    /// The jitter lies on top of the minimum, so that a stretched fleet is spread as well.
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let ceiling = u64::try_from(self.ceiling(attempt).as_nanos()).unwrap_or(u64::MAX);
        // The upper half of the 128-bit product: uniform over 0..=ceiling without a division.
        let jitter = (u128::from(random) * (u128::from(ceiling) + 1)) >> 64;
        self.minimum
            .saturating_add(Duration::from_nanos(u64::try_from(jitter).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let ceilings: Vec<u64> = (0..11).map(|n| BACKOFF.ceiling(n).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(BACKOFF.ceiling(u32::MAX), Duration::from_secs(300));
    }

    #[test]
    fn the_jitter_reaches_both_ends() {
        assert_eq!(BACKOFF.delay(3, 0), Duration::ZERO);
        assert_eq!(BACKOFF.delay(3, u64::MAX), Duration::from_secs(8));
    }

    #[test]
    fn a_hub_can_stretch_every_delay() {
        let stretched = BACKOFF.stretched(Duration::from_secs(3600));
        assert_eq!(stretched.delay(0, 0), Duration::from_secs(3600));
        assert_eq!(stretched.delay(0, u64::MAX), Duration::from_secs(3601));
    }

    proptest! {
        #[test]
        fn every_delay_is_within_its_bounds(attempt: u32, random: u64, minimum in 0_u64..10_000) {
            let backoff = BACKOFF.stretched(Duration::from_secs(minimum));
            let delay = backoff.delay(attempt, random);
            prop_assert!(delay >= backoff.minimum);
            prop_assert!(delay <= backoff.minimum + backoff.ceiling(attempt));
        }
    }
}
