//! Leases.

pub(crate) mod convert;
mod remote;
mod server;

pub use remote::RemoteLeases;
pub use server::GrpcLeases;
