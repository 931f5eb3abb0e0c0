//! What the node says of its own working: the log on standard error, and metrics.

pub mod log;
pub mod metrics;
pub mod notify;
