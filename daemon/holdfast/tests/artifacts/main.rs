//! Artifacts from real servers: a hub with client certificates, web servers that cut, lie and redirect, a proxy, Debian's docker-registry.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod disk;
mod killed;
mod registry;
mod sources;
mod support;
