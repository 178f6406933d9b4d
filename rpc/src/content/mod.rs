//! Content.

pub(crate) mod convert;
mod remote;
mod server;
mod write;

pub use remote::RemoteContentStore;
pub use server::GrpcContent;
