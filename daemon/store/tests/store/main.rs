//! The store against real files: crashes, full and read-only disks, damage.

// Helpers outside of test functions are test code as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod blobs;
mod crash;
mod damage;
mod desired;
mod disk;
mod files;
mod inventory;
mod journal;
mod migration;
mod outbox;
mod support;
