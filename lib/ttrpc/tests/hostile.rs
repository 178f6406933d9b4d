//! Peers that do not keep to the protocol. Each costs itself an error, and nobody else anything.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::path::Path;

use bytes::Bytes;
use common::{NAME, quick, start};
use gantry_core::ErrorKind;
use gantry_ttrpc::frame::{HEADER_BYTES, Header, flags, kind};
use gantry_ttrpc::message::{Request, Response};
use gantry_ttrpc::{CallOptions, Client, ServerConfig};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

fn frame(stream_id: u32, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length_bytes = u32::try_from(payload.len()).unwrap();
    let mut out = Header { length_bytes, stream_id, kind, flags }.to_bytes().to_vec();
    out.extend_from_slice(payload);
    out
}

fn request(method: &str, payload: &'static [u8]) -> Vec<u8> {
    Request {
        service: NAME.to_owned(),
        method: method.to_owned(),
        payload: Bytes::from_static(payload),
        ..Default::default()
    }
    .encode_to_vec()
}

struct Raw(UnixStream);

impl Raw {
    fn connect(path: &Path) -> Raw {
        Raw(gantry_ttrpc::socket::connect(path).unwrap())
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn answer(&mut self) -> (u32, gantry_core::Result<Bytes>) {
        let mut header = [0; HEADER_BYTES];
        self.0.read_exact(&mut header).await.unwrap();
        let header = Header::parse(&header);
        assert_eq!(header.kind, kind::RESPONSE);
        let mut payload = vec![0; header.length_bytes as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        (header.stream_id, Response::decode(&payload[..]).unwrap().into_result())
    }

    async fn refused(&mut self, stream_id: u32, kind: ErrorKind) {
        let (id, answer) = self.answer().await;
        assert_eq!((id, answer.unwrap_err().kind()), (stream_id, kind));
    }

    async fn works(&mut self, stream_id: u32) {
        self.send(&frame(stream_id, kind::REQUEST, flags::REMOTE_CLOSED, &request("Echo", b"ok"))).await;
        let (id, answer) = self.answer().await;
        assert_eq!((id, &answer.unwrap()[..]), (stream_id, &b"ok"[..]));
    }
}

#[tokio::test]
async fn even_and_reused_stream_ids_are_refused() {
    let server = start(quick());
    let mut raw = Raw::connect(&server.path);
    raw.send(&frame(2, kind::REQUEST, 0, &request("Echo", b""))).await;
    raw.refused(2, ErrorKind::InvalidArgument).await;
    raw.works(5).await;
    for reused in [5, 3, 1] {
        raw.send(&frame(reused, kind::REQUEST, 0, &request("Echo", b""))).await;
        raw.refused(reused, ErrorKind::InvalidArgument).await;
    }
    raw.works(7).await;
}

#[tokio::test]
async fn a_request_that_does_not_decode_is_refused() {
    let server = start(quick());
    let mut raw = Raw::connect(&server.path);
    raw.send(&frame(1, kind::REQUEST, 0, &[0xff; 40])).await;
    raw.refused(1, ErrorKind::InvalidArgument).await;
    raw.works(3).await;
}

#[tokio::test]
async fn an_overlong_frame_is_refused_and_discarded() {
    let server = start(quick());
    let mut raw = Raw::connect(&server.path);
    let length = (4 << 20) + 1;
    let header =
        Header { length_bytes: length, stream_id: 1, kind: kind::REQUEST, flags: flags::REMOTE_CLOSED };
    raw.send(&header.to_bytes()).await;
    raw.send(&vec![0; length as usize]).await;
    raw.refused(1, ErrorKind::ResourceExhausted).await;
    raw.works(3).await;
}

#[tokio::test]
async fn data_without_a_stream_is_refused_and_unknown_kinds_are_passed_over() {
    let server = start(quick());
    let mut raw = Raw::connect(&server.path);
    raw.send(&frame(9, kind::DATA, 0, b"lost")).await;
    raw.refused(9, ErrorKind::InvalidArgument).await;
    raw.send(&frame(1, 0, 0, b"?")).await;
    raw.send(&frame(1, 200, 0xff, b"?")).await;
    raw.works(1).await;
    raw.send(&frame(1, kind::DATA, 0, b"late")).await;
    raw.refused(1, ErrorKind::InvalidArgument).await;
}

#[tokio::test]
async fn a_unary_method_is_not_called_as_a_stream() {
    let server = start(quick());
    let mut raw = Raw::connect(&server.path);
    raw.send(&frame(1, kind::REQUEST, flags::REMOTE_OPEN, &request("Echo", b""))).await;
    raw.refused(1, ErrorKind::Unimplemented).await;
    raw.works(3).await;
}

#[tokio::test]
async fn a_client_with_too_many_calls_is_refused_more() {
    let server = start(ServerConfig { max_calls: 3, ..quick() });
    let mut raw = Raw::connect(&server.path);
    for id in [1, 3, 5] {
        raw.send(&frame(id, kind::REQUEST, 0, &request("Wait", b""))).await;
    }
    raw.send(&frame(7, kind::REQUEST, 0, &request("Wait", b""))).await;
    raw.refused(7, ErrorKind::ResourceExhausted).await;
}

#[tokio::test]
async fn truncated_and_random_bytes_end_only_their_own_connection() {
    let server = start(quick());
    let whole = frame(1, kind::REQUEST, 0, &request("Echo", b"ok"));
    for cut in 0..whole.len() {
        Raw::connect(&server.path).send(&whole[..cut]).await;
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    for round in 0..300 {
        let mut bytes: Vec<u8> = (0..200).map(|_| random()).collect();
        if round % 2 == 0 {
            // Plausible headers around random payloads reach further.
            bytes = (0..8)
                .flat_map(|n| {
                    let payload: Vec<u8> = (0..random() % 40).map(|_| random()).collect();
                    frame(2 * n + u32::from(random() % 2), random() % 5, random() % 8, &payload)
                })
                .collect();
        }
        // The server may have hung up already.
        let _ = Raw::connect(&server.path).0.write_all(&bytes).await;
    }
    Raw::connect(&server.path).works(1).await;
}

#[tokio::test]
async fn a_server_that_talks_nonsense_fails_the_call_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n.sock");
    let listener = gantry_ttrpc::socket::bind(&path).unwrap();
    let client = Client::connect(&path).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let options = CallOptions::default;
    let answers = async {
        // Nobody asked for these.
        server.write_all(&frame(99, kind::RESPONSE, 0, b"")).await.unwrap();
        server.write_all(&frame(4, kind::DATA, 0, b"x")).await.unwrap();
        server.write_all(&frame(1, kind::RESPONSE, 0, &[0xff; 9])).await.unwrap();
        server.write_all(&frame(3, kind::DATA, 0, b"x")).await.unwrap();
        server.write_all(&frame(3, kind::RESPONSE, 0, b"")).await.unwrap();
        let length = (4 << 20) + 5;
        let long = Header { length_bytes: length, stream_id: 5, kind: kind::RESPONSE, flags: 0 };
        server.write_all(&long.to_bytes()).await.unwrap();
        server.write_all(&vec![0; length as usize]).await.unwrap();
        server
            .write_all(&frame(7, kind::RESPONSE, 0, &Response::ok("fine".into()).encode_to_vec()))
            .await
            .unwrap();
        server
    };
    let (a, b, c, d, _server) = tokio::join!(
        client.call_bytes(NAME, "A", Bytes::new(), options()),
        client.call_bytes(NAME, "B", Bytes::new(), options()),
        client.call_bytes(NAME, "C", Bytes::new(), options()),
        client.call_bytes(NAME, "D", Bytes::new(), options()),
        answers,
    );
    assert_eq!(a.unwrap_err().kind(), ErrorKind::Internal);
    // The answer after stray data is the call's answer.
    let _ = b;
    assert_eq!(c.unwrap_err().kind(), ErrorKind::ResourceExhausted);
    assert_eq!(d.unwrap(), "fine");
}
