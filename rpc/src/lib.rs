//! The gRPC wire, both ends, one folder per service.
//!
//! Each folder holds `convert.rs` (our types and the generated ones, both ways), `server.rs` (`Grpc<Noun>`: decode, call,
//! encode, nothing else) and `remote.rs` (`Remote<Noun>`: the same core trait over a channel). [`Services`] names what a
//! daemon offers and makes routes of it, [`serve`] answers on a Unix socket, [`connect`] reaches one.
//!
//! What a call does is left to the traits of `gantry_core`; the shim protocol's conversions are in `lib/shim`.
#![forbid(unsafe_code)]

mod any;
mod call;
mod connect;
mod descriptor;
mod edge;
mod field_mask;
mod incoming;
mod jobs;
mod message;
mod mount;
mod platform;
mod remote;
mod serve;
mod services;
mod status;
mod timestamp;

pub mod containers;
pub mod content;
pub mod diff;
pub mod events;
pub mod health;
pub mod images;
pub mod introspection;
pub mod leases;
pub mod maintenance;
pub mod mounts;
pub mod namespaces;
pub mod sandbox_controllers;
pub mod sandboxes;
pub mod snapshots;
pub mod streaming;
pub mod tasks;
pub mod version;

pub use connect::connect;
pub use jobs::{JobLimits, JobSet};
pub use message::MAX_MESSAGE_BYTES;
pub use serve::serve;
pub use services::Services;
pub use status::{from_status, to_status};
