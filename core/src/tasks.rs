//! Tasks: the running instances of containers, and the processes in them.
//!
//! A task is made by [`TaskManager::create`] (state created), begins with [`TaskManager::start`], ends by itself or by
//! [`TaskManager::kill`], and is there, stopped, until [`TaskManager::delete`]. Further processes (execs) go the same way
//! under an exec id; without exec id a call means the init process.

use std::time::SystemTime;

use async_trait::async_trait;

use crate::mount::Mount;
use crate::{Any, Context, Descriptor, ExecId, Result};

/// The state of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TaskStatus {
    /// Nobody knows.
    #[default]
    Unknown,
    /// Made, not begun.
    Created,
    /// Running.
    Running,
    /// Ended.
    Stopped,
    /// Frozen.
    Paused,
    /// Being frozen.
    Pausing,
}

/// Where a process's input comes from and its output goes: paths of fifos, or URLs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskIo {
    /// Standard input; empty means none.
    pub stdin: String,
    /// Standard output; empty means nowhere.
    pub stdout: String,
    /// Standard error; empty means nowhere, and always so with a terminal.
    pub stderr: String,
    /// Whether the process gets a terminal.
    pub terminal: bool,
}

/// A process and its state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessRecord {
    /// The container's id, empty for the init process in answers of the task service.
    pub container_id: String,
    /// The process's id: the container's for the init process, the exec id otherwise.
    pub id: String,
    /// Its process id in the daemon's pid namespace.
    pub pid: u32,
    /// Its state.
    pub status: TaskStatus,
    /// Its input and output.
    pub io: TaskIo,
    /// Its exit status; meaningful once stopped.
    pub exit_status: u32,
    /// When it ended.
    pub exited_at: Option<SystemTime>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq)]
pub struct ExitRecord {
    /// The process's id, as in [`ProcessRecord::id`]; empty in the answer of a wait.
    pub id: String,
    /// Its process id; 0 in the answer of a wait.
    pub pid: u32,
    /// Its exit code, or 128 and the signal's number.
    pub status: u32,
    /// When it ended.
    pub exited_at: SystemTime,
}

/// Makes a task.
#[derive(Clone, Debug, Default)]
pub struct CreateTask {
    /// The container, whose record says runtime and spec.
    pub container_id: String,
    /// The root file system's mounts; empty means: the spec's root as it is.
    pub rootfs: Vec<Mount>,
    /// Input and output of the init process.
    pub io: TaskIo,
    /// A checkpoint to restore from.
    pub checkpoint: Option<Descriptor>,
    /// Options for the runtime; without them those of the container's record count.
    pub options: Option<Any>,
    /// The shim binary, overruling the one that the runtime's name means.
    pub runtime_path: String,
}

/// Adds a process to a task.
#[derive(Clone, Debug)]
pub struct ExecTask {
    /// The container.
    pub container_id: String,
    /// The new process's id.
    pub exec_id: ExecId,
    /// Its input and output.
    pub io: TaskIo,
    /// The OCI `process` as JSON.
    pub spec: Any,
}

/// A process within a task's cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessInfo {
    /// Its process id.
    pub pid: u32,
    /// What the runtime says about it, for example which exec it is.
    pub info: Option<Any>,
}

/// Figures of one task.
#[derive(Clone, Debug)]
pub struct Metric {
    /// When they were read.
    pub timestamp: SystemTime,
    /// The container's id.
    pub id: String,
    /// The figures: cgroup v1 or v2 metrics.
    pub data: Option<Any>,
}

/// Everything that can be done with tasks, by container id and, where a process is meant, by exec id (empty: init).
#[async_trait]
pub trait TaskManager: Send + Sync {
    /// Makes the task of a container and gives the init process's pid.
    ///
    /// # Errors
    /// `NotFound` for the container; `AlreadyExists` if it has a task; `Unknown` for what the runtime refuses.
    async fn create(&self, cx: &Context, new: CreateTask) -> Result<u32>;

    /// Begins a created process and gives its pid.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` in any other state than created, or if the runtime fails.
    async fn start(&self, cx: &Context, container_id: &str, exec_id: &str) -> Result<u32>;

    /// Deletes a stopped process; without exec id the whole task.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` while it runs.
    async fn delete(&self, cx: &Context, container_id: &str, exec_id: &str) -> Result<ExitRecord>;

    /// The state of a process.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get(&self, cx: &Context, container_id: &str, exec_id: &str) -> Result<ProcessRecord>;

    /// Every task of the namespace.
    ///
    /// # Errors
    /// Only those of the store; a shim that does not answer is left out or shown as unknown.
    async fn list(&self, cx: &Context) -> Result<Vec<ProcessRecord>>;

    /// Sends a signal; with `all` to every process of the container.
    ///
    /// # Errors
    /// `NotFound` if it has ended; `FailedPrecondition` for an exec that has not begun.
    async fn kill(
        &self,
        cx: &Context,
        container_id: &str,
        exec_id: &str,
        signal: u32,
        all: bool,
    ) -> Result<()>;

    /// Adds a process; it begins with [`TaskManager::start`].
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists` for its id; `InvalidArgument` for a bad spec.
    async fn exec(&self, cx: &Context, new: ExecTask) -> Result<()>;

    /// Sets the size of a process's terminal, in characters.
    ///
    /// # Errors
    /// `NotFound`.
    async fn resize_pty(
        &self,
        cx: &Context,
        container_id: &str,
        exec_id: &str,
        width: u32,
        height: u32,
    ) -> Result<()>;

    /// Closes a process's standard input, if `stdin` says so.
    ///
    /// # Errors
    /// `NotFound`.
    async fn close_io(&self, cx: &Context, container_id: &str, exec_id: &str, stdin: bool) -> Result<()>;

    /// Freezes a task.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` unless it runs.
    async fn pause(&self, cx: &Context, container_id: &str) -> Result<()>;

    /// Thaws a task.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` unless it is paused.
    async fn resume(&self, cx: &Context, container_id: &str) -> Result<()>;

    /// The processes in a task's cgroup.
    ///
    /// # Errors
    /// `NotFound`.
    async fn pids(&self, cx: &Context, container_id: &str) -> Result<Vec<ProcessInfo>>;

    /// Writes a checkpoint of a task and gives the descriptors of its parts.
    ///
    /// # Errors
    /// `NotFound`; `Unimplemented` if the runtime cannot.
    async fn checkpoint(
        &self,
        cx: &Context,
        container_id: &str,
        options: Option<Any>,
    ) -> Result<Vec<Descriptor>>;

    /// Changes a task's resources (OCI `resources` as JSON).
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument`.
    async fn update(
        &self,
        cx: &Context,
        container_id: &str,
        resources: Option<Any>,
        annotations: std::collections::BTreeMap<String, String>,
    ) -> Result<()>;

    /// The figures of the tasks that any of `filters` (on `id` and `namespace`) matches.
    ///
    /// # Errors
    /// `Unknown` for a filter that does not parse.
    async fn metrics(&self, cx: &Context, filters: &[String]) -> Result<Vec<Metric>>;

    /// Waits until a process has ended; at once if it has.
    ///
    /// # Errors
    /// `NotFound`.
    async fn wait(&self, cx: &Context, container_id: &str, exec_id: &str) -> Result<ExitRecord>;
}

/// What the runtime side needs to make a task: the container's record, already read.
#[derive(Clone, Debug)]
pub struct RuntimeCreate {
    /// The container's id.
    pub id: String,
    /// The OCI runtime specification as JSON.
    pub spec: Option<Any>,
    /// The runtime's name, for example `io.containerd.runc.v2`.
    pub runtime: String,
    /// The shim binary, overruling the one that the runtime's name means; may be empty.
    pub runtime_path: String,
    /// Options for the runtime.
    pub options: Option<Any>,
    /// The sandbox the container belongs to; may be empty.
    pub sandbox_id: String,
    /// The root file system's mounts.
    pub rootfs: Vec<Mount>,
    /// Input and output of the init process.
    pub io: TaskIo,
    /// A directory with a checkpoint to restore from; may be empty.
    pub checkpoint: String,
}

/// The runtime side: shims and their tasks, seen from the daemon. It reads no container records; [`TaskManager`]'s
/// implementation does, and everything but `create` goes through unchanged.
#[async_trait]
pub trait TaskRuntime: Send + Sync {
    /// Makes a task, starting a shim if need be, and gives the init process's pid.
    ///
    /// # Errors
    /// `AlreadyExists`; `Unknown` for an unknown runtime, a bad spec or what the runtime refuses. Nothing is left behind.
    async fn create(&self, cx: &Context, new: RuntimeCreate) -> Result<u32>;

    /// See [`TaskManager::start`].
    ///
    /// # Errors
    /// As there.
    async fn start(&self, cx: &Context, id: &str, exec_id: &str) -> Result<u32>;

    /// See [`TaskManager::delete`].
    ///
    /// # Errors
    /// As there.
    async fn delete(&self, cx: &Context, id: &str, exec_id: &str) -> Result<ExitRecord>;

    /// See [`TaskManager::get`].
    ///
    /// # Errors
    /// As there.
    async fn get(&self, cx: &Context, id: &str, exec_id: &str) -> Result<ProcessRecord>;

    /// The tasks of the namespace, or of all namespaces if the context names none.
    ///
    /// # Errors
    /// Those of asking.
    async fn list(&self, cx: &Context) -> Result<Vec<ProcessRecord>>;

    /// See [`TaskManager::kill`].
    ///
    /// # Errors
    /// As there.
    async fn kill(&self, cx: &Context, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<()>;

    /// See [`TaskManager::exec`].
    ///
    /// # Errors
    /// As there.
    async fn exec(&self, cx: &Context, new: ExecTask) -> Result<()>;

    /// See [`TaskManager::resize_pty`].
    ///
    /// # Errors
    /// As there.
    async fn resize_pty(&self, cx: &Context, id: &str, exec_id: &str, width: u32, height: u32) -> Result<()>;

    /// See [`TaskManager::close_io`].
    ///
    /// # Errors
    /// As there.
    async fn close_io(&self, cx: &Context, id: &str, exec_id: &str, stdin: bool) -> Result<()>;

    /// See [`TaskManager::pause`].
    ///
    /// # Errors
    /// As there.
    async fn pause(&self, cx: &Context, id: &str) -> Result<()>;

    /// See [`TaskManager::resume`].
    ///
    /// # Errors
    /// As there.
    async fn resume(&self, cx: &Context, id: &str) -> Result<()>;

    /// See [`TaskManager::pids`].
    ///
    /// # Errors
    /// As there.
    async fn pids(&self, cx: &Context, id: &str) -> Result<Vec<ProcessInfo>>;

    /// Writes a checkpoint into the directory `path`.
    ///
    /// # Errors
    /// `NotFound`; `Unimplemented` if the runtime cannot.
    async fn checkpoint(
        &self,
        cx: &Context,
        id: &str,
        path: &std::path::Path,
        options: Option<Any>,
    ) -> Result<()>;

    /// See [`TaskManager::update`].
    ///
    /// # Errors
    /// As there.
    async fn update(
        &self,
        cx: &Context,
        id: &str,
        resources: Any,
        annotations: std::collections::BTreeMap<String, String>,
    ) -> Result<()>;

    /// The figures of one task.
    ///
    /// # Errors
    /// `NotFound`.
    async fn stats(&self, cx: &Context, id: &str) -> Result<Option<Any>>;

    /// See [`TaskManager::wait`].
    ///
    /// # Errors
    /// As there.
    async fn wait(&self, cx: &Context, id: &str, exec_id: &str) -> Result<ExitRecord>;

    /// What a runtime tells about itself (`containerd.types.RuntimeInfo`, encoded), from `containerd.types.RuntimeRequest`.
    ///
    /// # Errors
    /// `NotFound` for an unknown runtime.
    async fn runtime_info(&self, cx: &Context, request: Option<Any>) -> Result<Any>;
}
