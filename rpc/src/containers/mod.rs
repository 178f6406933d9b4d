//! Containers.

pub(crate) mod convert;
mod remote;
mod server;

pub use remote::RemoteContainers;
pub use server::GrpcContainers;
