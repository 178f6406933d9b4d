//! Tasks: joins a container's record with the runtime that runs it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use gantry_core::containers::{Container, ContainerStore};
use gantry_core::filters::{Adaptor, Filters};
use gantry_core::log_limits::LogLimits;
use gantry_core::tasks::{
    CreateTask, ExecTask, ExitRecord, Metric, ProcessInfo, ProcessRecord, RuntimeCreate, TaskManager,
    TaskRuntime,
};
use gantry_core::{Any, Context, Descriptor, Error, ErrorKind, Result, ResultExt as _};

/// How many tasks are asked for their figures at once.
const METRICS_AT_ONCE: usize = 16;

/// The tasks service.
pub struct TasksService {
    containers: Arc<dyn ContainerStore>,
    runtime: Arc<dyn TaskRuntime>,
}

impl TasksService {
    /// The service over the records in `containers` and the shims of `runtime`.
    pub fn new(containers: Arc<dyn ContainerStore>, runtime: Arc<dyn TaskRuntime>) -> Self {
        TasksService { containers, runtime }
    }

    /// Every call on a task needs the container's record. Source: semantics.md, Containers: once the record is gone, calls on its
    /// task are `NOT_FOUND`.
    async fn container(&self, cx: &Context, id: &str) -> Result<Container> {
        self.containers.get(cx, id).await
    }
}

/// A task as the filters of `metrics` see it. Source: features E28.
struct Filterable<'a> {
    id: &'a str,
    namespace: &'a str,
}

impl Adaptor for Filterable<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => Some(self.id.to_owned()),
            ["namespace"] => Some(self.namespace.to_owned()),
            _ => None,
        }
    }
}

#[async_trait]
impl TaskManager for TasksService {
    async fn create(&self, cx: &Context, new: CreateTask) -> Result<u32> {
        let container = self.container(cx, &new.container_id).await?;
        let step = || format!("create task {:?}", new.container_id);
        if new.checkpoint.is_some() {
            return Err(Error::unimplemented("restoring a task from a checkpoint").context(step()));
        }
        let mut io = new.io;
        if let Some(limits) = LogLimits::from_labels(&container.labels).with_context(step)? {
            io.stdout = limits.add_to_url(&io.stdout);
        }
        let create = RuntimeCreate {
            id: new.container_id.clone(),
            spec: container.spec,
            runtime: container.runtime.name,
            runtime_path: new.runtime_path,
            options: new.options.or(container.runtime.options),
            sandbox_id: container.sandbox,
            rootfs: new.rootfs,
            io,
            checkpoint: String::new(),
        };
        self.runtime.create(cx, create).await.map_err(|error| match error.kind() {
            // It names the task already, in the original's words.
            ErrorKind::AlreadyExists => error,
            _ => error.context(step()),
        })
    }

    async fn start(&self, cx: &Context, container_id: &str, exec_id: &str) -> Result<u32> {
        self.container(cx, container_id).await?;
        self.runtime.start(cx, container_id, exec_id).await
    }

    async fn delete(&self, cx: &Context, container_id: &str, exec_id: &str) -> Result<ExitRecord> {
        self.container(cx, container_id).await?;
        self.runtime.delete(cx, container_id, exec_id).await
    }

    async fn get(&self, cx: &Context, container_id: &str, exec_id: &str) -> Result<ProcessRecord> {
        self.container(cx, container_id).await?;
        self.runtime.get(cx, container_id, exec_id).await
    }

    async fn list(&self, cx: &Context) -> Result<Vec<ProcessRecord>> {
        cx.namespace()?;
        self.runtime.list(cx).await
    }

    async fn kill(
        &self,
        cx: &Context,
        container_id: &str,
        exec_id: &str,
        signal: u32,
        all: bool,
    ) -> Result<()> {
        self.container(cx, container_id).await?;
        self.runtime.kill(cx, container_id, exec_id, signal, all).await
    }

    async fn exec(&self, cx: &Context, new: ExecTask) -> Result<()> {
        self.container(cx, &new.container_id).await?;
        self.runtime.exec(cx, new).await
    }

    async fn resize_pty(
        &self,
        cx: &Context,
        container_id: &str,
        exec_id: &str,
        width: u32,
        height: u32,
    ) -> Result<()> {
        self.container(cx, container_id).await?;
        self.runtime.resize_pty(cx, container_id, exec_id, width, height).await
    }

    async fn close_io(&self, cx: &Context, container_id: &str, exec_id: &str, stdin: bool) -> Result<()> {
        self.container(cx, container_id).await?;
        self.runtime.close_io(cx, container_id, exec_id, stdin).await
    }

    async fn pause(&self, cx: &Context, container_id: &str) -> Result<()> {
        self.container(cx, container_id).await?;
        self.runtime.pause(cx, container_id).await
    }

    async fn resume(&self, cx: &Context, container_id: &str) -> Result<()> {
        self.container(cx, container_id).await?;
        self.runtime.resume(cx, container_id).await
    }

    async fn pids(&self, cx: &Context, container_id: &str) -> Result<Vec<ProcessInfo>> {
        self.container(cx, container_id).await?;
        self.runtime.pids(cx, container_id).await
    }

    async fn checkpoint(
        &self,
        cx: &Context,
        container_id: &str,
        _options: Option<Any>,
    ) -> Result<Vec<Descriptor>> {
        self.container(cx, container_id).await?;
        Err(Error::unimplemented(format!("checkpoint task {container_id:?}")))
    }

    async fn update(
        &self,
        cx: &Context,
        container_id: &str,
        resources: Option<Any>,
        annotations: BTreeMap<String, String>,
    ) -> Result<()> {
        let step = || format!("update task {container_id:?}");
        self.container(cx, container_id).await?;
        let resources =
            resources.ok_or_else(|| Error::invalid_argument("resources must be set").context(step()))?;
        self.runtime.update(cx, container_id, resources, annotations).await
    }

    async fn metrics(&self, cx: &Context, filters: &[String]) -> Result<Vec<Metric>> {
        // Source: semantics.md: a bad filter, or no namespace, is UNKNOWN here.
        let unknown = |error: Error| Error::with_source(ErrorKind::Unknown, error);
        let filters = Filters::parse(filters).map_err(unknown)?;
        let namespace = cx.namespace().map_err(unknown)?.as_str();
        let tasks = self.runtime.list(cx).await?;
        let wanted = tasks
            .into_iter()
            .map(|task| task.id)
            .filter(|id| filters.matches(&Filterable { id, namespace }))
            .collect::<Vec<_>>();
        let figures = futures_util::stream::iter(wanted)
            .map(|id| async move {
                match self.runtime.stats(cx, &id).await {
                    Ok(data) => Some(Metric { timestamp: SystemTime::now(), id, data }),
                    Err(error) => {
                        // One task that cannot be read does not take the others' figures away.
                        tracing::warn!(container_id = id, %error, "read metrics of a task");
                        None
                    }
                }
            })
            .buffer_unordered(METRICS_AT_ONCE);
        let mut metrics: Vec<Metric> = figures.filter_map(std::future::ready).collect().await;
        metrics.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(metrics)
    }

    async fn wait(&self, cx: &Context, container_id: &str, exec_id: &str) -> Result<ExitRecord> {
        self.container(cx, container_id).await?;
        self.runtime.wait(cx, container_id, exec_id).await
    }
}
