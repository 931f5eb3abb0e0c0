//! What goes over the wire, held against files that never change by accident.

// Helpers outside of test functions are test code as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod document;
mod envelope;
mod forms;
mod golden;
mod limits;
mod token;
mod topic;
