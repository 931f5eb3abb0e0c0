//! Bound on connections that have not yet proven who they are: an address goes in, a place comes out, or none.
//!
//! Guarantee: strangers hold at most [`Limits::handshakes`](super::Limits::handshakes) connections. When all places, or all of
//! one address, are taken, the oldest handshake gives way if it has had its time: an honest one is over within milliseconds, so
//! that one is kept open on purpose. Otherwise the newcomer is sent away, as after a restart, when a whole fleet comes at
//! once: nodes come again with growing pauses, and no work that was begun is thrown away.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How long a handshake is left alone. An honest one takes a few round trips, on a bad link a second.
const PATIENCE: Duration = Duration::from_secs(1);

/// All places.
pub(super) struct Handshakes {
    total: usize,
    per_address: usize,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    count: usize,
    next: u64,
    by_address: HashMap<IpAddr, VecDeque<Waiting>>,
}

#[derive(Clone)]
struct Waiting {
    number: u64,
    since: Instant,
    lost: CancellationToken,
}

/// One place; given back when dropped.
pub(super) struct Place {
    handshakes: Arc<Handshakes>,
    address: IpAddr,
    number: u64,
    /// Cancelled when another connection took this place.
    pub(super) lost: CancellationToken,
}

impl Handshakes {
    pub(super) fn new(total: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            total: total.max(1),
            per_address: per_address.max(1),
            pending: Mutex::default(),
        })
    }

    /// Takes a place for a connection from `address`, if there is one.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        self.enter_at(address, Instant::now())
    }

    fn enter_at(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<Place> {
        let mut pending = self.pending();
        let full = |places: &VecDeque<Waiting>| places.len() >= self.per_address;
        if pending.by_address.get(&address).is_some_and(full) {
            pending.evict(address, now)?;
        } else if pending.count >= self.total {
            let busiest = pending
                .by_address
                .iter()
                .max_by_key(|(_, places)| places.len())
                .map(|(address, _)| *address)?;
            pending.evict(busiest, now)?;
        }
        pending.next += 1;
        pending.count += 1;
        let waiting = Waiting {
            number: pending.next,
            since: now,
            lost: CancellationToken::new(),
        };
        pending
            .by_address
            .entry(address)
            .or_default()
            .push_back(waiting.clone());
        drop(pending);
        Some(Place {
            handshakes: self.clone(),
            address,
            number: waiting.number,
            lost: waiting.lost,
        })
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Takes the oldest place of an address away, if it has had its time.
    fn evict(&mut self, address: IpAddr, now: Instant) -> Option<()> {
        let oldest = self.by_address.get(&address)?.front()?.clone();
        (now.duration_since(oldest.since) >= PATIENCE).then_some(())?;
        oldest.lost.cancel();
        self.remove(address, oldest.number);
        Some(())
    }

    fn remove(&mut self, address: IpAddr, number: u64) {
        let Some(places) = self.by_address.get_mut(&address) else {
            return;
        };
        let before = places.len();
        places.retain(|waiting| waiting.number != number);
        self.count -= before - places.len();
        if places.is_empty() {
            self.by_address.remove(&address);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshakes.pending().remove(self.address, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const HONEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn the_oldest_handshake_of_a_greedy_address_gives_way_after_its_time() {
        let handshakes = Handshakes::new(100, 2);
        let begin = Instant::now();
        let first = handshakes.enter_at(HOSTILE, begin).unwrap();
        let second = handshakes.enter_at(HOSTILE, begin + PATIENCE / 2).unwrap();
        let honest = handshakes.enter_at(HONEST, begin).unwrap();
        assert!(handshakes.enter_at(HOSTILE, begin + PATIENCE / 2).is_none());
        let third = handshakes.enter_at(HOSTILE, begin + PATIENCE).unwrap();
        assert!(first.lost.is_cancelled());
        assert!(
            [second, honest, third]
                .iter()
                .all(|place| !place.lost.is_cancelled())
        );
    }

    #[test]
    fn a_full_house_is_paid_by_the_busiest_address() {
        let handshakes = Handshakes::new(3, 3);
        let begin = Instant::now();
        let hostile = [(); 2].map(|()| handshakes.enter_at(HOSTILE, begin).unwrap());
        let one = handshakes.enter_at(HONEST, begin).unwrap();
        let two = handshakes.enter_at(HONEST, begin + PATIENCE).unwrap();
        assert!(hostile[0].lost.is_cancelled());
        assert!(!one.lost.is_cancelled() && !two.lost.is_cancelled());
    }

    #[test]
    fn a_fleet_that_comes_at_once_loses_no_handshake_that_was_begun() {
        let handshakes = Handshakes::new(3, 3);
        let begin = Instant::now();
        let begun = [(); 3].map(|()| handshakes.enter_at(HONEST, begin).unwrap());
        assert!((0..100).all(|_| handshakes.enter_at(HONEST, begin).is_none()));
        assert!(begun.iter().all(|place| !place.lost.is_cancelled()));
    }

    #[test]
    fn a_place_comes_back_when_its_handshake_is_over() {
        let handshakes = Handshakes::new(1, 1);
        drop(handshakes.enter(HONEST));
        let place = handshakes.enter(HONEST).unwrap();
        let pending = handshakes.pending();
        assert_eq!((pending.count, pending.by_address.len()), (1, 1));
        drop(pending);
        assert!(!place.lost.is_cancelled());
    }
}
