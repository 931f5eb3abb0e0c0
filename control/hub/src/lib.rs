//! The central side of Holdfast: enrolment, releases, signing, status, web page.

pub mod broker;
pub mod codes;
pub mod config;
pub mod database;
pub mod web;
