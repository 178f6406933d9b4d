//! The shim protocol's messages that a daemon writes and reads itself: a shim's boot, and the events that it forwards.

pub use gantry_api::containerd::runtime::bootstrap::v1::{BootstrapParams, Extension, LogLevel};
pub use gantry_api::containerd::services::events::ttrpc::v1::ForwardRequest;
pub use gantry_api::containerd::task::v3::DeleteResponse;
pub use gantry_api::containerd::types::{RuntimeInfo, RuntimeRequest};
