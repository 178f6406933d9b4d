//! The `ttrpc` crate as the other end, in both directions.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::{NAME, quick, start};
use gantry_core::ErrorKind;
use gantry_ttrpc::{CallOptions, Client, Metadata};
use protobuf::MessageField;
use ttrpc::asynchronous as theirs;

fn address(path: &std::path::Path) -> String {
    format!("unix://{}", path.display())
}

fn request(method: &str, payload: &[u8]) -> ttrpc::Request {
    let mut request = ttrpc::Request::new();
    request.service = NAME.to_owned();
    request.method = method.to_owned();
    request.payload = payload.to_vec();
    request
}

#[tokio::test]
async fn their_client_calls_our_server() {
    let server = start(quick());
    let client = theirs::Client::connect(&address(&server.path)).await.unwrap();
    assert_eq!(client.request(request("Echo", b"hello")).await.unwrap().payload, b"hello");

    let mut with_metadata = request("Metadata", b"");
    with_metadata.metadata =
        ttrpc::context::to_pb(HashMap::from([("who".to_owned(), vec!["them".to_owned()])]));
    assert_eq!(client.request(with_metadata).await.unwrap().payload, b"them");

    for (index, kind) in ErrorKind::all().enumerate() {
        match client.request(request("Fail", &[u8::try_from(index).unwrap()])).await.unwrap_err() {
            ttrpc::Error::RpcStatus(status) => {
                assert_eq!(gantry_core::Error::from_status(status.code.value(), &status.message).kind(), kind)
            }
            other => panic!("{other}"),
        }
    }
    let mut slow = request("Wait", b"");
    slow.timeout_nano = 20_000_000;
    assert!(client.request(slow).await.is_err());
    server.echo.canceled.notified().await;
}

#[tokio::test]
async fn their_client_streams_with_our_server() {
    let server = start(quick());
    let client = theirs::Client::connect(&address(&server.path)).await.unwrap();

    let mut both = client.new_stream(request("Both", b""), true, true).await.unwrap();
    for text in ["a", "bc"] {
        both.send(text.as_bytes().to_vec()).await.unwrap();
        assert_eq!(both.recv().await.unwrap(), text.as_bytes());
    }
    both.close_send().await.unwrap();
    assert!(matches!(both.recv().await, Err(ttrpc::Error::Eof)));

    let mut sum = client.new_stream(request("Sum", b""), true, false).await.unwrap();
    sum.send(b"four".to_vec()).await.unwrap();
    sum.close_send().await.unwrap();
    assert_eq!(sum.recv().await.unwrap(), b"4");

    let mut count = client.new_stream(request("Count", b"ab"), false, true).await.unwrap();
    assert_eq!(count.recv().await.unwrap(), b"0");
    assert_eq!(count.recv().await.unwrap(), b"1");
    assert!(matches!(count.recv().await, Err(ttrpc::Error::Eof)));
}

struct TheirEcho;

#[async_trait]
impl theirs::MethodHandler for TheirEcho {
    async fn handler(
        &self,
        cx: theirs::TtrpcContext,
        request: ttrpc::Request,
    ) -> ttrpc::Result<ttrpc::Response> {
        let mut response = ttrpc::Response::new();
        if let Some(who) = cx.metadata.get("who") {
            response.payload = who[0].clone().into_bytes();
        } else if request.payload.is_empty() {
            let status = ttrpc::get_status(ttrpc::Code::NOT_FOUND, "task \"a\": not found");
            response.status = MessageField::some(status);
        } else if request.payload == b"sleep" {
            tokio::time::sleep(Duration::from_secs(60)).await;
        } else {
            response.payload = request.payload;
        }
        Ok(response)
    }
}

struct TheirStream;

#[async_trait]
impl theirs::StreamHandler for TheirStream {
    async fn handler(
        &self,
        _cx: theirs::TtrpcContext,
        mut stream: theirs::StreamInner,
    ) -> ttrpc::Result<Option<ttrpc::Response>> {
        while let Ok(message) = stream.recv().await {
            if message == b"fail" {
                let mut response = ttrpc::Response::new();
                response.status = MessageField::some(ttrpc::get_status(ttrpc::Code::ABORTED, "enough"));
                return Ok(Some(response));
            }
            stream.send(message).await?;
        }
        Ok(None)
    }
}

#[tokio::test]
async fn our_client_calls_their_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sock");
    let service = theirs::Service {
        methods: HashMap::from([("Echo".to_owned(), Box::new(TheirEcho) as Box<_>)]),
        streams: HashMap::from([("Both".to_owned(), std::sync::Arc::new(TheirStream) as std::sync::Arc<_>)]),
    };
    let mut server = theirs::Server::new()
        .bind(&address(&path))
        .unwrap()
        .register_service(HashMap::from([(NAME.to_owned(), service)]));
    server.start().await.unwrap();

    let client = Client::connect(&path).await.unwrap();
    let call = |payload: &'static [u8], options| {
        client.call_bytes(NAME, "Echo", Bytes::from_static(payload), options)
    };
    assert_eq!(call(b"hello", CallOptions::default()).await.unwrap(), "hello");
    let metadata = CallOptions { metadata: Metadata::new().with("who", "me"), ..Default::default() };
    assert_eq!(call(b"x", metadata).await.unwrap(), "me");
    let missing = call(b"", CallOptions::default()).await.unwrap_err();
    assert_eq!((missing.kind(), missing.message().as_str()), (ErrorKind::NotFound, "task \"a\": not found"));
    let late = call(b"sleep", CallOptions::timeout(Duration::from_millis(20))).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);

    let mut stream = client.stream(NAME, "Both", None, true, CallOptions::default()).await.unwrap();
    stream.send(b"one").await.unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap(), "one");
    stream.close_send().await.unwrap();
    assert!(stream.recv().await.unwrap().is_none());

    let mut failing = client.stream(NAME, "Both", None, true, CallOptions::default()).await.unwrap();
    failing.send(b"fail").await.unwrap();
    assert_eq!(failing.recv().await.unwrap_err().kind(), ErrorKind::Aborted);
}
