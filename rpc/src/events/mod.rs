//! Events.

pub(crate) mod convert;
mod remote;
mod server;

pub use remote::RemoteEvents;
pub use server::GrpcEvents;
