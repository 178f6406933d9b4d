//! The client against registries: Debian's, and small servers that are wrong on purpose. All on loopback.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod authorization;
mod blob;
mod docker_registry;
mod encryption;
mod explain;
mod resolve;
mod server;
