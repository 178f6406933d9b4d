//! Tasks.

pub(crate) mod convert;
mod remote;
mod server;

pub use remote::RemoteTasks;
pub use server::GrpcTasks;
