//! ttrpc, the protocol between a container daemon and its shims, both ends, over Unix sockets.
//!
//! It frames requests, answers and streams on one connection, carries deadlines and metadata, and turns
//! `gantry_core::Error` into a status and back. It knows no service: what a method means is left to whoever
//! implements [`Service`] or calls through [`Client`]. Start with those two.
//!
//! Everything a peer sends is taken as hostile: frames are bounded, memory grows only with bytes that arrived,
//! and a bad frame costs its sender an error, never the process.
#![forbid(unsafe_code)]

pub mod client;
pub mod context;
pub mod frame;
pub mod message;
pub mod metadata;
pub mod server;
pub mod service;
pub mod socket;
pub mod stream;

mod connection;
mod outgoing;

pub use client::{CallOptions, Client};
pub use context::CallContext;
pub use metadata::Metadata;
pub use server::{Server, ServerConfig};
pub use service::{Reply, Service};
pub use stream::{ClientStream, ServerStream};
