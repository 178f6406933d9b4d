//! Diffs.

mod remote;
mod server;

pub use remote::RemoteDiff;
pub use server::GrpcDiff;
