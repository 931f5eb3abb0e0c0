//! The central side of Holdfast: enrolment, releases, signing, status, web page.

pub mod broker;
pub mod config;
pub mod web;
