//! Serves namespaces. The header's namespace is not looked at.

use std::sync::Arc;

use gantry_api::containerd::services::namespaces::v1 as pb;
use gantry_core::namespaces::NamespaceStore;
use gantry_core::{Error, Namespace};
use tonic::{Request, Response, Status};

use super::convert::{from_proto, to_proto};
use crate::call::{attend_unscoped, open_unscoped};
use crate::jobs::JobSet;
use crate::message::answer;
use crate::{field_mask, to_status};

/// Serves a namespace store.
pub struct GrpcNamespaces {
    inner: Arc<dyn NamespaceStore>,
    jobs: JobSet,
}

impl GrpcNamespaces {
    /// Serves `inner`; mutations run on `jobs`.
    pub fn new(inner: Arc<dyn NamespaceStore>, jobs: JobSet) -> Self {
        GrpcNamespaces { inner, jobs }
    }
}

#[tonic::async_trait]
impl pb::namespaces_server::Namespaces for GrpcNamespaces {
    // Class (c). Any name is answered, also one that is none.
    async fn get(
        &self,
        req: Request<pb::GetNamespaceRequest>,
    ) -> Result<Response<pb::GetNamespaceResponse>, Status> {
        let (cx, _left, req) = attend_unscoped(req);
        let labels = self.inner.labels(&cx, &req.name).await.map_err(to_status)?;
        answer(pb::GetNamespaceResponse { namespace: Some(pb::Namespace { name: req.name, labels }) })
    }

    // Class (c).
    async fn list(
        &self,
        req: Request<pb::ListNamespacesRequest>,
    ) -> Result<Response<pb::ListNamespacesResponse>, Status> {
        let (cx, _left, _) = attend_unscoped(req);
        let all = self.inner.list(&cx).await.map_err(to_status)?;
        answer(pb::ListNamespacesResponse { namespaces: all.into_iter().map(to_proto).collect() })
    }

    // Class (a).
    async fn create(
        &self,
        req: Request<pb::CreateNamespaceRequest>,
    ) -> Result<Response<pb::CreateNamespaceResponse>, Status> {
        let (cx, req) = open_unscoped(req);
        let new = from_proto(req.namespace).map_err(to_status)?;
        let inner = Arc::clone(&self.inner);
        let made = self.jobs.detached(async move { inner.create(&cx, new).await }).await?;
        answer(pb::CreateNamespaceResponse { namespace: Some(to_proto(made)) })
    }

    // Class (a). Source: observed: the answer has no namespace in it.
    async fn update(
        &self,
        req: Request<pb::UpdateNamespaceRequest>,
    ) -> Result<Response<pb::UpdateNamespaceResponse>, Status> {
        let (cx, req) = open_unscoped(req);
        let changed = from_proto(req.namespace).map_err(to_status)?;
        let mask = field_mask::from_proto(req.update_mask);
        let inner = Arc::clone(&self.inner);
        self.jobs.detached(async move { inner.update(&cx, changed, &mask).await }).await?;
        answer(pb::UpdateNamespaceResponse { namespace: None })
    }

    // Class (a).
    async fn delete(&self, req: Request<pb::DeleteNamespaceRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open_unscoped(req);
        let Ok(name) = Namespace::parse(req.name.clone()) else {
            return Err(to_status(Error::not_found(format!("namespace {:?}", req.name))));
        };
        let inner = Arc::clone(&self.inner);
        self.jobs.detached(async move { inner.delete(&cx, &name).await }).await.map(Response::new)
    }
}
