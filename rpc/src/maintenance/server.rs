//! Serves maintenance.

use std::sync::Arc;

use futures_util::StreamExt as _;
use gantry_api::gantry::services::maintenance::v1 as pb;
use gantry_core::maintenance::Maintenance;
use gantry_core::maintenance::check::CheckOptions;
use tonic::{Request, Response, Status};

use super::convert::{
    collected_to_proto, doomed_to_proto, event_to_proto, explanation_to_proto, object_from_proto,
};
use crate::call::{attend, attend_unscoped, open_unscoped};
use crate::jobs::JobSet;
use crate::message::{Answers, answer, pages, singles};
use crate::to_status;

/// Serves whoever looks after a store.
pub struct GrpcMaintenance {
    inner: Arc<dyn Maintenance>,
    jobs: JobSet,
}

impl GrpcMaintenance {
    /// Serves `inner`; collections run on `jobs`, and checks end when they stop.
    pub fn new(inner: Arc<dyn Maintenance>, jobs: JobSet) -> Self {
        GrpcMaintenance { inner, jobs }
    }
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for GrpcMaintenance {
    type WhatWouldGoStream = Answers<pb::WhatWouldGoResponse>;
    type CheckStream = Answers<pb::CheckResponse>;

    // Class (c).
    async fn explain(
        &self,
        req: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        let (cx, _left, req) = attend(req)?;
        let object = object_from_proto(req.object).map_err(to_status)?;
        answer(explanation_to_proto(self.inner.explain(&cx, &object).await.map_err(to_status)?))
    }

    // Class (c).
    async fn what_would_go(
        &self,
        req: Request<pb::WhatWouldGoRequest>,
    ) -> Result<Response<Self::WhatWouldGoStream>, Status> {
        let (cx, left, _) = attend(req)?;
        let doomed = self.inner.preview(&cx).await.map_err(to_status)?;
        let answers = pages(doomed, left, doomed_to_proto, |objects| pb::WhatWouldGoResponse { objects });
        Ok(Response::new(answers))
    }

    // Class (a).
    async fn collect(
        &self,
        req: Request<pb::CollectRequest>,
    ) -> Result<Response<pb::CollectResponse>, Status> {
        let (cx, _) = open_unscoped(req);
        let inner = Arc::clone(&self.inner);
        let collected = self.jobs.detached(async move { inner.collect(&cx).await }).await?;
        answer(collected_to_proto(collected))
    }

    // Class (b): the check is the store's own job, and ends when nobody takes its findings any more.
    async fn check(&self, req: Request<pb::CheckRequest>) -> Result<Response<Self::CheckStream>, Status> {
        let (cx, left, req) = attend_unscoped(req);
        let options = CheckOptions { deep: req.deep, repair: req.repair };
        let events = self.inner.check(&cx, options).await.map_err(to_status)?;
        let answers = singles(events, left, event_to_proto, |event| event);
        let stopping = self.jobs.stopping().clone().cancelled_owned();
        Ok(Response::new(answers.take_until(stopping).boxed()))
    }
}
