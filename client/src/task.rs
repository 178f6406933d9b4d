//! [`Task`]: a running container.

use std::ops::Deref;

use gantry_core::tasks::{ExecTask, Metric, ProcessInfo};
use gantry_core::wire_names::TYPE_PROCESS;
use gantry_core::{Any, Error, ErrorKind, ExecId, Result, ResultExt, SnapshotKey};
use gantry_oci::spec;
use gantry_oci::spec::ExecOptions;

use crate::new_container::with_rootfs;
use crate::process::Process;
use crate::process_io::{IoRequest, ProcessIo};

/// A container's task; as a [`Process`] it is the task's init process.
pub struct Task {
    init: Process,
}

impl Deref for Task {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.init
    }
}

impl Task {
    pub(crate) fn new(init: Process) -> Self {
        Task { init }
    }

    fn step(&self) -> String {
        format!("task {:?}", self.init.container_id())
    }

    /// Adds a process as `options` say; it begins with [`Process::start`]. What they leave open is as in the
    /// container's own process.
    ///
    /// # Errors
    /// `AlreadyExists` for its id; `InvalidArgument` for options that cannot be; `NotFound` for a user.
    pub async fn exec(&self, id: ExecId, options: ExecOptions, io: IoRequest) -> Result<Process> {
        let step = || format!("exec {id:?} in {}", self.step());
        let client = self.init.client();
        let cx = client.context();
        let container = client.load_container(self.init.container_id().as_str()).await?;
        let record = container.info().await?;
        let spec = container.spec().await?;
        let mut mounts = Vec::new();
        if options.user.is_some() && !record.snapshot_key.is_empty() {
            let key = SnapshotKey::parse(record.snapshot_key)?;
            mounts = client.snapshotter(&record.snapshotter)?.mounts(&cx, &key).await.with_context(step)?;
        }
        let build = move || {
            if mounts.is_empty() {
                return spec::exec_process(&spec, &options, None);
            }
            with_rootfs(&mounts, true, |rootfs| spec::exec_process(&spec, &options, rootfs))
        };
        let process = tokio::task::spawn_blocking(build)
            .await
            .map_err(|error| Error::with_source(ErrorKind::Internal, error))?
            .with_context(step)?;
        let json = serde_json::to_vec(&process)
            .map_err(|error| Error::internal(format!("encode the process: {error}")).context(step()))?;
        let io = ProcessIo::prepare(&format!("{}-{id}", self.init.container_id()), io).with_context(step)?;
        let new = ExecTask {
            container_id: self.init.container_id().to_string(),
            exec_id: id.clone(),
            io: io.config().clone(),
            spec: Any::new(TYPE_PROCESS, json),
        };
        client.services().tasks.exec(&cx, new).await.with_context(step)?;
        Ok(Process::new(client.clone(), self.init.container_id().clone(), Some(id), 0, Some(io)))
    }

    /// An exec that was added before, without its input and output.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn load_exec(&self, id: ExecId) -> Result<Process> {
        let client = self.init.client();
        let container = self.init.container_id();
        let record = client.services().tasks.get(&client.context(), container.as_str(), id.as_str()).await;
        let record = record.with_context(|| format!("exec {id:?} of {}", self.step()))?;
        Ok(Process::new(client.clone(), container.clone(), Some(id), record.pid, None))
    }

    /// The processes in its cgroup.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn pids(&self) -> Result<Vec<ProcessInfo>> {
        let client = self.init.client();
        let pids = client.services().tasks.pids(&client.context(), self.init.container_id().as_str()).await;
        pids.with_context(|| format!("processes of {}", self.step()))
    }

    /// Freezes it.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` unless it runs.
    pub async fn pause(&self) -> Result<()> {
        let client = self.init.client();
        let done = client.services().tasks.pause(&client.context(), self.init.container_id().as_str()).await;
        done.with_context(|| format!("pause {}", self.step()))
    }

    /// Thaws it.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` unless it is paused.
    pub async fn resume(&self) -> Result<()> {
        let client = self.init.client();
        let done = client.services().tasks.resume(&client.context(), self.init.container_id().as_str()).await;
        done.with_context(|| format!("resume {}", self.step()))
    }

    /// Its figures.
    ///
    /// # Errors
    /// `NotFound` if it has none.
    pub async fn metrics(&self) -> Result<Metric> {
        let client = self.init.client();
        let filter = format!("id=={}", self.init.container_id());
        let metrics = client.services().tasks.metrics(&client.context(), &[filter]).await;
        let mut metrics = metrics.with_context(|| format!("metrics of {}", self.step()))?;
        metrics.pop().ok_or_else(|| Error::not_found("metrics").context(self.step()))
    }
}
