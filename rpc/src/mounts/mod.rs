//! Mount lists that were activated.

mod convert;
mod remote;
mod server;

pub use remote::RemoteMounts;
pub use server::GrpcMounts;
