//! What the tests of the operator's side need beside the harness: a browser, and a node that reports whatever a test wants shown.

pub mod browser;
pub mod operator;
pub mod reporter;
