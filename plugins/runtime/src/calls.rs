//! The runtime side of the task service: most calls go to the shim unchanged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use gantry_core::tasks::{
    ExecTask, ExitRecord, ProcessInfo, ProcessRecord, RuntimeCreate, TaskRuntime, TaskStatus,
};
use gantry_core::{Any, Context, Error, ErrorKind, Namespace, Result, wire_names};
use gantry_shim::client::TaskClient;
use gantry_shim::convert;
use gantry_shim::wire::RuntimeRequest;
use prost::Message;

use crate::manager::ShimTasks;
use crate::task::Task;
use crate::{bootstrap, dead_shim, shim_binary};

/// How many shims are asked at once for their tasks' states.
const AT_ONCE: usize = 32;

/// Type URL of what a runtime says about itself. Source: wire/containerd.txt.
const TYPE_RUNTIME_INFO: &str = "containerd.types.RuntimeInfo";

impl ShimTasks {
    async fn client(&self, cx: &Context, id: &str) -> Result<TaskClient> {
        Ok(self.inner.task(cx, id).await?.client())
    }

    /// The state of a process. A task that its shim does not have is let go of.
    async fn state(&self, task: &Arc<Task>, exec_id: &str) -> Result<ProcessRecord> {
        let client = task.client().with_timeout(Some(self.inner.config.timeouts.state));
        let state = client.state(task.id(), exec_id).await;
        if exec_id.is_empty() && matches!(&state, Err(error) if error.kind() == ErrorKind::NotFound) {
            let (inner, task) = (Arc::clone(&self.inner), Arc::clone(task));
            let let_go = async move {
                dead_shim::let_go(&inner, &task).await;
                Ok(())
            };
            self.inner.jobs.finish(let_go).await?;
        }
        state
    }

    /// The state of a listed task; one whose shim does not answer is shown as unknown, one that is gone not at all.
    async fn listed(&self, namespace: String, id: String) -> Option<ProcessRecord> {
        let cx = Context::new(Namespace::parse(namespace).ok()?);
        let task = self.inner.task(&cx, &id).await.ok()?;
        match self.state(&task, "").await {
            Ok(record) => Some(record),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) => None,
            Err(error) => {
                tracing::warn!(%error, container_id = id, "a shim does not say how its task is");
                Some(ProcessRecord {
                    container_id: id.clone(),
                    id,
                    pid: task.pid,
                    status: TaskStatus::Unknown,
                    ..ProcessRecord::default()
                })
            }
        }
    }
}

impl ShimTasks {
    /// Waits for an exit, together with everybody else who waits for it.
    async fn shared_wait(&self, task: &Arc<Task>, exec_id: &str) -> Result<ExitRecord> {
        let (waiter, asker) = task.waits.join(exec_id);
        if let Some(asker) = asker {
            let (task, exec_id) = (Arc::clone(task), exec_id.to_owned());
            self.inner.jobs.job(async move {
                let exit = task.client().wait(task.id(), &exec_id).await;
                task.waits.tell(asker, exit);
            });
        }
        waiter.exit().await
    }
}

#[async_trait]
impl TaskRuntime for ShimTasks {
    async fn create(&self, cx: &Context, new: RuntimeCreate) -> Result<u32> {
        let (inner, cx) = (Arc::clone(&self.inner), cx.clone());
        self.inner.jobs.finish(async move { inner.create(&cx, new).await }).await
    }

    async fn start(&self, cx: &Context, id: &str, exec_id: &str) -> Result<u32> {
        self.client(cx, id).await?.start(id, exec_id).await
    }

    async fn delete(&self, cx: &Context, id: &str, exec_id: &str) -> Result<ExitRecord> {
        let task = self.inner.task(cx, id).await?;
        match exec_id {
            "" => {
                let inner = Arc::clone(&self.inner);
                let delete = async move {
                    let deleted = inner.delete(&task).await;
                    if matches!(&deleted, Err(error) if error.kind() == ErrorKind::NotFound) {
                        dead_shim::let_go(&inner, &task).await;
                    }
                    deleted
                };
                self.inner.jobs.finish(delete).await
            }
            _ => {
                let exit = task.client().delete(id, exec_id).await?;
                task.waits.forget(exec_id);
                Ok(exit)
            }
        }
    }

    async fn get(&self, cx: &Context, id: &str, exec_id: &str) -> Result<ProcessRecord> {
        let task = self.inner.task(cx, id).await?;
        self.state(&task, exec_id).await
    }

    async fn list(&self, cx: &Context) -> Result<Vec<ProcessRecord>> {
        let ids = self.inner.ids(cx.namespace_if_any());
        let records = futures_util::stream::iter(ids)
            .map(|(namespace, id)| self.listed(namespace, id))
            .buffer_unordered(AT_ONCE);
        Ok(records.filter_map(std::future::ready).collect().await)
    }

    async fn kill(&self, cx: &Context, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        self.client(cx, id).await?.kill(id, exec_id, signal, all).await
    }

    async fn exec(&self, cx: &Context, new: ExecTask) -> Result<()> {
        let task = self.inner.task(cx, &new.container_id).await?;
        task.waits.forget(new.exec_id.as_str());
        task.client().exec(new).await
    }

    async fn resize_pty(&self, cx: &Context, id: &str, exec_id: &str, width: u32, height: u32) -> Result<()> {
        self.client(cx, id).await?.resize_pty(id, exec_id, width, height).await
    }

    async fn close_io(&self, cx: &Context, id: &str, exec_id: &str, stdin: bool) -> Result<()> {
        self.client(cx, id).await?.close_io(id, exec_id, stdin).await
    }

    async fn pause(&self, cx: &Context, id: &str) -> Result<()> {
        self.client(cx, id).await?.pause(id).await
    }

    async fn resume(&self, cx: &Context, id: &str) -> Result<()> {
        self.client(cx, id).await?.resume(id).await
    }

    async fn pids(&self, cx: &Context, id: &str) -> Result<Vec<ProcessInfo>> {
        self.client(cx, id).await?.pids(id).await
    }

    async fn checkpoint(&self, cx: &Context, id: &str, path: &Path, options: Option<Any>) -> Result<()> {
        let path = path
            .to_str()
            .ok_or_else(|| Error::invalid_argument(format!("checkpoint path {path:?} is not UTF-8")))?;
        self.client(cx, id).await?.checkpoint(id, path, options).await
    }

    async fn update(
        &self,
        cx: &Context,
        id: &str,
        resources: Any,
        annotations: BTreeMap<String, String>,
    ) -> Result<()> {
        self.client(cx, id).await?.update(id, resources, annotations).await
    }

    async fn stats(&self, cx: &Context, id: &str) -> Result<Option<Any>> {
        self.client(cx, id).await?.with_timeout(Some(self.inner.config.timeouts.stats)).stats(id).await
    }

    async fn wait(&self, cx: &Context, id: &str, exec_id: &str) -> Result<ExitRecord> {
        let task = self.inner.task(cx, id).await?;
        let mut phase = task.phase();
        loop {
            let connections = phase.borrow_and_update().connections;
            match self.shared_wait(&task, exec_id).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                answered => return answered,
            }
            // The shim is lost: it is found again, or cleaned up after.
            let known =
                phase.wait_for(|phase| phase.ended.is_some() || phase.connections > connections).await;
            let phase = known.map_err(|_| Error::not_found(format!("task {id} not found")))?.clone();
            if let Some(ended) = phase.ended {
                return Ok(ExitRecord { id: String::new(), pid: 0, ..ended });
            }
        }
    }

    async fn runtime_info(&self, _: &Context, request: Option<Any>) -> Result<Any> {
        let request = match request {
            None => RuntimeRequest::default(),
            Some(any) => RuntimeRequest::decode(any.value)
                .map_err(|error| Error::invalid_argument(format!("runtime request: {error}")))?,
        };
        // The field takes a runtime's name as well as a path.
        let runtime = match request.runtime_path.as_str() {
            "" => wire_names::DEFAULT_RUNTIME,
            runtime => runtime,
        };
        let binary = shim_binary::find(runtime, "")?;
        let options = request.options.map(convert::any_from_proto);
        let info = bootstrap::info(&self.inner.config, &binary, options).await?;
        Ok(Any::new(TYPE_RUNTIME_INFO, info))
    }
}
