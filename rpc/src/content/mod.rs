//! Content.

pub(crate) mod convert;
mod server;
mod write;

pub use server::GrpcContent;
