//! Serves snapshotters by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::containerd::services::snapshots::v1 as pb;
use gantry_core::snapshots::{CommitSnapshot, NewSnapshot, Snapshotter};
use gantry_core::{Error, Labels, Result, SnapshotKey};
use tonic::{Request, Response, Status};

use super::convert::to_proto;
use crate::call::{attend, open, present};
use crate::jobs::JobSet;
use crate::message::{Answers, answer, pages};
use crate::{field_mask, mount, to_status};

/// Serves every snapshotter of a daemon.
pub struct GrpcSnapshots {
    inner: BTreeMap<String, Arc<dyn Snapshotter>>,
    jobs: JobSet,
}

impl GrpcSnapshots {
    /// Serves `inner`, by name; mutations run on `jobs`.
    pub fn new(inner: BTreeMap<String, Arc<dyn Snapshotter>>, jobs: JobSet) -> Self {
        GrpcSnapshots { inner, jobs }
    }

    fn named(&self, name: &str) -> Result<Arc<dyn Snapshotter>, Status> {
        // Source: containerd's answers for a missing and an unknown name.
        let found = self.inner.get(name).cloned().ok_or_else(|| match name {
            "" => Error::invalid_argument("snapshotter argument missing"),
            name => Error::invalid_argument(format!("snapshotter not loaded: {name}")),
        });
        found.map_err(to_status)
    }
}

/// The key of a snapshot that is to be made. Source: observed: an empty one is UNKNOWN, from the database below.
fn new_key(key: String) -> Result<SnapshotKey, Status> {
    SnapshotKey::parse(key).map_err(|_| to_status(Error::unknown("bucket name required")))
}

/// The key of a snapshot that is to be there; no snapshot has the empty one.
fn known_key(key: String) -> Result<SnapshotKey, Status> {
    SnapshotKey::parse(key).map_err(|_| to_status(Error::not_found("snapshot \"\"")))
}

fn parent(parent: String) -> Option<SnapshotKey> {
    SnapshotKey::parse(parent).ok()
}

fn new_snapshot(key: String, from: String, labels: Labels) -> Result<NewSnapshot, Status> {
    Ok(NewSnapshot { key: new_key(key)?, parent: parent(from), labels })
}

#[tonic::async_trait]
impl pb::snapshots_server::Snapshots for GrpcSnapshots {
    type ListStream = Answers<pb::ListSnapshotsResponse>;

    // Class (a).
    async fn prepare(
        &self,
        req: Request<pb::PrepareSnapshotRequest>,
    ) -> Result<Response<pb::PrepareSnapshotResponse>, Status> {
        let (cx, req) = open(req)?;
        let inner = self.named(&req.snapshotter)?;
        let new = new_snapshot(req.key, req.parent, req.labels)?;
        let mounts = self.jobs.detached(async move { inner.prepare(&cx, new).await }).await?;
        answer(pb::PrepareSnapshotResponse { mounts: mount::to_proto(mounts) })
    }

    // Class (a).
    async fn view(
        &self,
        req: Request<pb::ViewSnapshotRequest>,
    ) -> Result<Response<pb::ViewSnapshotResponse>, Status> {
        let (cx, req) = open(req)?;
        let inner = self.named(&req.snapshotter)?;
        let new = new_snapshot(req.key, req.parent, req.labels)?;
        let mounts = self.jobs.detached(async move { inner.view(&cx, new).await }).await?;
        answer(pb::ViewSnapshotResponse { mounts: mount::to_proto(mounts) })
    }

    // Class (c).
    async fn mounts(&self, req: Request<pb::MountsRequest>) -> Result<Response<pb::MountsResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let inner = self.named(&req.snapshotter)?;
        let mounts = inner.mounts(&cx, &known_key(req.key)?).await.map_err(to_status)?;
        answer(pb::MountsResponse { mounts: mount::to_proto(mounts) })
    }

    // Class (a).
    async fn commit(&self, req: Request<pb::CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let inner = self.named(&req.snapshotter)?;
        let how = CommitSnapshot {
            name: new_key(req.name)?,
            key: known_key(req.key)?,
            labels: req.labels,
            parent: parent(req.parent),
        };
        self.jobs.detached(async move { inner.commit(&cx, how).await }).await.map(Response::new)
    }

    // Class (a).
    async fn remove(&self, req: Request<pb::RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let inner = self.named(&req.snapshotter)?;
        let key = known_key(req.key)?;
        self.jobs.detached(async move { inner.remove(&cx, &key).await }).await.map(Response::new)
    }

    // Class (c).
    async fn stat(
        &self,
        req: Request<pb::StatSnapshotRequest>,
    ) -> Result<Response<pb::StatSnapshotResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let inner = self.named(&req.snapshotter)?;
        let info = inner.stat(&cx, &known_key(req.key)?).await.map_err(to_status)?;
        answer(pb::StatSnapshotResponse { info: Some(to_proto(info)) })
    }

    // Class (a).
    async fn update(
        &self,
        req: Request<pb::UpdateSnapshotRequest>,
    ) -> Result<Response<pb::UpdateSnapshotResponse>, Status> {
        let (cx, req) = open(req)?;
        let inner = self.named(&req.snapshotter)?;
        let changed = present(req.info, "info").map_err(to_status)?;
        let key = known_key(changed.name)?;
        let mask = field_mask::from_proto(req.update_mask);
        let work = async move { inner.update(&cx, &key, changed.labels, &mask).await };
        let info = self.jobs.detached(work).await?;
        answer(pb::UpdateSnapshotResponse { info: Some(to_proto(info)) })
    }

    // Class (c).
    async fn list(
        &self,
        req: Request<pb::ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let (cx, left, req) = attend(req)?;
        let inner = self.named(&req.snapshotter)?;
        // Source: observed: without namespace this call alone of the service is UNKNOWN.
        cx.namespace().map_err(|error| to_status(Error::unknown(error.message())))?;
        let items = inner.list(&cx, &req.filters).await.map_err(to_status)?;
        let message = |info| pb::ListSnapshotsResponse { info };
        Ok(Response::new(pages(items, left, to_proto, message)))
    }

    // Class (c).
    async fn usage(&self, req: Request<pb::UsageRequest>) -> Result<Response<pb::UsageResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let inner = self.named(&req.snapshotter)?;
        let usage = inner.usage(&cx, &known_key(req.key)?).await.map_err(to_status)?;
        let number = |value| i64::try_from(value).unwrap_or(i64::MAX);
        answer(pb::UsageResponse { size: number(usage.size_bytes), inodes: number(usage.inodes) })
    }

    // Class (a).
    async fn cleanup(&self, req: Request<pb::CleanupRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let inner = self.named(&req.snapshotter)?;
        self.jobs.detached(async move { inner.cleanup(&cx).await }).await.map(Response::new)
    }
}
