//! Images of the operating system on real disks with real partition tables, from real servers.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::panic)]

mod appliance;
mod back;
mod counted;
mod killed;
mod memory;
mod refused;
mod staged;
#[path = "../artifacts/support.rs"]
#[allow(dead_code)]
mod support;
