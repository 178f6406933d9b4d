//! Leases.

pub(crate) mod convert;
mod server;

pub use server::GrpcLeases;
