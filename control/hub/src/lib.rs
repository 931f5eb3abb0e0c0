//! The central side of Holdfast: enrolment, releases, signing, status, web page.

pub mod authority;
pub mod broker;
pub mod codes;
pub mod config;
pub mod database;
mod files;
pub mod hub;
mod ingest;
pub mod limiter;
pub mod metrics;
pub mod publisher;
pub mod web;
