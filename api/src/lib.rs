//! The published wire: protocol buffers of containerd's gRPC and ttrpc services, and what is generated from them.
//!
//! The `.proto` files under `proto/` are written from the tables in `tests/data`, one file a package; a test holds the
//! compiled descriptors to the tables. Modules follow the packages: `containerd.services.images.v1` is
//! [`containerd::services::images::v1`]. Conversions to gantry's own types live in `rpc` (gRPC) and `lib/shim` (ttrpc).
#![forbid(unsafe_code)]
#![allow(clippy::all, rustdoc::all)]

include!(concat!(env!("OUT_DIR"), "/packages.rs"));

/// The compiled descriptors of every `.proto` file, encoded.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Source: the registered names of the well-known types are kept as they are on the wire.
pub use prost_types::{Any, FieldMask, Timestamp};
