//! Serves leases.

use std::sync::Arc;

use gantry_api::containerd::services::leases::v1 as pb;
use gantry_core::LeaseId;
use gantry_core::leases::LeaseManager;
use tonic::{Request, Response, Status};

use super::convert::{resource_from_proto, resource_to_proto, to_proto};
use crate::call::{attend, open};
use crate::jobs::JobSet;
use crate::message::answer;
use crate::to_status;

/// Serves a lease manager.
pub struct GrpcLeases {
    inner: Arc<dyn LeaseManager>,
    jobs: JobSet,
}

impl GrpcLeases {
    /// Serves `inner`; mutations run on `jobs`.
    pub fn new(inner: Arc<dyn LeaseManager>, jobs: JobSet) -> Self {
        GrpcLeases { inner, jobs }
    }
}

#[tonic::async_trait]
impl pb::leases_server::Leases for GrpcLeases {
    // Class (a).
    async fn create(&self, req: Request<pb::CreateRequest>) -> Result<Response<pb::CreateResponse>, Status> {
        let (cx, req) = open(req)?;
        let id = Some(req.id).filter(|id| !id.is_empty()).map(LeaseId::parse).transpose();
        let id = id.map_err(to_status)?;
        let inner = Arc::clone(&self.inner);
        let made = self.jobs.detached(async move { inner.create(&cx, id, req.labels).await }).await?;
        answer(pb::CreateResponse { lease: Some(to_proto(made)) })
    }

    // Class (a).
    async fn delete(&self, req: Request<pb::DeleteRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let id = LeaseId::parse(req.id).map_err(to_status)?;
        let inner = Arc::clone(&self.inner);
        self.jobs.detached(async move { inner.delete(&cx, &id, req.sync).await }).await.map(Response::new)
    }

    // Class (c).
    async fn list(&self, req: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let all = self.inner.list(&cx, &req.filters).await.map_err(to_status)?;
        answer(pb::ListResponse { leases: all.into_iter().map(to_proto).collect() })
    }

    // Class (a).
    async fn add_resource(&self, req: Request<pb::AddResourceRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let id = LeaseId::parse(req.id).map_err(to_status)?;
        let resource = resource_from_proto(req.resource).map_err(to_status)?;
        let inner = Arc::clone(&self.inner);
        let work = async move { inner.add_resource(&cx, &id, resource).await };
        self.jobs.detached(work).await.map(Response::new)
    }

    // Class (a).
    async fn delete_resource(&self, req: Request<pb::DeleteResourceRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let id = LeaseId::parse(req.id).map_err(to_status)?;
        let resource = resource_from_proto(req.resource).map_err(to_status)?;
        let inner = Arc::clone(&self.inner);
        let work = async move { inner.delete_resource(&cx, &id, resource).await };
        self.jobs.detached(work).await.map(Response::new)
    }

    // Class (c).
    async fn list_resources(
        &self,
        req: Request<pb::ListResourcesRequest>,
    ) -> Result<Response<pb::ListResourcesResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let id = LeaseId::parse(req.id).map_err(to_status)?;
        let all = self.inner.resources(&cx, &id).await.map_err(to_status)?;
        answer(pb::ListResourcesResponse { resources: all.into_iter().map(resource_to_proto).collect() })
    }
}
