//! A subscription to events, and what came of it.

use std::time::Duration;

use gantry_api::containerd::services::events::v1::{PublishRequest, SubscribeRequest};
use gantry_api::containerd::types::Envelope;
use tonic::{Status, Streaming};

use crate::support::{Wire, any, within};

const READY: &str = "/semantics/ready";
const DONE: &str = "/semantics/done";

/// Events that pass some filters.
pub(crate) struct Subscription {
    events: Streaming<Envelope>,
}

/// Publishes an event of a type that nobody knows.
pub(crate) async fn publish(wire: &Wire, namespace: &str, topic: &str) -> Result<(), Status> {
    let request = PublishRequest { topic: topic.into(), event: Some(any("event")) };
    wire.events().publish(within(namespace, request)).await.map(drop)
}

impl Subscription {
    /// Subscribes to what `filters` let pass, or to everything if there are none. It is there when this returns.
    pub(crate) async fn start(wire: &Wire, filters: &[&str]) -> Subscription {
        let mut all: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
        if !all.is_empty() {
            all.extend([READY, DONE].map(|topic| format!("topic==\"{topic}\"")));
        }
        let mut client = wire.events();
        let request = SubscribeRequest { filters: all };
        let mut subscribing = std::pin::pin!(client.subscribe(request));
        // containerd answers with the first event only, so there have to be some until it does.
        let mut events = loop {
            publish(wire, "semantics", READY).await.unwrap();
            if let Ok(answer) = tokio::time::timeout(Duration::from_millis(20), &mut subscribing).await {
                break answer.unwrap().into_inner();
            }
        };
        publish(wire, "semantics", READY).await.unwrap();
        assert_eq!(events.message().await.unwrap().unwrap().topic, READY);
        Subscription { events }
    }

    /// Everything that was published until now and has passed the filters.
    pub(crate) async fn so_far(&mut self, wire: &Wire) -> Vec<Envelope> {
        publish(wire, "semantics", DONE).await.unwrap();
        let mut seen = Vec::new();
        loop {
            let event = self.events.message().await.unwrap().unwrap();
            match event.topic.as_str() {
                READY => {}
                DONE => return seen,
                _ => seen.push(event),
            }
        }
    }

    /// The same as namespaces and topics.
    pub(crate) async fn topics(&mut self, wire: &Wire) -> Vec<String> {
        let seen = self.so_far(wire).await;
        seen.into_iter().map(|event| format!("{} {}", event.namespace, event.topic)).collect()
    }
}
