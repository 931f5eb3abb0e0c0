//! Bound on connections that have not yet proven who they are: an address goes in, a place comes out, or none.
//!
//! Guarantee: strangers hold at most [`Limits::handshakes`](super::Limits::handshakes) connections. When all places, or all of
//! one address, are taken, the oldest handshake gives way: an honest one is over within milliseconds, so the oldest is the one
//! that is kept open on purpose.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::CancellationToken;

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
    by_address: HashMap<IpAddr, VecDeque<(u64, CancellationToken)>>,
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

    /// Takes a place for a connection from `address`.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let lost = CancellationToken::new();
        let mut pending = self.pending();
        if pending
            .by_address
            .get(&address)
            .is_some_and(|places| places.len() >= self.per_address)
        {
            pending.evict(address);
        } else if pending.count >= self.total {
            let busiest = pending
                .by_address
                .iter()
                .max_by_key(|(_, places)| places.len())
                .map(|(address, _)| *address);
            if let Some(busiest) = busiest {
                pending.evict(busiest);
            }
        }
        pending.next += 1;
        pending.count += 1;
        let number = pending.next;
        pending
            .by_address
            .entry(address)
            .or_default()
            .push_back((number, lost.clone()));
        drop(pending);
        Place {
            handshakes: self.clone(),
            address,
            number,
            lost,
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn evict(&mut self, address: IpAddr) {
        if let Some((number, lost)) = self
            .by_address
            .get(&address)
            .and_then(|places| places.front().cloned())
        {
            lost.cancel();
            self.remove(address, number);
        }
    }

    fn remove(&mut self, address: IpAddr, number: u64) {
        let Some(places) = self.by_address.get_mut(&address) else {
            return;
        };
        let before = places.len();
        places.retain(|(other, _)| *other != number);
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
    fn the_oldest_handshake_of_a_greedy_address_gives_way() {
        let handshakes = Handshakes::new(100, 2);
        let first = handshakes.enter(HOSTILE);
        let second = handshakes.enter(HOSTILE);
        let honest = handshakes.enter(HONEST);
        let third = handshakes.enter(HOSTILE);
        assert!(first.lost.is_cancelled());
        assert!(!second.lost.is_cancelled() && !third.lost.is_cancelled() && !honest.lost.is_cancelled());
    }

    #[test]
    fn a_full_house_is_paid_by_the_busiest_address() {
        let handshakes = Handshakes::new(3, 3);
        let hostile = [handshakes.enter(HOSTILE), handshakes.enter(HOSTILE)];
        let honest = [handshakes.enter(HONEST), handshakes.enter(HONEST)];
        assert!(hostile[0].lost.is_cancelled());
        assert!(honest.iter().all(|place| !place.lost.is_cancelled()));
    }

    #[test]
    fn a_place_comes_back_when_its_handshake_is_over() {
        let handshakes = Handshakes::new(1, 1);
        drop(handshakes.enter(HONEST));
        let place = handshakes.enter(HONEST);
        let pending = handshakes.pending();
        assert_eq!((pending.count, pending.by_address.len()), (1, 1));
        drop(pending);
        assert!(!place.lost.is_cancelled());
    }
}
