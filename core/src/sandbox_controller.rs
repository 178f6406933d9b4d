//! Running sandboxes: what the store ([`crate::sandboxes`]) only writes down, a controller makes, begins and ends.
//!
//! ```text
//!   create ──▶ created ──start──▶ ready ──stop, or by itself──▶ ended ──shutdown──▶ (nothing)
//! ```
//!
//! A daemon has controllers by name; a sandbox belongs to the one in its `sandboxer`. The one named `shim` asks the shim
//! of the sandbox's runtime.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::mount::Mount;
use crate::platforms::Platform;
use crate::sandboxes::Sandbox;
use crate::tasks::Metric;
use crate::{Any, Context, Result};

/// Makes a sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSandbox {
    /// The sandbox; its runtime says what runs it. Times in it are not looked at.
    pub sandbox: Sandbox,
    /// Its root file system's mounts; empty means none.
    pub rootfs: Vec<Mount>,
    /// Options for the controller.
    pub options: Option<Any>,
    /// The path of its network namespace; may be empty.
    pub netns: String,
    /// Notes of the caller's, for the controller.
    pub annotations: BTreeMap<String, String>,
}

/// A sandbox that began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SandboxInstance {
    /// Its id.
    pub id: String,
    /// Its process, or 0.
    pub pid: u32,
    /// When it began; `None` if the controller does not say.
    pub created_at: Option<SystemTime>,
    /// Labels of the controller's.
    pub labels: BTreeMap<String, String>,
    /// Where its tasks are served, `<protocol>+<socket>`; may be empty.
    pub address: String,
    /// The version of the task protocol there.
    pub version: u32,
    /// What became of its specification.
    pub spec: Option<Any>,
}

/// What a sandbox does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SandboxStatus {
    /// Its id.
    pub id: String,
    /// Its process, or 0.
    pub pid: u32,
    /// `SANDBOX_READY`, `SANDBOX_NOTREADY`, or a name of the controller's; empty for a sandbox that nobody runs.
    pub state: String,
    /// What a verbose answer adds.
    pub info: BTreeMap<String, String>,
    /// When it began.
    pub created_at: Option<SystemTime>,
    /// When it ended; the epoch, as the original has it, while it has not.
    pub exited_at: Option<SystemTime>,
    /// More of it.
    pub extra: Option<Any>,
    /// As in [`SandboxInstance`].
    pub address: String,
    /// As in [`SandboxInstance`].
    pub version: u32,
}

/// How a sandbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxExit {
    /// Its exit status.
    pub status: u32,
    /// When it ended.
    pub exited_at: SystemTime,
}

/// Runs sandboxes, by namespace and id.
#[async_trait]
pub trait SandboxController: Send + Sync {
    /// Makes a sandbox, which does not run yet.
    ///
    /// # Errors
    /// `AlreadyExists`; `Unknown` for an unknown runtime and what it refuses. Nothing is left behind.
    async fn create(&self, cx: &Context, new: NewSandbox) -> Result<()>;

    /// Begins it.
    ///
    /// # Errors
    /// `Unknown` if there is no such sandbox, as in the original; otherwise those of the runtime. A sandbox whose first start
    /// fails is gone.
    async fn start(&self, cx: &Context, id: &str) -> Result<SandboxInstance>;

    /// What it runs on.
    ///
    /// # Errors
    /// `NotFound`.
    async fn platform(&self, cx: &Context, id: &str) -> Result<Platform>;

    /// Ends it and what runs in it, giving that `patience`; zero leaves it to the controller. One that is not there has ended.
    ///
    /// # Errors
    /// `DeadlineExceeded` if it does not end in time.
    async fn stop(&self, cx: &Context, id: &str, patience: Duration) -> Result<()>;

    /// Waits until it has ended; at once if it has.
    ///
    /// # Errors
    /// `NotFound`.
    async fn wait(&self, cx: &Context, id: &str) -> Result<SandboxExit>;

    /// What it does. One that is not there has no state, and ended now.
    ///
    /// # Errors
    /// Those of asking.
    async fn status(&self, cx: &Context, id: &str, verbose: bool) -> Result<SandboxStatus>;

    /// Removes it, whatever it does, with all that it needed.
    ///
    /// # Errors
    /// `NotFound`.
    async fn shutdown(&self, cx: &Context, id: &str) -> Result<()>;

    /// Its figures, if it has any.
    ///
    /// # Errors
    /// `NotFound`.
    async fn metrics(&self, cx: &Context, id: &str) -> Result<Option<Metric>>;

    /// Tells the controller that the parts of its record that `fields` name have changed to those in `changed`.
    ///
    /// # Errors
    /// Those of the controller.
    async fn update(&self, cx: &Context, id: &str, changed: Sandbox, fields: Vec<String>) -> Result<()>;
}
