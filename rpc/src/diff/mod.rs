//! Diffs.

mod server;

pub use server::GrpcDiff;
