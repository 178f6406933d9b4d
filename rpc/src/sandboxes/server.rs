//! Serves the sandbox store.

use std::sync::Arc;

use gantry_api::containerd::services::sandbox::v1 as pb;
use gantry_core::field_mask::FieldMask;
use gantry_core::sandboxes::SandboxStore;
use tonic::{Request, Response, Status};

use super::convert::{from_proto, to_proto};
use crate::call::{attend, open};
use crate::jobs::JobSet;
use crate::message::answer;
use crate::to_status;

/// Serves a sandbox store.
pub struct GrpcSandboxes {
    inner: Arc<dyn SandboxStore>,
    jobs: JobSet,
}

impl GrpcSandboxes {
    /// Serves `inner`; mutations run on `jobs`.
    pub fn new(inner: Arc<dyn SandboxStore>, jobs: JobSet) -> Self {
        GrpcSandboxes { inner, jobs }
    }
}

#[tonic::async_trait]
impl pb::store_server::Store for GrpcSandboxes {
    // Class (a).
    async fn create(
        &self,
        req: Request<pb::StoreCreateRequest>,
    ) -> Result<Response<pb::StoreCreateResponse>, Status> {
        let (cx, req) = open(req)?;
        let new = from_proto(req.sandbox).map_err(to_status)?;
        let inner = Arc::clone(&self.inner);
        let made = self.jobs.detached(async move { inner.create(&cx, new).await }).await?;
        answer(pb::StoreCreateResponse { sandbox: Some(to_proto(made)) })
    }

    // Class (a).
    async fn update(
        &self,
        req: Request<pb::StoreUpdateRequest>,
    ) -> Result<Response<pb::StoreUpdateResponse>, Status> {
        let (cx, req) = open(req)?;
        let changed = from_proto(req.sandbox).map_err(to_status)?;
        let mask = FieldMask::new(req.fields);
        let inner = Arc::clone(&self.inner);
        let made = self.jobs.detached(async move { inner.update(&cx, changed, &mask).await }).await?;
        answer(pb::StoreUpdateResponse { sandbox: Some(to_proto(made)) })
    }

    // Class (a).
    async fn delete(
        &self,
        req: Request<pb::StoreDeleteRequest>,
    ) -> Result<Response<pb::StoreDeleteResponse>, Status> {
        let (cx, req) = open(req)?;
        let inner = Arc::clone(&self.inner);
        self.jobs.detached(async move { inner.delete(&cx, &req.sandbox_id).await }).await?;
        answer(pb::StoreDeleteResponse {})
    }

    // Class (c).
    async fn list(
        &self,
        req: Request<pb::StoreListRequest>,
    ) -> Result<Response<pb::StoreListResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let all = self.inner.list(&cx, &req.filters).await.map_err(to_status)?;
        answer(pb::StoreListResponse { list: all.into_iter().map(to_proto).collect() })
    }

    // Class (c).
    async fn get(&self, req: Request<pb::StoreGetRequest>) -> Result<Response<pb::StoreGetResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let sandbox = self.inner.get(&cx, &req.sandbox_id).await.map_err(to_status)?;
        answer(pb::StoreGetResponse { sandbox: Some(to_proto(sandbox)) })
    }
}
