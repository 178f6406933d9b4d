//! Sandboxes.

pub(crate) mod convert;
mod server;

pub use server::GrpcSandboxes;
