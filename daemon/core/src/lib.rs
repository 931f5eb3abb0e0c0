//! Pure decisions of the Holdfast node: events in, effects out.
//!
//! What comes in: bytes of documents, Kubernetes objects as JSON, results of work, times and random numbers as plain values.
//! What goes out: verified documents, plans, effects to carry out, problems in words.
//! What it guarantees: no IO, no clock, no randomness, no thread. The same input gives the same output, so all of it can be
//! tested, replayed and simulated.
//!
//! In the order of the data flow: [`admission`] decides whether a document may have any effect, [`object`] makes its
//! Kubernetes objects ready to apply, [`plan`] compares them with what is there, [`reconcile`] drives the way of the document
//! through the node, [`failure`] judges what the API server answers, [`readiness`] says when an object does its work.
//! [`window`] says when changes may begin. [`backoff`] and [`clock`] turn given random numbers and times into delays and trustworthy times.

pub mod admission;
pub mod backoff;
pub mod clock;
pub mod codes;
pub mod failure;
pub mod object;
pub mod plan;
pub mod readiness;
pub mod reconcile;
pub mod window;
