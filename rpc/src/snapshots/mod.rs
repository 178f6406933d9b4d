//! Snapshots.

pub(crate) mod convert;
mod remote;
mod server;

pub use remote::RemoteSnapshotter;
pub use server::GrpcSnapshots;
