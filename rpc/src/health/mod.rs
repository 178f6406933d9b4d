//! Health, by gRPC's own protocol.

mod remote;
mod server;

pub use remote::RemoteHealth;
pub use server::GrpcHealth;
