//! The event exchange of a daemon elsewhere.

use std::sync::Arc;

use gantry_api::containerd::services::events::v1 as pb;
use gantry_core::events::{Envelope, Event, EventPayload, EventPublisher, EventService, EventSubscriber};
use gantry_core::{Context, ItemStream, Result};
use tonic::transport::Channel;

use super::convert::{envelope_from_proto, envelope_to_proto, payload_to_proto};
use crate::remote::{ask, items, remote};

remote! {
    /// An exchange elsewhere.
    RemoteEvents, pb::events_client::EventsClient<Channel>
}

#[async_trait::async_trait]
impl EventSubscriber for RemoteEvents {
    async fn subscribe(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<Arc<Envelope>>> {
        let messages = ask!(self.subscribe(cx, pb::SubscribeRequest { filters: filters.to_vec() }));
        Ok(items(messages, |envelope| Some(envelope_from_proto(envelope).map(Arc::new))))
    }
}

#[async_trait::async_trait]
impl EventService for RemoteEvents {
    async fn publish_any(&self, cx: &Context, topic: &str, payload: EventPayload) -> Result<()> {
        let event = Some(payload_to_proto(payload));
        ask!(self.publish(cx, pb::PublishRequest { topic: topic.to_owned(), event }));
        Ok(())
    }

    async fn forward(&self, envelope: Envelope) -> Result<()> {
        let request = pb::ForwardRequest { envelope: Some(envelope_to_proto(envelope)) };
        ask!(self.forward(&Context::background(), request));
        Ok(())
    }
}

#[async_trait::async_trait]
impl EventPublisher for RemoteEvents {
    async fn publish(&self, cx: &Context, event: Event) {
        let topic = event.topic();
        if let Err(error) = self.publish_any(cx, topic, EventPayload::Typed(event)).await {
            tracing::warn!(topic, %error, "an event was not published");
        }
    }

    async fn forward(&self, envelope: Envelope) -> Result<()> {
        EventService::forward(self, envelope).await
    }
}
