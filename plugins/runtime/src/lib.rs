//! Bundles, shims and tasks, seen from the daemon.
//!
//! [`ShimTasks`] makes a bundle for a container, starts the shim that its runtime's name means, and passes calls on to it.
//! Shims outlive the daemon: [`ShimTasks::recover`] finds them again. What a shim can no longer do because it died, this
//! crate does in its place: cleaning up, and telling of the end, once.
//!
//! [`ShimSandboxes`] does the same for sandboxes, whose shims then serve the tasks of the sandbox too.
//!
//! Container records are not read here, and how a container is made is the shim's business.
#![forbid(unsafe_code)]

mod bootstrap;
mod bundle;
mod calls;
mod config;
mod dead_shim;
mod events;
mod jobs;
mod ledger;
mod log;
mod manager;
mod recovery;
mod rootfs;
mod sandbox;
mod sandbox_calls;
mod sandboxes;
mod shim_binary;
mod task;
mod waits;

pub use config::{ShimTasksConfig, Timeouts};
pub use events::{EVENTS_SERVICE, ForwardedEvents};
pub use manager::ShimTasks;
pub use sandboxes::{SandboxShims, ShimSandboxes};
