//! HTTP/2 turned against the daemon.

use std::time::{Duration, Instant};

use bytes::{BufMut as _, BytesMut};
use gantry_testkit::root;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use crate::connections::{PREFACE, read_to_end};
use crate::watched::Watched;
use crate::wire::{Client, framed};

/// Frame types. Source: RFC 9113, section 6.
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
    out.put_slice(payload);
    out.to_vec()
}

fn greeting() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// Writes as long as the daemon takes it, and gives whether it hung up before all was said.
async fn flood(watched: &Watched, first: &[u8], again: &[u8], times: usize) -> bool {
    let mut stream = UnixStream::connect(watched.daemon.address()).await.expect("connect");
    let said = async {
        stream.write_all(&greeting()).await?;
        stream.write_all(first).await?;
        for _ in 0..times {
            stream.write_all(again).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    // Who does not read what the daemon answers is not listened to for ever.
    match tokio::time::timeout(Duration::from_secs(5), said).await {
        Ok(Err(_)) => true,
        Ok(Ok(())) => tokio::time::timeout(Duration::from_secs(5), read_to_end(stream)).await.is_ok(),
        Err(_) => false,
    }
}

/// CVE-2023-44487: streams begun and reset at once, without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_are_bounded_and_others_are_answered() {
    root!();
    let mut watched = Watched::start().await;
    let begun = Instant::now();
    let (mut sent, mut hung_up, mut slowest) = (0, 0, Duration::ZERO);
    while sent < 100_000 {
        let client = Client::connect(&watched.daemon.address()).await;
        for _ in 0..20_000 {
            let Ok(mut call) = client.begin("/containerd.services.containers.v1.Containers/List").await
            else {
                hung_up += 1;
                break;
            };
            call.send(framed(b""));
            call.reset();
            sent += 1;
            if sent % 5000 == 0 {
                let asked = Instant::now();
                watched.assert_answers("amid rapid resets").await;
                slowest = slowest.max(asked.elapsed());
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(240), "{sent} resets in {:?}", begun.elapsed());
    }
    println!(
        "{sent} resets in {:?}, hung up on {hung_up} times; others waited {slowest:?} at most",
        begun.elapsed()
    );
    watched.assert_unharmed("rapid resets").await;
}

/// CVE-2024-27316 and its kin: a header list that never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_list_without_end_is_cut_off() {
    root!();
    let mut watched = Watched::start().await;
    // A literal header without indexing: name "x", value of 100 bytes.
    let mut field = vec![0x00, 0x01, b'x', 100];
    field.extend_from_slice(&[b'v'; 100]);
    let block = field.repeat(150);
    for empty in [false, true] {
        let first = frame(HEADERS, 0, 1, if empty { b"" } else { &block });
        let again = frame(CONTINUATION, 0, 1, if empty { b"" } else { &block });
        assert!(flood(&watched, &first, &again, 20_000).await, "20,000 continuations were taken");
    }
    watched.assert_unharmed("a header list without end").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_and_settings_that_nobody_reads_the_answers_of_are_bounded() {
    root!();
    let mut watched = Watched::start().await;
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(1000);
    flood(&watched, b"", &pings, 2000).await;
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]).repeat(1000);
    flood(&watched, b"", &settings, 2000).await;
    let updates = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(1000);
    flood(&watched, b"", &updates, 2000).await;
    watched.assert_unharmed("pings, settings and window updates").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_break_the_rules_end_their_connection() {
    root!();
    let mut watched = Watched::start().await;
    for (what, bytes) in [
        ("a frame too large", [&[0xff, 0xff, 0xff, HEADERS, 4, 0, 0, 0, 1][..], &[0; 64 << 10]].concat()),
        ("a continuation of nothing", frame(CONTINUATION, 4, 1, b"")),
        ("an even stream", frame(HEADERS, 5, 2, &[0x82, 0x84, 0x86])),
        ("a ping of seven bytes", frame(PING, 0, 0, &[0; 7])),
        ("settings of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2)),
        ("an index that is none", frame(HEADERS, 5, 1, &[0xff, 0xff, 0xff, 0x7f])),
        ("a header table of 4 GiB", frame(HEADERS, 5, 1, &[0x3f, 0xff, 0xff, 0xff, 0xff, 0x0f])),
    ] {
        for _ in 0..20 {
            let mut stream = UnixStream::connect(watched.daemon.address()).await.expect("connect");
            // The daemon may hang up before all is written.
            let _ = stream.write_all(&[greeting(), bytes.clone()].concat()).await;
            let ended = tokio::time::timeout(Duration::from_secs(20), read_to_end(stream)).await;
            ended.unwrap_or_else(|_| panic!("{what}: the connection stays open"));
        }
    }
    watched.assert_unharmed("frames that break the rules").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_of_any_size_and_content_are_answered_or_refused() {
    root!();
    let mut watched = Watched::start().await;
    for namespace in ["", "a--b", " ", "../.."] {
        let client = watched.client().await.within(namespace.to_owned().leak());
        let call = tokio::time::timeout(Duration::from_secs(10), async {
            client.call("/containerd.services.containers.v1.Containers/List", b"").await
        });
        let answer = call.await.unwrap_or_else(|_| panic!("namespace {namespace:?}: no answer"));
        assert!(answer.code != Some(0), "namespace {namespace:?}: {answer:?}");
    }
    let long = "x".repeat(1 << 20).leak();
    let client = watched.client().await.within(long);
    let answer = client.call("/containerd.services.containers.v1.Containers/List", b"").await;
    assert!(answer.code != Some(0), "{answer:?}");
    drop(client);
    watched.assert_unharmed("headers of any size").await;
}
