//! What every event exchange promises: an [`EventService`], ours or another daemon's.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use gantry_core::events::{Envelope, Event, EventPayload, EventService};
use gantry_core::{Any, Context, ErrorKind, ItemStream};

use super::{cx, filters, refused};

/// Tests that what `$open` opens hands on events as it should.
#[macro_export]
macro_rules! event_exchange_suite {
    ($module:ident, $open:expr) => {
        $crate::suite_of!(
            $module,
            events,
            $open,
            [
                every_subscriber_hears_every_event_in_order,
                all_namespaces_are_heard,
                filters_choose_by_topic_namespace_and_field,
                a_bad_filter_is_unknown,
                payloads_come_as_they_were_sent,
                what_is_forwarded_keeps_its_namespace_and_time,
                envelopes_are_checked,
                who_subscribes_late_hears_what_comes_later,
                a_slow_subscriber_is_ended_and_never_skipped,
                who_leaves_disturbs_nobody,
            ]
        );
    };
}

type Exchange = Arc<dyn EventService>;
type Heard = ItemStream<Arc<Envelope>>;

/// Longer than any event takes.
const SOON: Duration = Duration::from_secs(30);

fn numbered(number: usize, bytes: usize) -> EventPayload {
    let mut value = number.to_string().into_bytes();
    value.resize(value.len().max(bytes), b' ');
    EventPayload::Foreign { raw: Any::new("example.com/Numbered", value), decoded: None }
}

fn image(name: &str) -> EventPayload {
    EventPayload::Typed(Event::ImageDelete { name: name.to_owned() })
}

/// The number that a payload of [`numbered`] carries.
fn number(envelope: &Envelope) -> usize {
    let EventPayload::Foreign { raw, .. } = &envelope.payload else { panic!("{envelope:?}") };
    let text = std::str::from_utf8(&raw.value).expect("a number as text");
    text.trim_end().parse().expect("a number")
}

async fn next(heard: &mut Heard) -> Arc<Envelope> {
    let next = tokio::time::timeout(SOON, heard.next()).await.expect("an event comes");
    next.expect("the stream goes on").expect("an event")
}

async fn publish(exchange: &Exchange, namespace: &str, topic: &str, payload: EventPayload) {
    exchange.publish_any(&cx(namespace), topic, payload).await.expect("publish");
}

async fn subscribe(exchange: &Exchange, texts: &[&str]) -> Heard {
    exchange.subscribe(&cx("listener"), &filters(texts)).await.expect("subscribe")
}

#[doc(hidden)]
pub async fn every_subscriber_hears_every_event_in_order(exchange: Exchange) {
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(subscribe(&exchange, &[]).await);
    }
    for count in 0..200 {
        publish(&exchange, "one", "/test/count", numbered(count, 0)).await;
    }
    for heard in &mut all {
        for count in 0..200 {
            assert_eq!(number(&*next(heard).await), count);
        }
    }
}

#[doc(hidden)]
pub async fn all_namespaces_are_heard(exchange: Exchange) {
    let mut heard = subscribe(&exchange, &[]).await;
    for namespace in ["one", "two", "listener"] {
        publish(&exchange, namespace, "/test/a", numbered(0, 0)).await;
    }
    for namespace in ["one", "two", "listener"] {
        let envelope = next(&mut heard).await;
        assert_eq!((envelope.namespace.as_str(), envelope.topic.as_str()), (namespace, "/test/a"));
        assert!(envelope.timestamp > SystemTime::UNIX_EPOCH, "the exchange sets the time");
    }
}

#[doc(hidden)]
pub async fn filters_choose_by_topic_namespace_and_field(exchange: Exchange) {
    let chosen = ["topic==\"/images/delete\",event.name==x", "namespace==only"];
    let mut heard = subscribe(&exchange, &chosen).await;
    let mut nothing = subscribe(&exchange, &["topic==/images/delete"]).await;
    let mut by_expression = subscribe(&exchange, &["topic~=/^.images/"]).await;
    publish(&exchange, "one", "/images/delete", image("y")).await;
    publish(&exchange, "one", "/images/delete", image("x")).await;
    publish(&exchange, "one", "/other/delete", image("x")).await;
    publish(&exchange, "only", "/test/a", numbered(7, 0)).await;
    let first = next(&mut heard).await;
    assert_eq!(first.payload.event(), Some(&Event::ImageDelete { name: "x".to_owned() }));
    assert_eq!(number(&*next(&mut heard).await), 7);
    for _ in 0..2 {
        assert_eq!(next(&mut by_expression).await.topic, "/images/delete");
    }
    // What is published now comes after everything that could have matched.
    publish(&exchange, "one", "/last", numbered(1, 0)).await;
    let mut all = subscribe(&exchange, &[]).await;
    publish(&exchange, "one", "/last", numbered(2, 0)).await;
    assert_eq!(number(&*next(&mut all).await), 2);
    let unwanted = tokio::time::timeout(Duration::ZERO, nothing.next()).await;
    assert!(unwanted.is_err(), "an unquoted slash equals nothing: {unwanted:?}");
}

#[doc(hidden)]
pub async fn a_bad_filter_is_unknown(exchange: Exchange) {
    let answer = exchange.subscribe(&cx("one"), &filters(&["topic==\"/a\"", "a=b"])).await;
    refused(answer.map(|_| "a subscription"), ErrorKind::Unknown);
}

#[doc(hidden)]
pub async fn payloads_come_as_they_were_sent(exchange: Exchange) {
    let mut heard = subscribe(&exchange, &[]).await;
    // Its type is known, but it is not such a message; and a type that nobody knows.
    for (type_url, value) in [
        ("containerd.events.ContainerCreate", b"\xff\xff".to_vec()),
        ("example.com/Any", vec![0, 1, 0xff]),
        ("", Vec::new()),
    ] {
        let raw = Any::new(type_url, value);
        publish(&exchange, "one", "/test/raw", EventPayload::Foreign { raw: raw.clone(), decoded: None })
            .await;
        let EventPayload::Foreign { raw: came, .. } = &next(&mut heard).await.payload else {
            panic!("{type_url:?} was taken for an event of ours")
        };
        assert_eq!(*came, raw);
    }
    publish(&exchange, "one", "/images/delete", image("n")).await;
    assert_eq!(next(&mut heard).await.payload.event(), Some(&Event::ImageDelete { name: "n".to_owned() }));
}

#[doc(hidden)]
pub async fn what_is_forwarded_keeps_its_namespace_and_time(exchange: Exchange) {
    let mut heard = subscribe(&exchange, &[]).await;
    let timestamp = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    let envelope = Envelope {
        timestamp,
        namespace: "elsewhere".to_owned(),
        topic: "/tasks/exit".to_owned(),
        payload: numbered(3, 0),
    };
    exchange.forward(envelope.clone()).await.expect("forward");
    assert_eq!(*next(&mut heard).await, envelope);
}

#[doc(hidden)]
pub async fn envelopes_are_checked(exchange: Exchange) {
    let mut heard = subscribe(&exchange, &[]).await;
    for topic in ["", "/", "a", "/a/", "//a", "/a b", "/a\n", &format!("/{}", "x".repeat(77))] {
        let answer = exchange.publish_any(&cx("one"), topic, numbered(0, 0)).await;
        refused(answer, ErrorKind::InvalidArgument);
        refused(exchange.forward(envelope("one", topic)).await, ErrorKind::InvalidArgument);
    }
    for namespace in ["", "a--b", "a b", &"x".repeat(77)] {
        refused(exchange.forward(envelope(namespace, "/a")).await, ErrorKind::InvalidArgument);
    }
    let nowhere = exchange.publish_any(&Context::background(), "/a", numbered(0, 0)).await;
    refused(nowhere, ErrorKind::FailedPrecondition);
    exchange.forward(envelope("one", "/good")).await.expect("forward");
    assert_eq!(next(&mut heard).await.topic, "/good", "nothing of what was refused was sent");
}

fn envelope(namespace: &str, topic: &str) -> Envelope {
    Envelope {
        timestamp: SystemTime::UNIX_EPOCH,
        namespace: namespace.to_owned(),
        topic: topic.to_owned(),
        payload: numbered(0, 0),
    }
}

#[doc(hidden)]
pub async fn who_subscribes_late_hears_what_comes_later(exchange: Exchange) {
    publish(&exchange, "one", "/test/a", numbered(1, 0)).await;
    let mut heard = subscribe(&exchange, &[]).await;
    publish(&exchange, "one", "/test/a", numbered(2, 0)).await;
    assert_eq!(number(&*next(&mut heard).await), 2);
}

#[doc(hidden)]
pub async fn a_slow_subscriber_is_ended_and_never_skipped(exchange: Exchange) {
    // Far more than may wait, wherever it waits.
    const EVENTS: usize = 800;
    const BYTES: usize = 64 << 10;
    let mut slow = subscribe(&exchange, &["topic==\"/test/large\""]).await;
    let mut other = subscribe(&exchange, &["topic==\"/test/last\""]).await;
    for count in 0..EVENTS {
        publish(&exchange, "one", "/test/large", numbered(count, BYTES)).await;
    }
    publish(&exchange, "one", "/test/last", numbered(0, 0)).await;
    assert_eq!(next(&mut other).await.topic, "/test/last", "others go on");
    let mut count = 0;
    let error = loop {
        match tokio::time::timeout(SOON, slow.next()).await.expect("an event, or the end") {
            Some(Ok(envelope)) => assert_eq!(number(&envelope), count, "none is left out"),
            Some(Err(error)) => break error,
            None => panic!("ended without a reason after {count} events"),
        }
        count += 1;
    };
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    assert!((1..EVENTS).contains(&count), "ended after {count} events");
    assert!(slow.next().await.is_none(), "an end is the end");
    let mut anew = subscribe(&exchange, &[]).await;
    publish(&exchange, "one", "/test/a", numbered(9, 0)).await;
    assert_eq!(number(&*next(&mut anew).await), 9);
}

#[doc(hidden)]
pub async fn who_leaves_disturbs_nobody(exchange: Exchange) {
    let leaves = subscribe(&exchange, &[]).await;
    let mut stays = subscribe(&exchange, &[]).await;
    drop(leaves);
    for count in 0..10 {
        publish(&exchange, "one", "/test/a", numbered(count, 0)).await;
        assert_eq!(number(&*next(&mut stays).await), count);
    }
}
