//! Introspection.

pub(crate) mod convert;
mod remote;
mod server;

pub use remote::RemoteIntrospection;
pub use server::GrpcIntrospection;
