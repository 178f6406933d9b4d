//! Controllers of sandboxes, by name.

mod convert;
mod remote;
mod server;

pub use remote::RemoteSandboxController;
pub use server::GrpcSandboxControllers;
