//! Images.

pub(crate) mod convert;
mod remote;
mod server;

pub use remote::RemoteImages;
pub use server::GrpcImages;
