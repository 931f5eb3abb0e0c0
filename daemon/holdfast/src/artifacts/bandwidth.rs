//! A limit of bytes per second: a token bucket that all fetches share.
//!
//! In: bytes that came. Out: the time to wait before more are taken. It guarantees that over any time `t` at most `rate * t` bytes and one
//! second's worth are taken; the other side is slowed down by TCP.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The bucket.
#[derive(Clone, Debug)]
pub struct Bandwidth {
    rate: u64,
    /// When the bucket is full again.
    full_at: Arc<Mutex<Instant>>,
}

impl Bandwidth {
    /// At most `rate` bytes per second; 0 is no limit.
    pub fn new(rate: u64) -> Self {
        Self {
            rate,
            full_at: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// Takes `bytes`, and waits until they are within the limit.
    pub async fn take(&self, bytes: usize) {
        let wait = self.owe(bytes, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn owe(&self, bytes: usize, now: Instant) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        *full_at = (*full_at).max(now) + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        // One second's worth may come at once.
        full_at
            .saturating_duration_since(now)
            .saturating_sub(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_rate_is_waited_for() {
        let bandwidth = Bandwidth::new(1_000);
        let begin = Instant::now();
        assert_eq!(bandwidth.owe(1_000, begin), Duration::ZERO, "one second's worth");
        assert_eq!(bandwidth.owe(500, begin), Duration::from_millis(500));
        let later = begin + Duration::from_secs(10);
        assert_eq!(bandwidth.owe(1_000, later), Duration::ZERO, "it filled again");
        assert_eq!(
            bandwidth.owe(100, later),
            Duration::from_millis(100),
            "no more than full"
        );
        assert_eq!(
            Bandwidth::new(0).owe(usize::MAX, begin),
            Duration::ZERO,
            "no limit"
        );
    }
}
