//! The task service: decode, call, encode. Versions 2 and 3 are the same service under two names.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_api::containerd::task::v3 as wire;
use gantry_core::{Error, Result};
use gantry_ttrpc::service::{decode, encode, no_method};
use gantry_ttrpc::{CallContext, Service};

use crate::convert;
use crate::shim::Shim;
use crate::stdio::readers;

/// Serves a [`Shim`] over ttrpc.
#[derive(Debug)]
pub struct TaskService(Arc<Shim>);

impl TaskService {
    /// The service of `shim`.
    pub fn new(shim: Arc<Shim>) -> TaskService {
        TaskService(shim)
    }
}

/// The answer of an order: `google.protobuf.Empty`.
fn done(result: Result<()>) -> Result<Bytes> {
    result.map(|()| Bytes::new())
}

#[async_trait]
impl Service for TaskService {
    // A wait lives as long as its process and must be small. What the others need is therefore allocated apart, and
    // only while they run.
    //
    // Calls that change something run to their end whatever the caller does; waits are dropped when nobody wants them
    // any more.
    async fn call(&self, method: &str, payload: Bytes, cx: CallContext) -> Result<Bytes> {
        let shim = &self.0;
        shim.stir();
        match method {
            "State" => {
                let request: wire::StateRequest = decode(payload)?;
                let (record, bundle) = shim.state(&request.id, &request.exec_id)?;
                Ok(encode(&convert::state_to_proto(record, bundle)))
            }
            "Create" => {
                let new = convert::create_from_proto(decode(payload)?);
                let pid = Box::pin(shim.create(new, readers::until(cx.deadline))).await?;
                Ok(encode(&wire::CreateTaskResponse { pid }))
            }
            "Start" => {
                let request: wire::StartRequest = decode(payload)?;
                let until = readers::until(cx.deadline);
                let pid = Box::pin(shim.start(&request.id, &request.exec_id, until)).await?;
                Ok(encode(&wire::StartResponse { pid }))
            }
            "Delete" => {
                let request: wire::DeleteRequest = decode(payload)?;
                let (pid, ended) = Box::pin(shim.delete(&request.id, &request.exec_id)).await?;
                let (status, at) = ended.map_or((0, None), |ended| (ended.status, Some(ended.at)));
                Ok(encode(&convert::delete_to_proto(pid, status, at)))
            }
            "Pids" => {
                let request: wire::PidsRequest = decode(payload)?;
                let processes = shim.pids(&request.id)?;
                let processes = processes.into_iter().map(convert::process_info_to_proto).collect();
                Ok(encode(&wire::PidsResponse { processes }))
            }
            "Pause" => {
                let request: wire::PauseRequest = decode(payload)?;
                done(Box::pin(shim.pause(&request.id)).await)
            }
            "Resume" => {
                let request: wire::ResumeRequest = decode(payload)?;
                done(Box::pin(shim.resume(&request.id)).await)
            }
            "Checkpoint" => {
                let request: wire::CheckpointTaskRequest = decode(payload)?;
                let options = request.options.map(convert::any_from_proto);
                done(Box::pin(shim.checkpoint(&request.id, request.path, options)).await)
            }
            "Kill" => {
                let request: wire::KillRequest = decode(payload)?;
                done(Box::pin(shim.kill(&request.id, &request.exec_id, request.signal, request.all)).await)
            }
            "Exec" => done(shim.exec(convert::exec_from_proto(decode(payload)?)?).await),
            "ResizePty" => {
                let request: wire::ResizePtyRequest = decode(payload)?;
                done(shim.resize(&request.id, &request.exec_id, request.width, request.height))
            }
            "CloseIO" => {
                let request: wire::CloseIoRequest = decode(payload)?;
                done(shim.close_io(&request.id, &request.exec_id, request.stdin))
            }
            "Update" => {
                let request: wire::UpdateTaskRequest = decode(payload)?;
                let resources = request
                    .resources
                    .ok_or_else(|| Error::invalid_argument("update resources are missing"))?;
                done(Box::pin(shim.update(&request.id, convert::any_from_proto(resources))).await)
            }
            "Wait" => {
                let request: wire::WaitRequest = decode(payload)?;
                let exit = cx.while_wanted(shim.wait(&request.id, &request.exec_id)).await?;
                Ok(encode(&convert::wait_to_proto(&exit)))
            }
            "Stats" => {
                let request: wire::StatsRequest = decode(payload)?;
                let stats = shim.stats(&request.id)?;
                Ok(encode(&wire::StatsResponse { stats: Some(convert::any_to_proto(stats)) }))
            }
            "Connect" => {
                let request: wire::ConnectRequest = decode(payload)?;
                let task_pid = shim.task_pid(&request.id)?;
                Ok(encode(&wire::ConnectResponse {
                    shim_pid: std::process::id(),
                    task_pid,
                    version: String::new(),
                }))
            }
            "Shutdown" => {
                let _: wire::ShutdownRequest = decode(payload)?;
                shim.shutdown();
                Ok(Bytes::new())
            }
            _ => Err(no_method(method)),
        }
    }
}
