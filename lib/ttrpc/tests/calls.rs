//! Our client against our server.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use common::{NAME, quick, start};
use gantry_core::{Error, ErrorKind};
use gantry_ttrpc::{CallOptions, Client, Metadata, ServerConfig};

async fn call(client: &Client, method: &str, payload: &[u8]) -> Result<Bytes, Error> {
    client.call_bytes(NAME, method, Bytes::copy_from_slice(payload), CallOptions::default()).await
}

#[tokio::test]
async fn calls_side_by_side_get_their_own_answers() {
    let server = start(quick());
    let client = Client::connect(&server.path).await.unwrap();
    let calls = (0..200u32).map(|n| {
        let client = client.clone();
        async move {
            let text = n.to_string();
            assert_eq!(call(&client, "Echo", text.as_bytes()).await.unwrap(), text);
        }
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn every_kind_of_error_arrives_with_its_text() {
    let server = start(quick());
    let client = Client::connect(&server.path).await.unwrap();
    for (index, kind) in ErrorKind::all().enumerate() {
        let error = call(&client, "Fail", &[u8::try_from(index).unwrap()]).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(error.message(), Error::new(kind, "task \"a\"").context("start").message());
    }
}

#[tokio::test]
async fn unknown_services_and_methods_are_unimplemented() {
    let server = start(quick());
    let client = Client::connect(&server.path).await.unwrap();
    let unknown =
        client.call_bytes("no.Such", "Echo", Bytes::new(), CallOptions::default()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unimplemented);
    assert_eq!(unknown.message(), "service no.Such: not implemented");
    assert_eq!(call(&client, "NoSuch", b"").await.unwrap_err().kind(), ErrorKind::Unimplemented);
}

#[tokio::test]
async fn metadata_reaches_the_method() {
    let server = start(quick());
    let client = Client::connect(&server.path).await.unwrap();
    let options = CallOptions { metadata: Metadata::new().with("Who", "me"), ..Default::default() };
    assert_eq!(client.call_bytes(NAME, "Metadata", Bytes::new(), options).await.unwrap(), "me");
}

#[tokio::test]
async fn a_call_past_its_deadline_ends_at_both_ends() {
    let server = start(quick());
    let client = Client::connect(&server.path).await.unwrap();
    let options = CallOptions::timeout(Duration::from_millis(20));
    let error = client.call_bytes(NAME, "Wait", Bytes::new(), options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    server.echo.canceled.notified().await;
    assert_eq!(call(&client, "Echo", b"still here").await.unwrap(), "still here");
}

#[tokio::test]
async fn a_message_too_long_is_refused_and_the_connection_goes_on() {
    let server = start(quick());
    let client = Client::connect(&server.path).await.unwrap();
    let request = call(&client, "Echo", &vec![1; 5 << 20]).await.unwrap_err();
    assert_eq!(request.kind(), ErrorKind::ResourceExhausted);
    let answer = call(&client, "Large", b"").await.unwrap_err();
    assert_eq!(answer.kind(), ErrorKind::ResourceExhausted);
    assert_eq!(call(&client, "Echo", &vec![1; 4_000_000]).await.unwrap().len(), 4_000_000);
}

#[tokio::test]
async fn a_method_that_panics_costs_only_its_call() {
    let server = start(quick());
    let client = Client::connect(&server.path).await.unwrap();
    assert_eq!(call(&client, "Panic", b"").await.unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(call(&client, "Echo", b"x").await.unwrap(), "x");
}

#[tokio::test]
async fn a_wait_ends_when_its_client_leaves_and_a_change_does_not() {
    let server = start(quick());
    let client = Client::connect(&server.path).await.unwrap();
    tokio::select! {
        _ = call(&client, "Wait", b"") => panic!("nobody ends it"),
        () = server.echo.entered.notified() => {}
    }
    tokio::select! {
        _ = call(&client, "Change", b"") => panic!("nobody released it"),
        () = server.echo.entered.notified() => {}
    }
    drop(client);
    server.echo.canceled.notified().await;
    assert_eq!(server.echo.finished.load(Ordering::SeqCst), 0);
    server.echo.release.notify_one();
    while server.echo.finished.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn shutdown_lets_a_change_finish_and_answers_it() {
    let mut server = start(ServerConfig::default());
    let client = Client::connect(&server.path).await.unwrap();
    let change = call(&client, "Change", b"done");
    let stopping = async {
        server.echo.entered.notified().await;
        server.stop.cancel();
        tokio::task::yield_now().await;
        server.echo.release.notify_one();
    };
    let (answer, ()) = tokio::join!(change, stopping);
    assert_eq!(answer.unwrap(), "done");
    server.job.join_next().await.unwrap().unwrap().unwrap();
    client.closed().await;
    assert_eq!(call(&client, "Echo", b"").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(Client::connect(&server.path).await.is_err());
}

#[tokio::test]
async fn shutdown_ends_waits_after_the_grace_period() {
    let mut server = start(quick());
    let client = Client::connect(&server.path).await.unwrap();
    let stopping = async {
        server.echo.entered.notified().await;
        server.stop.cancel();
    };
    let (answer, ()) = tokio::join!(call(&client, "Wait", b""), stopping);
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Canceled);
    server.job.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn streams_carry_messages_both_ways() {
    let server = start(quick());
    let client = Client::connect(&server.path).await.unwrap();
    let mut both = client.stream(NAME, "Both", None, true, CallOptions::default()).await.unwrap();
    for n in 0..100 {
        let text = n.to_string();
        both.send(text.as_bytes()).await.unwrap();
        assert_eq!(both.recv().await.unwrap().unwrap(), text);
    }
    both.close_send().await.unwrap();
    assert!(both.recv().await.unwrap().is_none());
    assert!(both.recv().await.unwrap().is_none());

    let mut sum = client.stream(NAME, "Sum", None, true, CallOptions::default()).await.unwrap();
    sum.send(b"abc").await.unwrap();
    sum.send(b"de").await.unwrap();
    sum.close_send().await.unwrap();
    assert_eq!(sum.recv().await.unwrap().unwrap(), "5");
    assert!(sum.recv().await.unwrap().is_none());

    let first = Some(Bytes::from_static(b"four"));
    let mut count = client.stream(NAME, "Count", first, false, CallOptions::default()).await.unwrap();
    for n in 0..4 {
        assert_eq!(count.recv().await.unwrap().unwrap(), n.to_string());
    }
    assert!(count.recv().await.unwrap().is_none());

    let mut broken = client.stream(NAME, "Broken", None, false, CallOptions::default()).await.unwrap();
    assert_eq!(broken.recv().await.unwrap().unwrap(), "first");
    assert_eq!(broken.recv().await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_stream_keeps_its_connection_and_dropping_it_frees_the_server() {
    let server = start(quick());
    let client = Client::connect(&server.path).await.unwrap();
    let mut both = client.stream(NAME, "Both", None, true, CallOptions::default()).await.unwrap();
    drop(client);
    both.send(b"x").await.unwrap();
    assert_eq!(both.recv().await.unwrap().unwrap(), "x");
}
