//! The behaviour behind each API: store, then events. One file per noun.
//!
//! Each service implements the trait of its noun over a store of the same trait, and publishes what happened after the store
//! has committed it. A client within the daemon uses these very objects; the gRPC plugins only decode and encode around them.
#![forbid(unsafe_code)]

mod containers;
mod content;
mod diff;
mod images;
mod introspection;
mod namespaces;
mod sandbox_controller;
mod snapshots;
mod streams;
mod tasks;

pub use containers::ContainersService;
pub use content::ContentService;
pub use diff::DiffService;
pub use images::ImagesService;
pub use introspection::{IntrospectionService, PluginList};
pub use namespaces::NamespacesService;
pub use sandbox_controller::SandboxControllerService;
pub use snapshots::SnapshotsService;
pub use streams::StreamsService;
pub use tasks::TasksService;
