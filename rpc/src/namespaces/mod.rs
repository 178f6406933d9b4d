//! Namespaces.

pub(crate) mod convert;
mod remote;
mod server;

pub use remote::RemoteNamespaces;
pub use server::GrpcNamespaces;
