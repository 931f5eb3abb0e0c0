//! Boots the operating system image in QEMU and drives it through what a box has: power, a network cable, a serial console, its disk.
//!
//! What comes in: a directory of built images (`HOLDFAST_IMAGES`, which `cargo xtask test --image` sets) and the built hub.
//! What goes out: [`Machine`]s, software-emulated boxes whose console is read as events, and [`Site`]s, a hub on this machine that such a
//! box reaches as `10.0.2.2`. Nothing in the box is made for the test: what happened is asked of the hub, or read on the console.
//!
//! # Power cuts
//! The power is cut by killing QEMU. Disks are qcow2 overlays, whose tables QEMU keeps in its memory until the guest flushes: what the guest wrote
//! to a new place and did not flush is gone after the cut, as on a real disk with a write cache.
//!
//! # Faults of the emulation
//! Software emulation has made guest kernels fault where hardware would not. Such a fault shows on the console ([`console::guest_fault`]); only then, and
//! only where the scenario wants no fault, is it run again, and the output says so ([`scenario::run`]).

pub mod base;
pub mod console;
pub mod datastore;
pub mod disk;
pub mod erofs;
pub mod firmware;
pub mod images;
pub mod machine;
pub mod qmp;
pub mod record;
pub mod scenario;
pub mod site;

pub use console::Console;
pub use datastore::Datastore;
pub use disk::Disk;
pub use images::Images;
pub use machine::{Architecture, Machine, Setup};
pub use site::Site;
