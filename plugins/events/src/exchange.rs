//! The exchange itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_core::events::{
    Envelope, Event, EventPayload, EventPublisher, EventService, EventSubscriber, validate_topic,
};
use gantry_core::filters::Filters;
use gantry_core::{Context, Error, ErrorKind, ItemStream, Namespace, Result, ResultExt as _};

use crate::subscription::{Offered, Subscription};

/// Hands events from publishers to subscribers within the process.
#[derive(Default)]
pub struct EventExchange {
    subscriptions: Mutex<Vec<Subscription>>,
}

impl EventExchange {
    /// An exchange without subscribers.
    pub fn new() -> Self {
        Self::default()
    }

    fn broadcast(&self, envelope: Envelope) {
        let envelope = Arc::new(envelope);
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        subscriptions.retain(|subscription| subscription.offer(&envelope) == Offered::Done);
    }

    fn check_and_broadcast(&self, envelope: Envelope) -> Result<()> {
        // Source: containerd validates namespace and topic of a forwarded envelope, in that order.
        Namespace::parse(envelope.namespace.as_str()).context("event envelope has invalid namespace")?;
        validate_topic(&envelope.topic).context("envelope topic")?;
        self.broadcast(envelope);
        Ok(())
    }
}

#[async_trait]
impl EventPublisher for EventExchange {
    async fn publish(&self, cx: &Context, event: Event) {
        let namespace = cx.namespace_if_any().map(ToString::to_string).unwrap_or_default();
        self.broadcast(Envelope {
            timestamp: SystemTime::now(),
            namespace,
            topic: event.topic().to_owned(),
            payload: EventPayload::Typed(event),
        });
    }

    async fn forward(&self, envelope: Envelope) -> Result<()> {
        self.check_and_broadcast(envelope)
    }
}

#[async_trait]
impl EventSubscriber for EventExchange {
    async fn subscribe(&self, _cx: &Context, filters: &[String]) -> Result<ItemStream<Arc<Envelope>>> {
        let filters = Filters::parse(filters).map_err(|error| {
            Error::with_source(ErrorKind::Unknown, error).context("failed parsing subscription filters")
        })?;
        let (subscription, stream) = Subscription::new(filters);
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner).push(subscription);
        Ok(stream)
    }
}

#[async_trait]
impl EventService for EventExchange {
    async fn publish_any(&self, cx: &Context, topic: &str, payload: EventPayload) -> Result<()> {
        let namespace = cx.namespace()?.to_string();
        self.check_and_broadcast(Envelope {
            timestamp: SystemTime::now(),
            namespace,
            topic: topic.to_owned(),
            payload,
        })
    }

    async fn forward(&self, envelope: Envelope) -> Result<()> {
        self.check_and_broadcast(envelope)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use gantry_core::Any;

    use super::*;
    use crate::subscription::{MAX_WAITING, MAX_WAITING_BYTES};

    fn cx(namespace: &str) -> Context {
        Context::new(Namespace::parse(namespace).unwrap())
    }

    fn image(name: &str) -> Event {
        Event::ImageDelete { name: name.into() }
    }

    fn foreign(bytes: usize) -> EventPayload {
        EventPayload::Foreign { raw: Any::new("t", vec![0; bytes]), decoded: None }
    }

    #[tokio::test]
    async fn a_subscriber_hears_all_namespaces_in_order() {
        let exchange = EventExchange::new();
        let mut heard = exchange.subscribe(&cx("other"), &[]).await.unwrap();
        exchange.publish(&cx("a"), image("1")).await;
        exchange.publish(&cx("b"), image("2")).await;
        for (namespace, name) in [("a", "1"), ("b", "2")] {
            let envelope = heard.next().await.unwrap().unwrap();
            assert_eq!(envelope.namespace, namespace);
            assert_eq!(envelope.payload.event(), Some(&image(name)));
            assert_eq!(envelope.topic, "/images/delete");
        }
    }

    #[tokio::test]
    async fn filters_choose_by_topic_namespace_and_event_field() {
        let exchange = EventExchange::new();
        let filters = ["topic==\"/images/delete\",event.name==x".to_owned(), "namespace==only".to_owned()];
        let mut heard = exchange.subscribe(&cx("a"), &filters).await.unwrap();
        exchange.publish(&cx("a"), image("y")).await;
        exchange.publish(&cx("a"), image("x")).await;
        exchange.publish(&cx("only"), image("z")).await;
        assert_eq!(heard.next().await.unwrap().unwrap().payload.event(), Some(&image("x")));
        assert_eq!(heard.next().await.unwrap().unwrap().payload.event(), Some(&image("z")));
    }

    #[tokio::test]
    async fn a_bad_filter_is_unknown() {
        let error = EventExchange::new().subscribe(&cx("a"), &["a=b".to_owned()]).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unknown);
        assert!(error.to_string().contains("position"), "{error}");
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_ended_and_others_go_on() {
        let exchange = EventExchange::new();
        let mut slow = exchange.subscribe(&cx("a"), &[]).await.unwrap();
        let mut other = exchange.subscribe(&cx("a"), &["event.name==last".to_owned()]).await.unwrap();
        for _ in 0..=MAX_WAITING {
            exchange.publish(&cx("a"), image("x")).await;
        }
        exchange.publish(&cx("a"), image("last")).await;
        assert_eq!(other.next().await.unwrap().unwrap().payload.event(), Some(&image("last")));
        for _ in 0..MAX_WAITING {
            slow.next().await.unwrap().unwrap();
        }
        assert_eq!(slow.next().await.unwrap().unwrap_err().kind(), ErrorKind::ResourceExhausted);
        assert!(slow.next().await.is_none());
        assert_eq!(exchange.subscriptions.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn waiting_bytes_are_bounded_too() {
        let exchange = EventExchange::new();
        let mut slow = exchange.subscribe(&cx("a"), &[]).await.unwrap();
        for _ in 0..5 {
            exchange.publish_any(&cx("a"), "/x", foreign(MAX_WAITING_BYTES / 4)).await.unwrap();
        }
        let mut heard = 0;
        while slow.next().await.unwrap().is_ok() {
            heard += 1;
        }
        assert_eq!(heard, 3);
    }

    #[tokio::test]
    async fn who_leaves_is_forgotten() {
        let exchange = EventExchange::new();
        drop(exchange.subscribe(&cx("a"), &[]).await.unwrap());
        exchange.publish(&cx("a"), image("x")).await;
        assert!(exchange.subscriptions.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn publishing_needs_a_namespace_and_a_good_topic() {
        let exchange = EventExchange::new();
        let kind = |result: Result<()>| result.unwrap_err().kind();
        let none = Context::background();
        assert_eq!(kind(exchange.publish_any(&none, "/a", foreign(0)).await), ErrorKind::FailedPrecondition);
        assert_eq!(kind(exchange.publish_any(&cx("a"), "a", foreign(0)).await), ErrorKind::InvalidArgument);
    }
}
