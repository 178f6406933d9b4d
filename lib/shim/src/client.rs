//! The daemon's half: calling a shim's task service.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use gantry_api::containerd::task::v3 as wire;
use gantry_core::tasks::{ExecTask, ExitRecord, ProcessInfo, ProcessRecord};
use gantry_core::{Any, Result, wire_names};
use gantry_ttrpc::{CallOptions, Client, Metadata};
use prost::Message;

use crate::convert::{self, ShimCreate};

/// Which name of the task service a shim answers to. The messages are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskVersion {
    /// `containerd.task.v2.Task`.
    Two,
    /// `containerd.task.v3.Task`.
    #[default]
    Three,
}

impl TaskVersion {
    /// The version that a shim's start answered. Source: features I10.
    ///
    /// # Errors
    /// `Unimplemented` for another version.
    pub fn from_bootstrap(version: i32) -> Result<TaskVersion> {
        match version {
            2 => Ok(TaskVersion::Two),
            3 => Ok(TaskVersion::Three),
            // Source: the original's text.
            other => Err(gantry_core::Error::unimplemented(format!("unsupported shim version ({other})"))),
        }
    }

    /// The service's name. Source: `containerd.task.v2`, `containerd.task.v3`.
    pub fn service(self) -> &'static str {
        match self {
            TaskVersion::Two => "containerd.task.v2.Task",
            TaskVersion::Three => "containerd.task.v3.Task",
        }
    }
}

/// Who a shim and its task are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// The shim's process id.
    pub shim_pid: u32,
    /// The init process's id.
    pub task_pid: u32,
    /// What the shim calls its version; mostly empty.
    pub version: String,
}

/// Calls one shim. Clones share the connection.
#[derive(Clone, Debug)]
pub struct TaskClient {
    client: Client,
    version: TaskVersion,
    namespace: String,
    timeout: Option<Duration>,
}

impl TaskClient {
    /// A client of the shim listening at `path`, acting in `namespace`. Each call but [`TaskClient::wait`] gives up
    /// after `timeout`.
    ///
    /// # Errors
    /// `NotFound` if there is no such socket; `Unavailable` if nobody listens there.
    pub async fn connect(
        path: &Path,
        version: TaskVersion,
        namespace: &str,
        timeout: Option<Duration>,
    ) -> Result<TaskClient> {
        Ok(Self::new(Client::connect(path).await?, version, namespace, timeout))
    }

    /// A client on an existing connection.
    pub fn new(
        client: Client,
        version: TaskVersion,
        namespace: &str,
        timeout: Option<Duration>,
    ) -> TaskClient {
        TaskClient { client, version, namespace: namespace.to_owned(), timeout }
    }

    /// The connection, for other services of the same shim.
    pub fn connection(&self) -> &Client {
        &self.client
    }

    /// The same client with another deadline for its calls.
    #[must_use]
    pub fn with_timeout(&self, timeout: Option<Duration>) -> TaskClient {
        TaskClient { timeout, ..self.clone() }
    }

    async fn call<Q: Message, P: Message + Default>(&self, method: &str, request: Q) -> Result<P> {
        self.call_within(method, request, self.timeout).await
    }

    async fn call_within<Q: Message, P: Message + Default>(
        &self,
        method: &str,
        request: Q,
        timeout: Option<Duration>,
    ) -> Result<P> {
        let metadata = Metadata::new().with(wire_names::TTRPC_NAMESPACE_HEADER, &self.namespace);
        self.client.call(self.version.service(), method, &request, CallOptions { timeout, metadata }).await
    }

    async fn order<Q: Message>(&self, method: &str, request: Q) -> Result<()> {
        self.call::<Q, ()>(method, request).await
    }

    /// The state of a process, by exec id (empty: init).
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` if the shim is gone; `DeadlineExceeded`. The same two hold for every call.
    pub async fn state(&self, id: &str, exec_id: &str) -> Result<ProcessRecord> {
        let request = wire::StateRequest { id: id.into(), exec_id: exec_id.into() };
        Ok(convert::state_from_proto(id, self.call("State", request).await?))
    }

    /// Makes the task and gives its pid.
    ///
    /// # Errors
    /// `AlreadyExists`; `Unknown` for what the runtime refuses.
    pub async fn create(&self, new: ShimCreate) -> Result<u32> {
        let made: wire::CreateTaskResponse = self.call("Create", convert::create_to_proto(new)).await?;
        Ok(made.pid)
    }

    /// Begins a created process and gives its pid.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` in any other state than created, or if the runtime fails.
    pub async fn start(&self, id: &str, exec_id: &str) -> Result<u32> {
        let request = wire::StartRequest { id: id.into(), exec_id: exec_id.into() };
        let started: wire::StartResponse = self.call("Start", request).await?;
        Ok(started.pid)
    }

    /// Deletes a stopped process.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` while it runs.
    pub async fn delete(&self, id: &str, exec_id: &str) -> Result<ExitRecord> {
        let request = wire::DeleteRequest { id: id.into(), exec_id: exec_id.into() };
        let named = if exec_id.is_empty() { id } else { exec_id };
        Ok(convert::delete_from_proto(named, self.call("Delete", request).await?))
    }

    /// The processes of the task.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn pids(&self, id: &str) -> Result<Vec<ProcessInfo>> {
        let found: wire::PidsResponse = self.call("Pids", wire::PidsRequest { id: id.into() }).await?;
        Ok(found.processes.into_iter().map(convert::process_info_from_proto).collect())
    }

    /// Freezes the task.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` unless it runs.
    pub async fn pause(&self, id: &str) -> Result<()> {
        self.order("Pause", wire::PauseRequest { id: id.into() }).await
    }

    /// Thaws the task.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` unless it is paused.
    pub async fn resume(&self, id: &str) -> Result<()> {
        self.order("Resume", wire::ResumeRequest { id: id.into() }).await
    }

    /// Writes a checkpoint into the directory `path`.
    ///
    /// # Errors
    /// `NotFound`; `Unimplemented` if the runtime cannot.
    pub async fn checkpoint(&self, id: &str, path: &str, options: Option<Any>) -> Result<()> {
        let options = options.map(convert::any_to_proto);
        self.order("Checkpoint", wire::CheckpointTaskRequest { id: id.into(), path: path.into(), options })
            .await
    }

    /// Sends a signal; with `all` to every process of the task.
    ///
    /// # Errors
    /// `NotFound` if it has ended; `FailedPrecondition` for an exec that has not begun.
    pub async fn kill(&self, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        self.order("Kill", wire::KillRequest { id: id.into(), exec_id: exec_id.into(), signal, all }).await
    }

    /// Adds a process; it begins with [`TaskClient::start`].
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists`; `InvalidArgument` for a bad spec.
    pub async fn exec(&self, new: ExecTask) -> Result<()> {
        self.order("Exec", convert::exec_to_proto(new)).await
    }

    /// Sets the size of a process's terminal.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn resize_pty(&self, id: &str, exec_id: &str, width: u32, height: u32) -> Result<()> {
        let request = wire::ResizePtyRequest { id: id.into(), exec_id: exec_id.into(), width, height };
        self.order("ResizePty", request).await
    }

    /// Closes a process's standard input, if `stdin` says so.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn close_io(&self, id: &str, exec_id: &str, stdin: bool) -> Result<()> {
        self.order("CloseIO", wire::CloseIoRequest { id: id.into(), exec_id: exec_id.into(), stdin }).await
    }

    /// Changes the task's resources.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument`.
    pub async fn update(
        &self,
        id: &str,
        resources: Any,
        annotations: BTreeMap<String, String>,
    ) -> Result<()> {
        let resources = Some(convert::any_to_proto(resources));
        let request = wire::UpdateTaskRequest {
            id: id.into(),
            resources,
            annotations: annotations.into_iter().collect(),
        };
        self.order("Update", request).await
    }

    /// Waits until a process has ended; without deadline.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` if the shim ends first.
    pub async fn wait(&self, id: &str, exec_id: &str) -> Result<ExitRecord> {
        let request = wire::WaitRequest { id: id.into(), exec_id: exec_id.into() };
        Ok(convert::wait_from_proto(self.call_within("Wait", request, None).await?))
    }

    /// The task's figures.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stats(&self, id: &str) -> Result<Option<Any>> {
        let found: wire::StatsResponse = self.call("Stats", wire::StatsRequest { id: id.into() }).await?;
        Ok(found.stats.map(convert::any_from_proto))
    }

    /// Who the shim and the task are.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn connect_task(&self, id: &str) -> Result<Connected> {
        let found: wire::ConnectResponse =
            self.call("Connect", wire::ConnectRequest { id: id.into() }).await?;
        Ok(Connected { shim_pid: found.shim_pid, task_pid: found.task_pid, version: found.version })
    }

    /// Asks the shim to end, which it does when it has no task left. That it is gone already is success.
    ///
    /// # Errors
    /// Only those of every call.
    pub async fn shutdown(&self, id: &str, now: bool) -> Result<()> {
        match self.order("Shutdown", wire::ShutdownRequest { id: id.into(), now }).await {
            Err(error) if error.kind() == gantry_core::ErrorKind::Unavailable => Ok(()),
            answered => answered,
        }
    }
}
