//! The shim protocol's messages that a daemon writes and reads itself: a shim's boot, the events that it forwards, and the figures
//! of cgroups.

pub use gantry_api::containerd::runtime::bootstrap::v1::{BootstrapParams, Extension, LogLevel};
pub use gantry_api::containerd::services::events::ttrpc::v1::ForwardRequest;
pub use gantry_api::containerd::task::v3::DeleteResponse;
pub use gantry_api::containerd::types::{RuntimeInfo, RuntimeRequest};
pub use gantry_api::io::containerd::cgroups;
