//! Serves content; the write's conversation is in `write.rs`.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use gantry_api::containerd::services::content::v1 as pb;
use gantry_core::content::ContentStore;
use gantry_core::{Digest, Error, IngestRef};
use tonic::{Request, Response, Status, Streaming};

use super::convert::{info_to_proto, signed, status_to_proto};
use super::write;
use crate::call::{attend, open, present};
use crate::jobs::JobSet;
use crate::message::{Answers, answer, pages};
use crate::{field_mask, to_status};

/// How much of a blob one message of a read holds. Source: the buffer size of containerd's read.
const CHUNK_BYTES: u64 = 1 << 20;

/// Serves a content store.
pub struct GrpcContent {
    inner: Arc<dyn ContentStore>,
    jobs: JobSet,
}

impl GrpcContent {
    /// Serves `inner`; mutations and writes run on `jobs`.
    pub fn new(inner: Arc<dyn ContentStore>, jobs: JobSet) -> Self {
        GrpcContent { inner, jobs }
    }
}

fn digest(text: String) -> Result<Digest, Status> {
    Digest::parse(text).map_err(to_status)
}

/// No ingest has the empty ref.
fn reference(text: String) -> Result<IngestRef, Status> {
    IngestRef::parse(text).map_err(|_| to_status(Error::not_found("ingest \"\"")))
}

#[tonic::async_trait]
impl pb::content_server::Content for GrpcContent {
    type ListStream = Answers<pb::ListContentResponse>;
    type ReadStream = Answers<pb::ReadContentResponse>;
    type WriteStream = Answers<pb::WriteContentResponse>;

    // Class (c).
    async fn info(&self, req: Request<pb::InfoRequest>) -> Result<Response<pb::InfoResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let info = self.inner.info(&cx, &digest(req.digest)?).await.map_err(to_status)?;
        answer(pb::InfoResponse { info: Some(info_to_proto(info)) })
    }

    // Class (a).
    async fn update(&self, req: Request<pb::UpdateRequest>) -> Result<Response<pb::UpdateResponse>, Status> {
        let (cx, req) = open(req)?;
        let changed = present(req.info, "info").map_err(to_status)?;
        let digest = digest(changed.digest)?;
        let mask = field_mask::from_proto(req.update_mask);
        let inner = Arc::clone(&self.inner);
        let work = async move { inner.update(&cx, &digest, changed.labels, &mask).await };
        let info = self.jobs.detached(work).await?;
        answer(pb::UpdateResponse { info: Some(info_to_proto(info)) })
    }

    // Class (c).
    async fn list(&self, req: Request<pb::ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        let (cx, left, req) = attend(req)?;
        let items = self.inner.list(&cx, &req.filters).await.map_err(to_status)?;
        Ok(Response::new(pages(items, left, info_to_proto, |info| pb::ListContentResponse { info })))
    }

    // Class (a).
    async fn delete(&self, req: Request<pb::DeleteContentRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let digest = digest(req.digest)?;
        let inner = Arc::clone(&self.inner);
        self.jobs.detached(async move { inner.delete(&cx, &digest).await }).await.map(Response::new)
    }

    // Class (c). One chunk is read when the client has taken the one before.
    async fn read(&self, req: Request<pb::ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let (cx, left, req) = attend(req)?;
        let reader = self.inner.reader(&cx, &digest(req.digest)?).await.map_err(to_status)?;
        let size = reader.size_bytes();
        let first = u64::try_from(req.offset).unwrap_or(0);
        if first > size {
            return Err(to_status(Error::out_of_range(format!("read past object length {size} bytes"))));
        }
        let end = match u64::try_from(req.size) {
            Ok(wanted) if wanted > 0 => first.saturating_add(wanted).min(size),
            _ => size,
        };
        let chunks = unfold((Some(first), left), move |(at, left)| {
            let reader = Arc::clone(&reader);
            async move {
                let at = at.filter(|at| *at < end)?;
                // The chunk's size fits, since it is at most CHUNK_BYTES.
                let chunk = reader.read_at(at, (end - at).min(CHUNK_BYTES) as usize).await;
                match chunk {
                    Err(error) => Some((Err(to_status(error)), (None, left))),
                    Ok(data) if data.is_empty() => {
                        let error =
                            Error::new(gantry_core::ErrorKind::DataLoss, "blob is shorter than its record");
                        Some((Err(to_status(error)), (None, left)))
                    }
                    Ok(data) => {
                        let next = at + data.len() as u64;
                        // Source: observed: the answer's offset counts from 0, whatever offset was asked.
                        let message = pb::ReadContentResponse { offset: signed(at - first), data };
                        Some((Ok(message), (Some(next), left)))
                    }
                }
            }
        });
        Ok(Response::new(chunks.boxed()))
    }

    // Class (c).
    async fn status(&self, req: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let status = self.inner.status(&cx, &reference(req.r#ref)?).await.map_err(to_status)?;
        answer(pb::StatusResponse { status: Some(status_to_proto(status)) })
    }

    // Class (c).
    async fn list_statuses(
        &self,
        req: Request<pb::ListStatusesRequest>,
    ) -> Result<Response<pb::ListStatusesResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let all = self.inner.statuses(&cx, &req.filters).await.map_err(to_status)?;
        answer(pb::ListStatusesResponse { statuses: all.into_iter().map(status_to_proto).collect() })
    }

    // Class (b).
    async fn write(
        &self,
        req: Request<Streaming<pb::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let (cx, left, messages) = attend(req)?;
        let inner = Arc::clone(&self.inner);
        write::serve(&self.jobs, inner, cx, left, messages).await.map(Response::new)
    }

    // Class (a).
    async fn abort(&self, req: Request<pb::AbortRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let reference = reference(req.r#ref)?;
        let inner = Arc::clone(&self.inner);
        self.jobs.detached(async move { inner.abort(&cx, &reference).await }).await.map(Response::new)
    }
}
