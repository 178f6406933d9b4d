//! Serves images.

use std::sync::Arc;

use gantry_api::containerd::services::images::v1 as pb;
use gantry_core::images::{DeleteImage, ImageStore};
use gantry_core::{Digest, ResultExt as _};
use tonic::{Request, Response, Status};

use super::convert::{change_from_proto, from_proto, to_proto};
use crate::call::{attend, open};
use crate::jobs::JobSet;
use crate::message::{answer, collect};
use crate::{field_mask, timestamp, to_status};

/// Serves an image store.
pub struct GrpcImages {
    inner: Arc<dyn ImageStore>,
    jobs: JobSet,
}

impl GrpcImages {
    /// Serves `inner`; mutations run on `jobs`.
    pub fn new(inner: Arc<dyn ImageStore>, jobs: JobSet) -> Self {
        GrpcImages { inner, jobs }
    }
}

#[tonic::async_trait]
impl pb::images_server::Images for GrpcImages {
    // Class (c).
    async fn get(&self, req: Request<pb::GetImageRequest>) -> Result<Response<pb::GetImageResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let image = self.inner.get(&cx, &req.name).await.map_err(to_status)?;
        answer(pb::GetImageResponse { image: Some(to_proto(image)) })
    }

    // Class (c).
    async fn list(
        &self,
        req: Request<pb::ListImagesRequest>,
    ) -> Result<Response<pb::ListImagesResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let items = self.inner.list(&cx, &req.filters).await.map_err(to_status)?;
        answer(pb::ListImagesResponse { images: collect(items, to_proto).await? })
    }

    // Class (a).
    async fn create(
        &self,
        req: Request<pb::CreateImageRequest>,
    ) -> Result<Response<pb::CreateImageResponse>, Status> {
        let (cx, req) = open(req)?;
        let new = from_proto(req.image).map_err(to_status)?;
        let epoch = timestamp::optional(req.source_date_epoch, "source_date_epoch").map_err(to_status)?;
        let inner = Arc::clone(&self.inner);
        let made = self.jobs.detached(async move { inner.create(&cx, new, epoch).await }).await?;
        answer(pb::CreateImageResponse { image: Some(to_proto(made)) })
    }

    // Class (a).
    async fn update(
        &self,
        req: Request<pb::UpdateImageRequest>,
    ) -> Result<Response<pb::UpdateImageResponse>, Status> {
        let (cx, req) = open(req)?;
        let changed = change_from_proto(req.image).map_err(to_status)?;
        let epoch = timestamp::optional(req.source_date_epoch, "source_date_epoch").map_err(to_status)?;
        let mask = field_mask::from_proto(req.update_mask);
        let inner = Arc::clone(&self.inner);
        let made = self.jobs.detached(async move { inner.update(&cx, changed, &mask, epoch).await }).await?;
        answer(pb::UpdateImageResponse { image: Some(to_proto(made)) })
    }

    // Class (a). Of the target only the digest counts; an empty one is no condition.
    async fn delete(&self, req: Request<pb::DeleteImageRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let digest = req.target.map(|target| target.digest).filter(|digest| !digest.is_empty());
        let if_target = digest.map(Digest::parse).transpose().context("target").map_err(to_status)?;
        let how = DeleteImage { sync: req.sync, if_target };
        let inner = Arc::clone(&self.inner);
        self.jobs.detached(async move { inner.delete(&cx, &req.name, how).await }).await.map(Response::new)
    }
}
