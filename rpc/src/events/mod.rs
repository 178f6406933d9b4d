//! Events.

pub(crate) mod convert;
mod remote;
mod server;

pub use convert::payload_from_bytes;
pub use remote::RemoteEvents;
pub use server::GrpcEvents;
