//! The daemon's half of events: what shims forward, handed to whoever publishes.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_api::containerd::services::events::ttrpc::v1::ForwardRequest;
use gantry_core::events::EventPublisher;
use gantry_core::{Error, Result};
use gantry_ttrpc::service::{decode, no_method};
use gantry_ttrpc::{CallContext, Service};

use crate::convert;

/// The service's name. Source: `containerd.services.events.ttrpc.v1`.
pub const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// Serves an [`EventPublisher`] to shims.
pub struct ForwardService(Arc<dyn EventPublisher>);

impl ForwardService {
    /// The service that hands events to `events`.
    pub fn new(events: Arc<dyn EventPublisher>) -> ForwardService {
        ForwardService(events)
    }
}

impl std::fmt::Debug for ForwardService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ForwardService")
    }
}

#[async_trait]
impl Service for ForwardService {
    async fn call(&self, method: &str, payload: Bytes, _cx: CallContext) -> Result<Bytes> {
        if method != "Forward" {
            return Err(no_method(method));
        }
        let request: ForwardRequest = decode(payload)?;
        let envelope = request.envelope.ok_or_else(|| Error::invalid_argument("envelope is missing"))?;
        self.0.forward(convert::envelope_from_proto(envelope)?).await?;
        Ok(Bytes::new())
    }
}
