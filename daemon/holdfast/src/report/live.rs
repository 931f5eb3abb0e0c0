//! How much of the present phase is done: known on the box at any moment, sent to nobody by itself.
//!
//! In: counters that the work keeps. Out: a [`PhaseProgress`] for whoever looks. It guarantees that counting costs no message, no write and
//! no timer.

use crate::artifacts::FetchProgress;
use holdfast_protocol::report::{AppStatus, Health, PhaseProgress};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::watch;

/// What is being done for a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Blobs and artifacts are fetched.
    Fetching,
    /// Objects are written.
    Applying,
    /// Apps are waited for.
    Verifying,
}

/// Objects of the run that writes a document.
#[derive(Debug, Default)]
pub struct ApplyProgress {
    done: AtomicU64,
    total: AtomicU64,
}

impl ApplyProgress {
    /// A run begins: so many objects, so many of which are as they should be already.
    pub fn begin(&self, total: usize, done: usize) {
        self.done.store(done as u64, Ordering::Relaxed);
        self.total.store(total as u64, Ordering::Relaxed);
    }

    /// One more is written.
    pub fn advance(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The counters of all kinds of work.
#[derive(Clone, Debug)]
pub struct Live {
    /// Of fetching.
    pub fetch: watch::Receiver<FetchProgress>,
    /// Of writing.
    pub apply: Arc<ApplyProgress>,
}

impl Live {
    /// How much of `activity` is done; none where nothing is counted yet.
    pub fn progress(&self, activity: Activity, apps: &[AppStatus]) -> Option<PhaseProgress> {
        let (done, total, unit) = match activity {
            Activity::Fetching => {
                let fetch = self.fetch.borrow();
                (fetch.done, fetch.total, "bytes")
            }
            Activity::Applying => (
                self.apply.done.load(Ordering::Relaxed),
                self.apply.total.load(Ordering::Relaxed),
                "objects",
            ),
            Activity::Verifying => {
                let healthy = apps.iter().filter(|app| app.health == Health::Healthy);
                (healthy.count() as u64, apps.len() as u64, "apps")
            }
        };
        (total > 0).then(|| PhaseProgress {
            done: done.min(total),
            total,
            unit: unit.into(),
        })
    }
}
