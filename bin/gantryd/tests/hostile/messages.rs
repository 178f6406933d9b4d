//! Messages that are too large, compressed, cut, or framed wrongly.

use bytes::Bytes;
use gantry_api::Any;
use gantry_api::containerd::services::containers::v1::container::Runtime;
use gantry_api::containerd::services::containers::v1::{Container, CreateContainerRequest};
use gantry_testkit::root;
use prost::Message as _;

use crate::schema::{Schema, length_delimited};
use crate::watched::Watched;
use crate::wire::{BOUND, INTERNAL, OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED, framed, framed_as};

const MIB: usize = 1 << 20;
const LIMIT: usize = 16 * MIB;
const GET: &str = "/containerd.services.containers.v1.Containers/Get";

/// A message of exactly `bytes`, all of it a field that nobody knows.
fn padded(bytes: usize) -> Vec<u8> {
    let mut message = Vec::new();
    // Key and length take two and four bytes.
    length_delimited(1000, &vec![0; bytes - 6], &mut message);
    assert_eq!(message.len(), bytes);
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_a_message_holds_for_every_method() {
    root!();
    let mut watched = Watched::start().await;
    let schema = Schema::read();
    let client = watched.client().await;
    for method in &schema.methods {
        for (bytes, fits) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false), (20 * MIB, false)] {
            let what = format!("{} with {bytes} bytes", method.path);
            // Whoever waits, waits: the message was taken.
            let asking = tokio::time::timeout(BOUND, async {
                let mut call = client.begin(&method.path).await.expect("a stream");
                call.send(framed(&padded(bytes)));
                call.close();
                match call.head().await {
                    Ok(headers) if headers.contains_key("grpc-status") => {
                        headers["grpc-status"].to_str().unwrap_or_default().parse().ok()
                    }
                    Ok(_) if method.path.ends_with("/Subscribe") || method.path.ends_with("/Watch") => {
                        Some(OK)
                    }
                    Ok(_) => call.end().await.code,
                    Err(error) => panic!("{what}: {error}"),
                }
            });
            let code = asking.await.unwrap_or_else(|_| panic!("{what}: no answer"));
            let code = code.unwrap_or_else(|| panic!("{what}: no status"));
            if code != UNIMPLEMENTED {
                assert_eq!(code == RESOURCE_EXHAUSTED, !fits, "{what}: code {code}");
            }
        }
    }
    drop(client);
    watched.assert_unharmed("messages at the limit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_above_the_limit_are_exhausted_and_given_up() {
    root!();
    let mut watched = Watched::start().await;
    let client = watched.client().await;
    for id in ["a", "b"] {
        let container = Container {
            id: id.into(),
            runtime: Some(Runtime { name: "io.containerd.runc.v2".into(), options: None }),
            spec: Some(Any { type_url: "spec".into(), value: vec![0; 15 * MIB] }),
            ..Default::default()
        };
        let request = CreateContainerRequest { container: Some(container) }.encode_to_vec();
        let made = client.call("/containerd.services.containers.v1.Containers/Create", request).await;
        assert_eq!(made.code, Some(OK), "{made:?}");
    }
    for _ in 0..10 {
        let listed = client.call("/containerd.services.containers.v1.Containers/List", Vec::new()).await;
        assert_eq!(listed.code, Some(RESOURCE_EXHAUSTED), "{listed:?}");
        let streamed =
            client.call("/containerd.services.containers.v1.Containers/ListStream", Vec::new()).await;
        assert_eq!(streamed.code, Some(OK), "{streamed:?}");
        assert!(streamed.bytes > 30 * MIB);
    }
    drop(client);
    watched.assert_unharmed("answers above the limit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_none_are_refused() {
    root!();
    let mut watched = Watched::start().await;
    let client = watched.client().await;
    let message = b"\x0a\x01a";
    let two = [&framed(message)[..], &framed(message)[..]].concat();
    for (what, frames, wanted) in [
        ("compressed, without saying how", framed_as(1, 3, message), &[INTERNAL, UNIMPLEMENTED][..]),
        ("a flag that is none", framed_as(7, 3, message), &[INTERNAL]),
        ("longer than it says", framed_as(0, 2, message), &[INTERNAL]),
        ("shorter than it says", framed_as(0, 4, message), &[INTERNAL]),
        ("a length without end", framed_as(0, u32::MAX, message), &[RESOURCE_EXHAUSTED]),
        ("half a frame's head", Bytes::from_static(b"\0\0"), &[INTERNAL]),
        ("no frame at all", Bytes::new(), &[INTERNAL, UNIMPLEMENTED]),
        // The first is the question: there is no such container.
        ("two messages where one belongs", two.into(), &[5]),
    ] {
        let answer = client.call_framed(GET, frames).await;
        let code = answer.code.unwrap_or_else(|| panic!("{what}: {answer:?}"));
        assert!(wanted.contains(&code), "{what}: {answer:?}");
    }
    drop(client);
    watched.assert_unharmed("frames that are none").await;
}
