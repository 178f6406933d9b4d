//! Serves activations.

use std::sync::Arc;

use gantry_api::containerd::services::mounts::v1 as pb;
use gantry_core::mounts::{ActivateMounts, MountManager};
use tonic::{Request, Response, Status};

use super::convert::{from_proto, to_proto};
use crate::call::{attend, open};
use crate::jobs::JobSet;
use crate::message::{Answers, answer, singles};
use crate::{mount, to_status};

/// Serves a mount manager.
pub struct GrpcMounts {
    inner: Arc<dyn MountManager>,
    jobs: JobSet,
}

impl GrpcMounts {
    /// Serves `inner`; mutations run on `jobs`.
    pub fn new(inner: Arc<dyn MountManager>, jobs: JobSet) -> Self {
        GrpcMounts { inner, jobs }
    }
}

#[tonic::async_trait]
impl pb::mounts_server::Mounts for GrpcMounts {
    type ListStream = Answers<pb::ListMessage>;

    // Class (a): half a list of mounts is of no use to anyone.
    async fn activate(
        &self,
        req: Request<pb::ActivateRequest>,
    ) -> Result<Response<pb::ActivateResponse>, Status> {
        let (cx, req) = open(req)?;
        let how = ActivateMounts { labels: req.labels, temporary: req.temporary, ..Default::default() };
        let (name, mounts) = (req.name, mount::from_proto(req.mounts));
        let inner = Arc::clone(&self.inner);
        let made = self.jobs.detached(async move { inner.activate(&cx, &name, &mounts, how).await }).await?;
        answer(pb::ActivateResponse { info: Some(to_proto(made)) })
    }

    // Class (a).
    async fn deactivate(&self, req: Request<pb::DeactivateRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let inner = Arc::clone(&self.inner);
        self.jobs.detached(async move { inner.deactivate(&cx, &req.name).await }).await.map(Response::new)
    }

    // Class (c).
    async fn info(&self, req: Request<pb::InfoRequest>) -> Result<Response<pb::InfoResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let found = self.inner.info(&cx, &req.name).await.map_err(to_status)?;
        answer(pb::InfoResponse { info: Some(to_proto(found)) })
    }

    // Class (a).
    async fn update(&self, req: Request<pb::UpdateRequest>) -> Result<Response<pb::UpdateResponse>, Status> {
        let (cx, req) = open(req)?;
        // Source: observed: whatever is asked for, also without info, is not implemented.
        let changed = match req.info {
            Some(info) => from_proto(Some(info)).map_err(to_status)?,
            None => Default::default(),
        };
        let paths = req.update_mask.map(|mask| mask.paths).unwrap_or_default();
        let inner = Arc::clone(&self.inner);
        let made = self.jobs.detached(async move { inner.update(&cx, changed, &paths).await }).await?;
        answer(pb::UpdateResponse { info: Some(to_proto(made)) })
    }

    // Class (c). Source: features E25: filters are taken and not looked at.
    async fn list(&self, req: Request<pb::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let (cx, left, _) = attend(req)?;
        let all = self.inner.list(&cx).await.map_err(to_status)?;
        Ok(Response::new(singles(all, left, to_proto, |info| pb::ListMessage { info: Some(info) })))
    }
}
