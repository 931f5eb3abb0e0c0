//! The Holdfast node: one binary that runs Kubernetes on a box nobody can walk up to.
//!
//! Modules in the order in which data flows:
//!
//! ```text
//! settings → identity → enrol → sync → (admission, in core) → reconcile → kubernetes, apply → observe → report → sync
//!                                                                  local_api, cli, doctor, telemetry look at all of it
//! ```
//!
//! [`settings`] and [`identity`] are read by `main`, which then runs `node::run` with a receiver of the identity: the renewal of the
//! certificate sends a new one, and the link takes it at its next connect.

// The frame: how the process starts, who it is, and how a person talks to it.
pub mod boots;
pub mod cli;
pub mod codes;
pub mod console;
pub mod daemon;
pub mod degraded;
pub mod doctor;
pub mod enrol;
pub mod health;
mod http_exchange;
pub mod identity;
pub mod local_api;
pub mod personal;
pub mod reset;
pub mod settings;
pub mod telemetry;

// The engine: what the daemon does once it is enrolled.
pub mod apply;
pub mod artifacts;
pub mod failpoint;
pub mod foresee;
pub mod images;
pub mod kubernetes;
pub mod machine;
pub mod node;
pub mod observe;
pub mod os;
pub mod pace;
pub mod preflight;
pub mod probe;
pub mod quiet;
pub mod reconcile;
pub mod report;
pub mod sealed;
pub mod seed;
pub mod sync;
