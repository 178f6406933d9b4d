//! Looking after the store: a service of gantry's own.

pub(crate) mod convert;
mod remote;
mod server;

pub use remote::RemoteMaintenance;
pub use server::GrpcMaintenance;
