//! The machine below: what is written to its flash, and room that is kept for bad days.
//!
//! In: `/proc`, `/sys`, the state directory. Out: facts for reports, conditions. It guarantees that watching it writes nothing.

mod flash;
mod space;

pub use flash::{Flash, Written};
pub use space::Space;
