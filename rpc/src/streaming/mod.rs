//! Streams of messages that clients open by name.

mod convert;
mod remote;
mod server;

pub use remote::RemoteStreams;
pub use server::GrpcStreams;
