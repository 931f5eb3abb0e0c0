//! Writes a document's objects to Kubernetes, and removes those that left it.
//!
//! In: prepared objects, the inventory. Out: the cluster as the document says, an updated inventory, and a
//! [`holdfast_core::failure::Failure`] for each object that could not be written. It guarantees: waves in order, at most the set number
//! of writes at once, definitions established before their objects, an inventory that names every object before it can exist, no write
//! for an object that is as it was applied, and no delete before everything else is written.

mod established;
mod objects;
mod run;
mod write;

pub use objects::Objects;
pub use run::{Records, Run, records};
pub use write::Writer;
pub(crate) use write::bounded;
