//! The exchange of the operating system as a whole: the real daemon on a real partition table, with a real systemd to restart it and a real
//! Kubernetes. Of a machine, only firmware and kernel are missing: what systemd-boot does to names, the board of these tests does.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::panic)]

#[path = "../os/appliance.rs"]
#[allow(dead_code)]
mod appliance;
mod board;
#[path = "../engine_support/mod.rs"]
mod engine_support;
mod exchange;
mod killed;
#[path = "../artifacts/support.rs"]
#[allow(dead_code)]
mod support;
