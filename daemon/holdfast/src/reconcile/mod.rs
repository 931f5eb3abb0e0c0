//! Drives the core's machine: takes documents in, carries effects out, brings their results back.
//!
//! In: documents that passed admission, orders of a person at the box, the state of Kubernetes, results of work. Out: writes to Kubernetes
//! and to the store, reports. It guarantees that effects are carried out in the order in which the machine gives them, that what is
//! journalled is on the disk before the next effect, and that a start goes on from there before any network is asked.

mod clock;
mod driver;
mod gate;
mod intake;
pub mod orders;
pub mod system;

pub use driver::{Driver, Parts};
pub use intake::Intake;
