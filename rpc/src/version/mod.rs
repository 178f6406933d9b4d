//! The daemon's version.

mod remote;
mod server;

pub use remote::RemoteVersion;
pub use server::GrpcVersion;
