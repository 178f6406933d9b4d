//! Serves the event exchange.

use std::sync::Arc;

use futures_util::StreamExt as _;
use gantry_api::containerd::services::events::v1 as pb;
use gantry_api::containerd::types::Envelope as ProtoEnvelope;
use gantry_core::events::EventService;
use gantry_core::{Error, ErrorKind};
use tonic::{Request, Response, Status};

use super::convert::{envelope_from_proto, envelope_to_proto, payload_from_proto};
use crate::call::{attend_unscoped, open, open_unscoped, present};
use crate::jobs::JobSet;
use crate::message::Answers;
use crate::to_status;

/// Serves an exchange.
pub struct GrpcEvents {
    inner: Arc<dyn EventService>,
    jobs: JobSet,
}

impl GrpcEvents {
    /// Serves `inner`; subscriptions end when `jobs` stop.
    pub fn new(inner: Arc<dyn EventService>, jobs: JobSet) -> Self {
        GrpcEvents { inner, jobs }
    }
}

#[tonic::async_trait]
impl pb::events_server::Events for GrpcEvents {
    type SubscribeStream = Answers<ProtoEnvelope>;

    // Class (a).
    async fn publish(&self, req: Request<pb::PublishRequest>) -> Result<Response<()>, Status> {
        let (cx, req) = open(req)?;
        let payload = payload_from_proto(present(req.event, "event").map_err(to_status)?);
        let inner = Arc::clone(&self.inner);
        let work = async move { inner.publish_any(&cx, &req.topic, payload).await };
        self.jobs.detached(work).await.map(Response::new)
    }

    // Class (a). The envelope's namespace counts, not the header's.
    async fn forward(&self, req: Request<pb::ForwardRequest>) -> Result<Response<()>, Status> {
        let (_, req) = open_unscoped(req);
        let envelope = present(req.envelope, "envelope").and_then(envelope_from_proto).map_err(to_status)?;
        let inner = Arc::clone(&self.inner);
        self.jobs.detached(async move { inner.forward(envelope).await }).await.map(Response::new)
    }

    // Class (c). Source: observed: a bad filter is UNKNOWN here.
    async fn subscribe(
        &self,
        req: Request<pb::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (cx, left, req) = attend_unscoped(req);
        let events = self.inner.subscribe(&cx, &req.filters).await.map_err(|error| match error.kind() {
            ErrorKind::InvalidArgument => to_status(Error::unknown(error.message())),
            _ => to_status(error),
        })?;
        let events = events.map(move |event| {
            let _held = &left;
            event.map(|event| envelope_to_proto((*event).clone())).map_err(to_status)
        });
        let stopping = self.jobs.stopping().clone().cancelled_owned();
        Ok(Response::new(events.take_until(stopping).boxed()))
    }
}
