//! Tasks of a daemon elsewhere.

use std::collections::BTreeMap;

use gantry_api::containerd::services::tasks::v1 as pb;
use gantry_core::tasks::{CreateTask, ExecTask, ExitRecord, Metric, ProcessInfo, ProcessRecord, TaskManager};
use gantry_core::{Any, Context, Descriptor, Result};
use tonic::transport::Channel;

use super::convert::{metric_from_proto, process_from_proto};
use crate::remote::{answered, ask, remote};
use crate::{any, descriptor, mount, timestamp};

remote! {
    /// A task manager elsewhere.
    RemoteTasks, pb::tasks_client::TasksClient<Channel>
}

#[async_trait::async_trait]
impl TaskManager for RemoteTasks {
    async fn create(&self, cx: &Context, new: CreateTask) -> Result<u32> {
        let request = pb::CreateTaskRequest {
            container_id: new.container_id,
            rootfs: mount::to_proto(new.rootfs),
            stdin: new.io.stdin,
            stdout: new.io.stdout,
            stderr: new.io.stderr,
            terminal: new.io.terminal,
            checkpoint: new.checkpoint.map(descriptor::to_proto),
            options: new.options.map(any::to_proto),
            runtime_path: new.runtime_path,
            ..pb::CreateTaskRequest::default()
        };
        Ok(ask!(self.create(cx, request)).pid)
    }

    async fn start(&self, cx: &Context, container_id: &str, exec_id: &str) -> Result<u32> {
        let request = pb::StartRequest { container_id: container_id.into(), exec_id: exec_id.into() };
        Ok(ask!(self.start(cx, request)).pid)
    }

    async fn delete(&self, cx: &Context, container_id: &str, exec_id: &str) -> Result<ExitRecord> {
        let answer = if exec_id.is_empty() {
            ask!(self.delete(cx, pb::DeleteTaskRequest { container_id: container_id.into() }))
        } else {
            let request =
                pb::DeleteProcessRequest { container_id: container_id.into(), exec_id: exec_id.into() };
            ask!(self.delete_process(cx, request))
        };
        Ok(ExitRecord {
            id: answer.id,
            pid: answer.pid,
            status: answer.exit_status,
            exited_at: timestamp::or_epoch(answer.exited_at),
        })
    }

    async fn get(&self, cx: &Context, container_id: &str, exec_id: &str) -> Result<ProcessRecord> {
        let request = pb::GetRequest { container_id: container_id.into(), exec_id: exec_id.into() };
        process_from_proto(answered(ask!(self.get(cx, request)).process, "process")?)
    }

    async fn list(&self, cx: &Context) -> Result<Vec<ProcessRecord>> {
        let answer = ask!(self.list(cx, pb::ListTasksRequest::default()));
        answer.tasks.into_iter().map(process_from_proto).collect()
    }

    async fn kill(
        &self,
        cx: &Context,
        container_id: &str,
        exec_id: &str,
        signal: u32,
        all: bool,
    ) -> Result<()> {
        let request =
            pb::KillRequest { container_id: container_id.into(), exec_id: exec_id.into(), signal, all };
        ask!(self.kill(cx, request));
        Ok(())
    }

    async fn exec(&self, cx: &Context, new: ExecTask) -> Result<()> {
        let request = pb::ExecProcessRequest {
            container_id: new.container_id,
            stdin: new.io.stdin,
            stdout: new.io.stdout,
            stderr: new.io.stderr,
            terminal: new.io.terminal,
            spec: Some(any::to_proto(new.spec)),
            exec_id: new.exec_id.into_string(),
        };
        ask!(self.exec(cx, request));
        Ok(())
    }

    async fn resize_pty(
        &self,
        cx: &Context,
        container_id: &str,
        exec_id: &str,
        width: u32,
        height: u32,
    ) -> Result<()> {
        let request = pb::ResizePtyRequest {
            container_id: container_id.into(),
            exec_id: exec_id.into(),
            width,
            height,
        };
        ask!(self.resize_pty(cx, request));
        Ok(())
    }

    async fn close_io(&self, cx: &Context, container_id: &str, exec_id: &str, stdin: bool) -> Result<()> {
        let request =
            pb::CloseIoRequest { container_id: container_id.into(), exec_id: exec_id.into(), stdin };
        ask!(self.close_io(cx, request));
        Ok(())
    }

    async fn pause(&self, cx: &Context, container_id: &str) -> Result<()> {
        ask!(self.pause(cx, pb::PauseTaskRequest { container_id: container_id.into() }));
        Ok(())
    }

    async fn resume(&self, cx: &Context, container_id: &str) -> Result<()> {
        ask!(self.resume(cx, pb::ResumeTaskRequest { container_id: container_id.into() }));
        Ok(())
    }

    async fn pids(&self, cx: &Context, container_id: &str) -> Result<Vec<ProcessInfo>> {
        let answer = ask!(self.list_pids(cx, pb::ListPidsRequest { container_id: container_id.into() }));
        let info = |info: gantry_api::containerd::v1::types::ProcessInfo| ProcessInfo {
            pid: info.pid,
            info: info.info.map(any::from_proto),
        };
        Ok(answer.processes.into_iter().map(info).collect())
    }

    async fn checkpoint(
        &self,
        cx: &Context,
        container_id: &str,
        options: Option<Any>,
    ) -> Result<Vec<Descriptor>> {
        let request = pb::CheckpointTaskRequest {
            container_id: container_id.into(),
            options: options.map(any::to_proto),
            ..pb::CheckpointTaskRequest::default()
        };
        let parts = ask!(self.checkpoint(cx, request)).descriptors;
        parts.into_iter().map(|part| descriptor::from_proto(part, "descriptors")).collect()
    }

    async fn update(
        &self,
        cx: &Context,
        container_id: &str,
        resources: Option<Any>,
        annotations: BTreeMap<String, String>,
    ) -> Result<()> {
        let request = pb::UpdateTaskRequest {
            container_id: container_id.into(),
            resources: resources.map(any::to_proto),
            annotations,
        };
        ask!(self.update(cx, request));
        Ok(())
    }

    async fn metrics(&self, cx: &Context, filters: &[String]) -> Result<Vec<Metric>> {
        let answer = ask!(self.metrics(cx, pb::MetricsRequest { filters: filters.to_vec() }));
        Ok(answer.metrics.into_iter().map(metric_from_proto).collect())
    }

    async fn wait(&self, cx: &Context, container_id: &str, exec_id: &str) -> Result<ExitRecord> {
        let request = pb::WaitRequest { container_id: container_id.into(), exec_id: exec_id.into() };
        let answer = ask!(self.wait(cx, request));
        Ok(ExitRecord {
            id: String::new(),
            pid: 0,
            status: answer.exit_status,
            exited_at: timestamp::or_epoch(answer.exited_at),
        })
    }
}
