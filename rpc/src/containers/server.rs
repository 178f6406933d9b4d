//! Serves containers.

use std::sync::Arc;

use gantry_api::containerd::services::containers::v1 as pb;
use gantry_core::ResultExt as _;
use gantry_core::containers::ContainerStore;
use tonic::{Request, Response, Status};

use super::convert::{container_from_proto, container_to_proto};
use crate::call::{attend, open};
use crate::jobs::JobSet;
use crate::message::{Answers, answer, collect, singles};
use crate::{field_mask, to_status};

/// Serves a container store.
pub struct GrpcContainers {
    inner: Arc<dyn ContainerStore>,
    jobs: JobSet,
}

impl GrpcContainers {
    /// Serves `inner`; mutations run on `jobs`.
    pub fn new(inner: Arc<dyn ContainerStore>, jobs: JobSet) -> Self {
        GrpcContainers { inner, jobs }
    }
}

#[tonic::async_trait]
impl pb::containers_server::Containers for GrpcContainers {
    type ListStreamStream = Answers<pb::ListContainerMessage>;

    // Class (c).
    async fn get(
        &self,
        req: Request<pb::GetContainerRequest>,
    ) -> Result<Response<pb::GetContainerResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let container = self.inner.get(&cx, &req.id).await.map_err(to_status)?;
        answer(pb::GetContainerResponse { container: Some(container_to_proto(container)) })
    }

    // Class (c).
    async fn list(
        &self,
        req: Request<pb::ListContainersRequest>,
    ) -> Result<Response<pb::ListContainersResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let items = self.inner.list(&cx, &req.filters).await.map_err(to_status)?;
        answer(pb::ListContainersResponse { containers: collect(items, container_to_proto).await? })
    }

    // Class (c).
    async fn list_stream(
        &self,
        req: Request<pb::ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let (cx, left, req) = attend(req)?;
        let items = self.inner.list(&cx, &req.filters).await.map_err(to_status)?;
        let message = |container| pb::ListContainerMessage { container: Some(container) };
        Ok(Response::new(singles(items, left, container_to_proto, message)))
    }

    // Class (a).
    async fn create(
        &self,
        req: Request<pb::CreateContainerRequest>,
    ) -> Result<Response<pb::CreateContainerResponse>, Status> {
        let (cx, req) = open(req)?;
        // Source: observed answers, for the words.
        let new = container_from_proto(req.container).context("create container failed validation");
        let new = new.map_err(to_status)?;
        let inner = Arc::clone(&self.inner);
        let made = self.jobs.detached(async move { inner.create(&cx, new).await }).await?;
        answer(pb::CreateContainerResponse { container: Some(container_to_proto(made)) })
    }

    // Class (a).
    async fn update(
        &self,
        req: Request<pb::UpdateContainerRequest>,
    ) -> Result<Response<pb::UpdateContainerResponse>, Status> {
        let (cx, req) = open(req)?;
        let changed = container_from_proto(req.container).map_err(to_status)?;
        let mask = field_mask::from_proto(req.update_mask);
        let inner = Arc::clone(&self.inner);
        let made = self.jobs.detached(async move { inner.update(&cx, changed, &mask).await }).await?;
        answer(pb::UpdateContainerResponse { container: Some(container_to_proto(made)) })
    }

    // Class (a).
    async fn delete(&self, req: Request<pb::DeleteContainerRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let inner = Arc::clone(&self.inner);
        self.jobs.detached(async move { inner.delete(&cx, &req.id).await }).await.map(Response::new)
    }
}
