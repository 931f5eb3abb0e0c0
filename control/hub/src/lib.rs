//! The central side of Holdfast: enrolment, releases, signing, status, web page.
//!
//! [`run::run`] is the composition root; [`hub::Hub`] is what its parts share.

pub mod api;
pub mod authority;
mod blobs;
pub mod broker;
pub mod codes;
pub mod config;
pub mod database;
mod enrolment;
mod files;
pub mod hub;
mod ingest;
pub mod limiter;
pub mod metrics;
mod names;
mod publisher;
mod releases;
mod render;
mod renewal;
pub mod restore;
pub mod run;
mod sealing;
mod selector;
mod server;
mod tls;
mod uploads;
pub mod web;
