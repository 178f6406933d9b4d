//! Sandboxes.

pub(crate) mod convert;
mod remote;
mod server;

pub use remote::RemoteSandboxes;
pub use server::GrpcSandboxes;
