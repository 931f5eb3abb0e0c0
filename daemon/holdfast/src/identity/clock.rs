//! The time floor: the newest time that the hub has signed, kept over restarts. True time is never before it.
//!
//! A box without a battery clock starts in 1970, or wherever it was switched off. Holdfast asks this floor for the time instead
//! of the system: it is at least the floor plus the time since the floor was learnt. No decision about what runs depends on it.

use super::{IdentityError, write_private};
use jiff::{SignedDuration, Timestamp};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};

const FILE: &str = "time-floor";

/// A floor is written again only if it rises by this much: signed time comes with every renewal, and a flash cell lives from
/// not being written.
const STEP: SignedDuration = SignedDuration::from_mins(1);

/// The time floor of this box.
#[derive(Debug)]
pub struct TimeFloor {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    floor: Option<Timestamp>,
    /// When, on the monotonic clock, time was known to be at least `floor`.
    learnt: Instant,
}

impl TimeFloor {
    /// Reads the floor below `directory`. A damaged file counts as no floor, for a floor only ever helps.
    pub fn open(directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join(FILE);
        let floor = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(IdentityError::io("read", &path)(error)),
        };
        let state = Mutex::new(State {
            floor,
            learnt: Instant::now(),
        });
        Ok(Self { path, state })
    }

    /// The newest signed time, if there ever was one.
    pub fn get(&self) -> Option<Timestamp> {
        self.lock().floor
    }

    /// Raises the floor to `time`, a time that was signed by a trusted key; an older one changes nothing.
    pub fn raise(&self, time: Timestamp) -> Result<(), IdentityError> {
        let mut state = self.lock();
        if state.floor.is_some_and(|floor| time <= floor) {
            return Ok(());
        }
        let worth_writing = state.floor.is_none_or(|floor| time.duration_since(floor) >= STEP);
        state.floor = Some(time);
        state.learnt = Instant::now();
        if worth_writing {
            write_private(&self.path, format!("{time}\n").as_bytes())?;
        }
        Ok(())
    }

    /// The time as far as this box can know it: the system's, or the floor plus the time since it was learnt if that is later.
    pub fn now(&self) -> Timestamp {
        let system = Timestamp::now();
        self.least().map_or(system, |least| least.max(system))
    }

    /// How far the system clock is behind the least possible time; `None` where it is not.
    pub fn behind(&self) -> Option<SignedDuration> {
        let behind = self.least()?.duration_since(Timestamp::now());
        (behind > SignedDuration::ZERO).then_some(behind)
    }

    /// Whether the system clock can be right: not behind a known floor. Small steps of time services are let through.
    pub fn is_system_clock_trusted(&self) -> bool {
        self.behind().is_none_or(|behind| behind < STEP)
    }

    fn least(&self) -> Option<Timestamp> {
        let state = self.lock();
        let elapsed = SignedDuration::try_from(state.learnt.elapsed()).unwrap_or_default();
        state
            .floor
            .map(|floor| floor.checked_add(elapsed).unwrap_or(floor))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
