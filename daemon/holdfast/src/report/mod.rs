//! What the node tells the hub: events in order, and a status of which the latest wins.
//!
//! In: what the machine, Kubernetes, the observer and the store say. Out: rows of the outbox, and status reports made at the moment they are
//! sent. It guarantees that a status is never older than its sending, that nothing is sent when nothing changed (but for a rare heartbeat),
//! and that reporting writes nothing to the disk but events.

mod conditions;
mod live;
mod recorder;
mod status;

pub use conditions::Conditions;
pub use live::{Activity, ApplyProgress, Live};
pub use recorder::{News, Recorder};
pub(crate) use status::agent;
pub use status::{Progress, Reporter};
