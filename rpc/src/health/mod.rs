//! Health, by gRPC's own protocol.

mod server;

pub use server::GrpcHealth;
