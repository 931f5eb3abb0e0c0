//! Limits refused attempts by address, so that guessing stays slow and the audit log small.
//!
//! Only refusals are counted: whoever holds a valid credential is never kept out by what others at the same address do.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// One attempt comes back in this time.
const REFILL: Duration = Duration::from_secs(6);
/// Addresses remembered at most; beyond it those that have all their attempts back are dropped.
const MAX_ADDRESSES: usize = 10_000;

/// A bucket of attempts for each address.
#[derive(Debug)]
pub struct Limiter {
    attempts: u32,
    spent: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

impl Limiter {
    /// A limiter that allows `attempts` refusals at once.
    pub fn new(attempts: u32) -> Self {
        Self {
            attempts,
            spent: Mutex::default(),
        }
    }

    /// Counts a refusal; false where the address has had too many.
    pub fn refused(&self, address: IpAddr) -> bool {
        self.refused_at(address, Instant::now())
    }

    fn refused_at(&self, address: IpAddr, now: Instant) -> bool {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |(count, at): (f64, Instant)| {
            (count - now.duration_since(at).as_secs_f64() / REFILL.as_secs_f64()).max(0.0)
        };
        if spent.len() >= MAX_ADDRESSES && !spent.contains_key(&address) {
            spent.retain(|_, entry| left(*entry) > 0.0);
            if spent.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let entry = spent.entry(address).or_insert((0.0, now));
        let count = left(*entry);
        let allowed = count + 1.0 <= f64::from(self.attempts);
        *entry = (if allowed { count + 1.0 } else { count }, now);
        allowed
    }

    /// Time until an address that has none left gets an attempt back.
    pub const fn retry_after(&self) -> Duration {
        REFILL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_run_out_and_come_back() {
        let limiter = Limiter::new(3);
        let address = IpAddr::from([192, 0, 2, 1]);
        let start = Instant::now();
        let results: Vec<_> = (0..5).map(|_| limiter.refused_at(address, start)).collect();
        assert_eq!(results, [true, true, true, false, false]);
        assert!(limiter.refused_at(IpAddr::from([192, 0, 2, 2]), start));
        assert!(!limiter.refused_at(address, start + REFILL / 2));
        assert!(limiter.refused_at(address, start + REFILL * 2));
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::new(1);
        let start = Instant::now();
        for number in 0..MAX_ADDRESSES as u32 + 10 {
            limiter.refused_at(IpAddr::from(number.to_be_bytes()), start);
        }
        assert_eq!(limiter.spent.lock().unwrap().len(), MAX_ADDRESSES);
        assert!(limiter.refused_at(IpAddr::from([203, 0, 113, 9]), start + REFILL * 2));
    }
}
