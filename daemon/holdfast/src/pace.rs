//! Paces attempts that failed: exponential backoff with full jitter by the core, random numbers by the operating system.

use holdfast_core::backoff::Backoff;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::time::Duration;

/// Counts attempts, and says how long to wait before the next one.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    backoff: Backoff,
    attempt: u32,
}

impl Pace {
    /// Waits from `min` (as the ceiling of the first one) to `max`.
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self {
            backoff: Backoff::new(min, max),
            attempt: 0,
        }
    }

    /// The wait before the next attempt; longer with each call.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.backoff.delay(self.attempt, random());
        self.attempt = self.attempt.saturating_add(1);
        wait
    }

    /// As [`Self::next_wait`], but at least `minimum`: what a hub under load asked for.
    pub fn next_wait_of_at_least(&mut self, minimum: Duration) -> Duration {
        let wait = self.backoff.stretched(minimum).delay(self.attempt, random());
        self.attempt = self.attempt.saturating_add(1);
        wait
    }

    /// Attempts since the last success.
    pub const fn attempts(&self) -> u32 {
        self.attempt
    }

    /// After a success.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// A number uniform over all `u64`.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    // The operating system's generator fails only before it is seeded early in the boot; the middle is a fair wait then.
    if SystemRandom::new().fill(&mut bytes).is_err() {
        return u64::MAX / 2;
    }
    u64::from_le_bytes(bytes)
}
