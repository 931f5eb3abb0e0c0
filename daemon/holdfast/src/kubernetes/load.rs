//! How many requests at once the API server is given.
//!
//! In: how long its answers take, and when it says that it has too much to do. Out: the number of requests that may be under way. It
//! guarantees at least one, never more than is asked for, half as many after each "too many requests", and fewer to a server whose answers
//! take longer than is good for anybody else who asks it.
//!
//! What is held against the server is the time itself, not the time over its fastest one: most of an answer's time is waiting for the disk
//! and for other programs, and with fewer requests at once all of them together only take longer.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Answers that take longer than this, in seconds, are too many at once: people's own requests wait as long.
const SLOW: f64 = 0.5;
/// No more than anybody may set.
const HIGHEST: f64 = 64.0;
/// As many as are sent by default.
const USUAL: f64 = 16.0;
/// Weight of one answer in the present time of answers.
const WEIGHT: f64 = 0.125;

/// The load that an API server bears well.
#[derive(Debug)]
pub struct Load(Mutex<State>);

#[derive(Debug)]
struct State {
    limit: f64,
    /// Present time of an answer in seconds; 0 before the first one.
    now: f64,
}

impl Default for Load {
    fn default() -> Self {
        Self(Mutex::new(State {
            limit: HIGHEST,
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
        let took = took.as_secs_f64();
        let mut state = self.locked();
        state.now += (took - state.now) * WEIGHT;
        if state.now > SLOW {
            state.limit = (state.limit - 1.0).max(1.0);
        } else if state.now < SLOW / 2.0 {
            state.limit = (state.limit + 1.0 / state.limit).min(HIGHEST);
        }
    }

    /// The server refused a request because it has too much to do.
    pub fn refused(&self) {
        let mut state = self.locked();
        // Nobody sends more than a setting allows, so that is where the half is taken of.
        state.limit = (state.limit.min(USUAL) / 2.0).max(1.0);
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Numbers only; none is worse than another.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(load: &Load, milliseconds: u64, answers: usize) {
        for _ in 0..answers {
            load.answered(Duration::from_millis(milliseconds));
        }
    }

    #[test]
    fn a_slow_server_gets_fewer_and_one_that_recovers_gets_more_again() {
        let load = Load::default();
        serve(&load, 60, 1_000);
        assert_eq!((load.limit(64), load.limit(16)), (64, 16));
        serve(&load, 2_000, 200);
        assert_eq!(load.limit(16), 1);
        serve(&load, 20, 1_000);
        assert_eq!(load.limit(16), 16);
    }

    #[test]
    fn each_refusal_halves_and_one_request_is_always_allowed() {
        let load = Load::default();
        load.refused();
        assert_eq!(load.limit(64), 8);
        for _ in 0..10 {
            load.refused();
        }
        assert_eq!(load.limit(64), 1);
        serve(&load, 20, 1_000);
        assert!(load.limit(64) > 8, "{}", load.limit(64));
    }
}
