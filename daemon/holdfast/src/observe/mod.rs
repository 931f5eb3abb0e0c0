//! Watches what was applied: is it still as it was written, and does it work?
//!
//! In: an [`Observation`] (which objects, of which apps), and the versions that our own writes left. Out: the machine's events
//! `ReadinessChanged` and `DriftDetected`, and the state of each app. It guarantees: only metadata of our own objects is watched; whole
//! objects are asked for one at a time and only where readiness depends on them; a change is called drift exactly when a field that
//! Holdfast wrote is no longer its own, so neither a status nor a neighbour's field ever is.

mod keys;
mod look;
mod observer;
mod table;
mod versions;
mod watches;

pub use observer::{Handle, Observation, Output, Target, spawn};
pub use versions::{Versions, Writing};
