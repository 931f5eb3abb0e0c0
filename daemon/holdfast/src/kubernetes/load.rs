//! How many requests at once the API server is given.
//!
//! In: how long its answers take, and when it says that it has too much to do. Out: the number of requests that may be under way. It
//! guarantees at least one, never more than is asked for, half as many after each "too many requests", and that a server whose answers only
//! grow slower with more of them is not given more.
//!
//! The rule is that of TCP Vegas (Brakmo and Peterson, 1995): of `limit` requests, about `limit * (1 - fastest / now)` wait in a queue of the
//! server, for with an empty queue they would take the fastest time.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Fewer requests than these in the server's queue: one more may be sent.
const SHORT_QUEUE: f64 = 4.0;
/// More than these: one less.
const LONG_QUEUE: f64 = 8.0;
/// Where it begins.
const FIRST_LIMIT: f64 = 8.0;
/// No more than anybody may set.
const HIGHEST: f64 = 64.0;
/// Weight of one answer in the present time of answers.
const WEIGHT: f64 = 0.125;
/// By how much the fastest time rises with each answer: a server that has become slower for good is known as such after a few hundred.
const FORGET: f64 = 1.002;

/// The load that an API server bears well.
#[derive(Debug)]
pub struct Load(Mutex<State>);

#[derive(Debug)]
struct State {
    limit: f64,
    /// Seconds; 0 before the first answer.
    fastest: f64,
    /// Seconds; 0 before the first answer.
    now: f64,
}

impl Default for Load {
    fn default() -> Self {
        Self(Mutex::new(State {
            limit: FIRST_LIMIT,
            fastest: 0.0,
            now: 0.0,
        }))
    }
}

impl Load {
    /// Requests that may be under way, at most `most`.
    pub fn limit(&self, most: usize) -> usize {
        // Between 1 and 64, so no digit that matters is cut off.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let limit = self.locked().limit as usize;
        limit.min(most).max(1)
    }

    /// A request was answered after this time.
    pub fn answered(&self, took: Duration) {
        let took = took.as_secs_f64().max(1e-6);
        let mut state = self.locked();
        if state.fastest == 0.0 {
            (state.fastest, state.now) = (took, took);
            return;
        }
        state.fastest = (state.fastest * FORGET).min(took);
        state.now += (took - state.now) * WEIGHT;
        let queue = state.limit * (1.0 - state.fastest / state.now.max(state.fastest));
        if queue < SHORT_QUEUE {
            state.limit = (state.limit + 1.0 / state.limit).min(HIGHEST);
        } else if queue > LONG_QUEUE {
            state.limit = (state.limit - 1.0 / state.limit).max(1.0);
        }
    }

    /// The server refused a request because it has too much to do.
    pub fn refused(&self) {
        let mut state = self.locked();
        state.limit = (state.limit / 2.0).max(1.0);
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Numbers only; none is worse than another.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of a server with so many workers, each of which needs 2 ms for a request.
    fn serve(load: &Load, workers: usize, answers: usize) {
        for _ in 0..answers {
            let rounds = load.limit(64).div_ceil(workers);
            load.answered(Duration::from_millis(2) * u32::try_from(rounds).unwrap());
        }
    }

    #[test]
    fn a_server_that_keeps_up_gets_more_and_one_that_queues_does_not() {
        let wide = Load::default();
        serve(&wide, 64, 5_000);
        assert_eq!(wide.limit(64), 64);
        assert_eq!(wide.limit(16), 16);

        let narrow = Load::default();
        // The fastest time is only seen while there is no queue.
        narrow.answered(Duration::from_millis(2));
        serve(&narrow, 1, 500);
        assert!((4..=12).contains(&narrow.limit(64)), "{}", narrow.limit(64));
    }

    #[test]
    fn each_refusal_halves_and_one_request_is_always_allowed() {
        let load = Load::default();
        load.refused();
        assert_eq!(load.limit(64), 4);
        for _ in 0..10 {
            load.refused();
        }
        assert_eq!(load.limit(64), 1);
        serve(&load, 64, 1_000);
        assert!(load.limit(64) > 8, "{}", load.limit(64));
    }
}
