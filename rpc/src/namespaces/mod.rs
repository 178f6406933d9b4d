//! Namespaces.

pub(crate) mod convert;
mod server;

pub use server::GrpcNamespaces;
