//! Serves tasks.

use std::sync::Arc;

use gantry_api::containerd::services::tasks::v1 as pb;
use gantry_core::tasks::{CreateTask, ExecTask, TaskIo, TaskManager};
use gantry_core::{Error, ErrorKind, ExecId};
use tonic::{Request, Response, Status};

use super::convert::{exit_to_proto, info_to_proto, metric_to_proto, process_to_proto};
use crate::call::{attend, open, present};
use crate::jobs::JobSet;
use crate::message::answer;
use crate::{any, descriptor, mount, timestamp, to_status};

/// Serves a task manager.
pub struct GrpcTasks {
    inner: Arc<dyn TaskManager>,
    jobs: JobSet,
}

impl GrpcTasks {
    /// Serves `inner`; mutations run on `jobs`.
    pub fn new(inner: Arc<dyn TaskManager>, jobs: JobSet) -> Self {
        GrpcTasks { inner, jobs }
    }
}

/// A mutation (class a) that answers nothing.
macro_rules! detached {
    ($self:ident, $req:ident, |$inner:ident, $cx:ident, $message:ident| $call:expr) => {{
        let ($cx, $message) = open($req)?;
        let $inner = Arc::clone(&$self.inner);
        $self.jobs.detached(async move { $call.await }).await
    }};
}

#[tonic::async_trait]
impl pb::tasks_server::Tasks for GrpcTasks {
    // Class (a).
    async fn create(
        &self,
        req: Request<pb::CreateTaskRequest>,
    ) -> Result<Response<pb::CreateTaskResponse>, Status> {
        let (cx, req) = open(req)?;
        let checkpoint = req.checkpoint.map(|checkpoint| descriptor::from_proto(checkpoint, "checkpoint"));
        let new = CreateTask {
            container_id: req.container_id.clone(),
            rootfs: mount::from_proto(req.rootfs),
            io: TaskIo { stdin: req.stdin, stdout: req.stdout, stderr: req.stderr, terminal: req.terminal },
            checkpoint: checkpoint.transpose().map_err(to_status)?,
            options: req.options.map(any::from_proto),
            runtime_path: req.runtime_path,
        };
        let inner = Arc::clone(&self.inner);
        let pid = self.jobs.detached(async move { inner.create(&cx, new).await }).await?;
        answer(pb::CreateTaskResponse { container_id: req.container_id, pid })
    }

    async fn start(&self, req: Request<pb::StartRequest>) -> Result<Response<pb::StartResponse>, Status> {
        let pid = detached!(self, req, |inner, cx, req| inner.start(&cx, &req.container_id, &req.exec_id))?;
        answer(pb::StartResponse { pid })
    }

    async fn delete(
        &self,
        req: Request<pb::DeleteTaskRequest>,
    ) -> Result<Response<pb::DeleteResponse>, Status> {
        let exit = detached!(self, req, |inner, cx, req| inner.delete(&cx, &req.container_id, ""))?;
        answer(exit_to_proto(exit))
    }

    async fn delete_process(
        &self,
        req: Request<pb::DeleteProcessRequest>,
    ) -> Result<Response<pb::DeleteResponse>, Status> {
        let exit = detached!(self, req, |inner, cx, req| inner.delete(&cx, &req.container_id, &req.exec_id))?;
        answer(exit_to_proto(exit))
    }

    // Class (c).
    async fn get(&self, req: Request<pb::GetRequest>) -> Result<Response<pb::GetResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let process = self.inner.get(&cx, &req.container_id, &req.exec_id).await.map_err(to_status)?;
        answer(pb::GetResponse { process: Some(process_to_proto(process)) })
    }

    // Class (c). The filter is not looked at, as in containerd.
    async fn list(
        &self,
        req: Request<pb::ListTasksRequest>,
    ) -> Result<Response<pb::ListTasksResponse>, Status> {
        let (cx, _left, _) = attend(req)?;
        let tasks = self.inner.list(&cx).await.map_err(to_status)?;
        answer(pb::ListTasksResponse { tasks: tasks.into_iter().map(process_to_proto).collect() })
    }

    async fn kill(&self, req: Request<pb::KillRequest>) -> Result<Response<()>, Status> {
        detached!(self, req, |inner, cx, req| inner.kill(
            &cx,
            &req.container_id,
            &req.exec_id,
            req.signal,
            req.all
        ))
        .map(Response::new)
    }

    // Class (a).
    async fn exec(&self, req: Request<pb::ExecProcessRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let new = ExecTask {
            container_id: req.container_id,
            exec_id: ExecId::parse(req.exec_id).map_err(to_status)?,
            io: TaskIo { stdin: req.stdin, stdout: req.stdout, stderr: req.stderr, terminal: req.terminal },
            spec: any::from_proto(present(req.spec, "spec").map_err(to_status)?),
        };
        let inner = Arc::clone(&self.inner);
        self.jobs.detached(async move { inner.exec(&cx, new).await }).await.map(Response::new)
    }

    async fn resize_pty(&self, req: Request<pb::ResizePtyRequest>) -> Result<Response<()>, Status> {
        detached!(self, req, |inner, cx, req| inner.resize_pty(
            &cx,
            &req.container_id,
            &req.exec_id,
            req.width,
            req.height
        ))
        .map(Response::new)
    }

    async fn close_io(&self, req: Request<pb::CloseIoRequest>) -> Result<Response<()>, Status> {
        detached!(self, req, |inner, cx, req| inner.close_io(&cx, &req.container_id, &req.exec_id, req.stdin))
            .map(Response::new)
    }

    async fn pause(&self, req: Request<pb::PauseTaskRequest>) -> Result<Response<()>, Status> {
        detached!(self, req, |inner, cx, req| inner.pause(&cx, &req.container_id)).map(Response::new)
    }

    async fn resume(&self, req: Request<pb::ResumeTaskRequest>) -> Result<Response<()>, Status> {
        detached!(self, req, |inner, cx, req| inner.resume(&cx, &req.container_id)).map(Response::new)
    }

    // Class (c).
    async fn list_pids(
        &self,
        req: Request<pb::ListPidsRequest>,
    ) -> Result<Response<pb::ListPidsResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let pids = self.inner.pids(&cx, &req.container_id).await.map_err(to_status)?;
        answer(pb::ListPidsResponse { processes: pids.into_iter().map(info_to_proto).collect() })
    }

    // Class (b).
    async fn checkpoint(
        &self,
        req: Request<pb::CheckpointTaskRequest>,
    ) -> Result<Response<pb::CheckpointTaskResponse>, Status> {
        let (cx, left, req) = attend(req)?;
        let options = req.options.map(any::from_proto);
        let inner = Arc::clone(&self.inner);
        let work = async move { inner.checkpoint(&cx, &req.container_id, options).await };
        let parts = self.jobs.long(left, work).await?;
        let descriptors = parts.into_iter().map(descriptor::to_proto).collect();
        answer(pb::CheckpointTaskResponse { descriptors })
    }

    // Class (a).
    async fn update(&self, req: Request<pb::UpdateTaskRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let resources = any::from_proto(present(req.resources, "resources").map_err(to_status)?);
        let inner = Arc::clone(&self.inner);
        let work =
            async move { inner.update(&cx, &req.container_id, Some(resources), req.annotations).await };
        self.jobs.detached(work).await.map(Response::new)
    }

    // Class (c). Source: observed: a missing namespace and a bad filter are UNKNOWN here.
    async fn metrics(
        &self,
        req: Request<pb::MetricsRequest>,
    ) -> Result<Response<pb::MetricsResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let unknown = |error: Error| match error.kind() {
            ErrorKind::FailedPrecondition | ErrorKind::InvalidArgument => {
                to_status(Error::unknown(error.message()))
            }
            _ => to_status(error),
        };
        cx.namespace().map_err(unknown)?;
        let metrics = self.inner.metrics(&cx, &req.filters).await.map_err(unknown)?;
        answer(pb::MetricsResponse { metrics: metrics.into_iter().map(metric_to_proto).collect() })
    }

    // Class (c).
    async fn wait(&self, req: Request<pb::WaitRequest>) -> Result<Response<pb::WaitResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let exit = self.inner.wait(&cx, &req.container_id, &req.exec_id).await.map_err(to_status)?;
        answer(pb::WaitResponse {
            exit_status: exit.status,
            exited_at: Some(timestamp::to_proto(exit.exited_at)),
        })
    }
}
