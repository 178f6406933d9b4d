//! Streams that clients open by name, which 1.6 does not have.

use gantry_api::Any;
use gantry_api::containerd::services::streaming::v1::StreamInit;
use gantry_api::containerd::services::streaming::v1::streaming_client::StreamingClient;
use gantry_testkit::root;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use crate::support::{Wire, any, code, in_test, leased, refused, within};

type Messages = ReceiverStream<Any>;

/// An open stream: it lives as long as this.
struct Opened {
    messages: mpsc::Sender<Any>,
    answers: Streaming<Any>,
}

fn init(id: &str) -> Any {
    Any {
        type_url: "containerd.services.streaming.v1.StreamInit".into(),
        value: StreamInit { id: id.into() }.encode_to_vec(),
    }
}

async fn open_with(
    wire: &Wire,
    headers: impl FnOnce(Messages) -> Request<Messages>,
    first: Option<Any>,
) -> Result<(Opened, Any), Status> {
    let (messages, receiver) = mpsc::channel(1);
    let messages = match first {
        Some(first) => {
            messages.send(first).await.unwrap();
            messages
        }
        // The client closes its side without a word.
        None => {
            drop(messages);
            mpsc::channel(1).0
        }
    };
    let request = headers(ReceiverStream::new(receiver));
    let mut answers = StreamingClient::new(wire.channel.clone()).stream(request).await?.into_inner();
    let answer = answers.message().await?.expect("an answer before the stream ends");
    Ok((Opened { messages, answers }, answer))
}

async fn open(wire: &Wire, id: &str) -> Result<(Opened, Any), Status> {
    open_with(wire, in_test, Some(init(id))).await
}

#[tokio::test]
async fn a_stream_is_answered_with_an_empty_message_once_its_name_is_known() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let (opened, answer) = open(&wire, "a/b c").await.unwrap();
    assert_eq!((answer.type_url.as_str(), answer.value.len()), ("google.protobuf.Empty", 0));
    let _other_namespace = open_with(&wire, |m| within("other", m), Some(init("a/b c"))).await.unwrap();
    let _no_namespace = open_with(&wire, Request::new, Some(init("a/b c"))).await.unwrap();
    let _empty_name = open(&wire, "").await.unwrap();
    opened.messages.send(any("kept until somebody takes the stream")).await.unwrap();
}

#[tokio::test]
async fn the_name_of_an_open_stream_is_taken() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let _opened = open(&wire, "s").await.unwrap();
    // containerd hands its error on without a code.
    let expected = if wire.is_gantry() { Code::AlreadyExists } else { Code::Unknown };
    refused(open(&wire, "s").await, expected, "already exists");
}

#[tokio::test]
async fn a_stream_begins_with_its_name() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    assert_eq!(code(open_with(&wire, in_test, Some(any("no init"))).await), Code::Unknown);
    refused(open_with(&wire, in_test, None).await, Code::Unknown, "EOF");
}

#[tokio::test]
async fn a_stream_ends_with_the_lease_that_it_was_opened_under() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    wire.lease("l", &[]).await;
    wire.lease("expired", &[("containerd.io/gc.expire", "2020-01-01T00:00:00Z")]).await;
    let (mut held, _) = open_with(&wire, |m| leased("l", m), Some(init("held"))).await.unwrap();
    let (mut of_expired, _) = open_with(&wire, |m| leased("expired", m), Some(init("x"))).await.unwrap();
    let (mut of_none, _) = open_with(&wire, |m| leased("none", m), Some(init("y"))).await.unwrap();
    let (_free, _) = open(&wire, "free").await.unwrap();
    wire.collect().await;
    assert_eq!(of_expired.answers.message().await.unwrap(), None);
    assert_eq!(of_none.answers.message().await.unwrap(), None);
    assert!(open(&wire, "free").await.is_err(), "without lease it is not collected");
    assert!(open(&wire, "held").await.is_err(), "its lease is there");
    wire.release("l").await;
    assert_eq!(held.answers.message().await.unwrap(), None);
    open(&wire, "held").await.expect("the name is free again");
}

#[tokio::test]
async fn a_label_keeps_a_stream_whose_lease_is_gone() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    wire.lease("l", &[]).await;
    let named = [("containerd.io/gc.ref.stream.x", "named"), ("containerd.io/gc.ref.streamx", "unnamed")];
    wire.container("c", &named).await;
    let (_named, _) = open_with(&wire, |m| leased("l", m), Some(init("named"))).await.unwrap();
    let (mut unnamed, _) = open_with(&wire, |m| leased("l", m), Some(init("unnamed"))).await.unwrap();
    wire.release("l").await;
    assert_eq!(unnamed.answers.message().await.unwrap(), None);
    assert!(open(&wire, "named").await.is_err());
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_name() {
    root!();
    let wire = Wire::start();
    if !wire.is_gantry() {
        return; // containerd keeps the name of a stream that nobody has, until it is restarted.
    }
    drop(open(&wire, "s").await.unwrap());
    let mut again = None;
    for _ in 0..500 {
        again = open(&wire, "s").await.ok();
        if again.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    again.expect("the name is free again");
}
