//! Serves differs. Both methods are of class (b).

use std::sync::Arc;

use gantry_api::containerd::services::diff::v1 as pb;
use gantry_core::Error;
use gantry_core::diff::{ApplyDiff, CompareDiff, DiffApplier, DiffComparer};
use tonic::{Request, Response, Status};

use crate::call::{attend, present};
use crate::jobs::JobSet;
use crate::message::answer;
use crate::{any, descriptor, mount, timestamp, to_status};

/// Serves an applier and a comparer; what is not there is UNIMPLEMENTED.
pub struct GrpcDiff {
    applier: Option<Arc<dyn DiffApplier>>,
    comparer: Option<Arc<dyn DiffComparer>>,
    jobs: JobSet,
}

impl GrpcDiff {
    /// Serves both; the work runs on `jobs`.
    pub fn new(
        applier: Option<Arc<dyn DiffApplier>>,
        comparer: Option<Arc<dyn DiffComparer>>,
        jobs: JobSet,
    ) -> Self {
        GrpcDiff { applier, comparer, jobs }
    }
}

fn missing(what: &'static str) -> Status {
    to_status(Error::unimplemented(what))
}

#[tonic::async_trait]
impl pb::diff_server::Diff for GrpcDiff {
    async fn apply(&self, req: Request<pb::ApplyRequest>) -> Result<Response<pb::ApplyResponse>, Status> {
        let (cx, left, req) = attend(req)?;
        let applier = self.applier.clone().ok_or_else(|| missing("apply a diff"))?;
        let layer = present(req.diff, "diff").and_then(|diff| descriptor::from_proto(diff, "diff"));
        let layer = layer.map_err(to_status)?;
        let mounts = mount::from_proto(req.mounts);
        let payloads = req.payloads.into_iter().map(|(key, value)| (key, any::from_proto(value))).collect();
        let how = ApplyDiff { payloads, sync_fs: req.sync_fs };
        let work = async move { applier.apply(&cx, &layer, &mounts, how).await };
        let applied = self.jobs.long(left, work).await?;
        answer(pb::ApplyResponse { applied: Some(descriptor::to_proto(applied)) })
    }

    async fn diff(&self, req: Request<pb::DiffRequest>) -> Result<Response<pb::DiffResponse>, Status> {
        let (cx, left, req) = attend(req)?;
        let comparer = self.comparer.clone().ok_or_else(|| missing("compute a diff"))?;
        let epoch = timestamp::optional(req.source_date_epoch, "source_date_epoch").map_err(to_status)?;
        let how = CompareDiff {
            media_type: req.media_type,
            reference: req.r#ref,
            labels: req.labels,
            source_date_epoch: epoch,
        };
        let (lower, upper) = (mount::from_proto(req.left), mount::from_proto(req.right));
        let work = async move { comparer.compare(&cx, &lower, &upper, how).await };
        let diff = self.jobs.long(left, work).await?;
        answer(pb::DiffResponse { diff: Some(descriptor::to_proto(diff)) })
    }
}
