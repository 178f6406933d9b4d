//! Serves controllers of sandboxes by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::containerd::services::sandbox::v1 as pb;
use gantry_core::Error;
use gantry_core::sandbox_controller::SandboxController;
use tonic::{Request, Response, Status};

use super::convert::{exit_to_proto, instance_to_proto, new_from_proto, status_to_proto};
use crate::call::{attend, open};
use crate::jobs::JobSet;
use crate::message::answer;
use crate::sandboxes::convert;
use crate::tasks::convert::metric_to_proto;
use crate::to_status;

/// Serves every controller of a daemon.
pub struct GrpcSandboxControllers {
    inner: BTreeMap<String, Arc<dyn SandboxController>>,
    jobs: JobSet,
}

impl GrpcSandboxControllers {
    /// Serves `inner`, by name; mutations run on `jobs`.
    pub fn new(inner: BTreeMap<String, Arc<dyn SandboxController>>, jobs: JobSet) -> Self {
        GrpcSandboxControllers { inner, jobs }
    }

    fn named(&self, name: &str) -> Result<Arc<dyn SandboxController>, Status> {
        // Source: semantics.md, Sandboxes.
        let found = self.inner.get(name).cloned().ok_or_else(|| match name {
            "" => Error::invalid_argument("field \"sandboxer\" must name a sandbox controller"),
            name => Error::not_found(format!("sandbox controller {name:?}")),
        });
        found.map_err(to_status)
    }
}

#[tonic::async_trait]
impl pb::controller_server::Controller for GrpcSandboxControllers {
    // Class (a).
    async fn create(
        &self,
        req: Request<pb::ControllerCreateRequest>,
    ) -> Result<Response<pb::ControllerCreateResponse>, Status> {
        let (cx, req) = open(req)?;
        let inner = self.named(&req.sandboxer)?;
        let new = new_from_proto(req).map_err(to_status)?;
        let sandbox_id = new.sandbox.id.to_string();
        self.jobs.detached(async move { inner.create(&cx, new).await }).await?;
        answer(pb::ControllerCreateResponse { sandbox_id })
    }

    // Class (a).
    async fn start(
        &self,
        req: Request<pb::ControllerStartRequest>,
    ) -> Result<Response<pb::ControllerStartResponse>, Status> {
        let (cx, req) = open(req)?;
        let inner = self.named(&req.sandboxer)?;
        let begun = self.jobs.detached(async move { inner.start(&cx, &req.sandbox_id).await }).await?;
        answer(instance_to_proto(begun))
    }

    // Source: semantics.md, Sandboxes: the original serves no such method.
    async fn platform(
        &self,
        _: Request<pb::ControllerPlatformRequest>,
    ) -> Result<Response<pb::ControllerPlatformResponse>, Status> {
        Err(to_status(Error::unimplemented("method Platform of the sandbox controller")))
    }

    // Class (c): a shim that was asked goes on without its caller, who may have named any patience.
    async fn stop(
        &self,
        req: Request<pb::ControllerStopRequest>,
    ) -> Result<Response<pb::ControllerStopResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let inner = self.named(&req.sandboxer)?;
        let patience = Duration::from_secs(req.timeout_secs.into());
        inner.stop(&cx, &req.sandbox_id, patience).await.map_err(to_status)?;
        answer(pb::ControllerStopResponse {})
    }

    // Class (c).
    async fn wait(
        &self,
        req: Request<pb::ControllerWaitRequest>,
    ) -> Result<Response<pb::ControllerWaitResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let exit = self.named(&req.sandboxer)?.wait(&cx, &req.sandbox_id).await.map_err(to_status)?;
        answer(exit_to_proto(exit))
    }

    // Class (c).
    async fn status(
        &self,
        req: Request<pb::ControllerStatusRequest>,
    ) -> Result<Response<pb::ControllerStatusResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let inner = self.named(&req.sandboxer)?;
        let status = inner.status(&cx, &req.sandbox_id, req.verbose).await.map_err(to_status)?;
        answer(status_to_proto(status))
    }

    // Class (a).
    async fn shutdown(
        &self,
        req: Request<pb::ControllerShutdownRequest>,
    ) -> Result<Response<pb::ControllerShutdownResponse>, Status> {
        let (cx, req) = open(req)?;
        let inner = self.named(&req.sandboxer)?;
        self.jobs.detached(async move { inner.shutdown(&cx, &req.sandbox_id).await }).await?;
        answer(pb::ControllerShutdownResponse {})
    }

    // Class (c).
    async fn metrics(
        &self,
        req: Request<pb::ControllerMetricsRequest>,
    ) -> Result<Response<pb::ControllerMetricsResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let metric = self.named(&req.sandboxer)?.metrics(&cx, &req.sandbox_id).await.map_err(to_status)?;
        answer(pb::ControllerMetricsResponse { metrics: metric.map(metric_to_proto) })
    }

    // Class (a).
    async fn update(
        &self,
        req: Request<pb::ControllerUpdateRequest>,
    ) -> Result<Response<pb::ControllerUpdateResponse>, Status> {
        let (cx, req) = open(req)?;
        let inner = self.named(&req.sandboxer)?;
        let changed = convert::from_proto(req.sandbox).map_err(to_status)?;
        let updated = async move { inner.update(&cx, &req.sandbox_id, changed, req.fields).await };
        self.jobs.detached(updated).await?;
        answer(pb::ControllerUpdateResponse {})
    }
}
