//! The daemon's version.

mod server;

pub use server::GrpcVersion;
