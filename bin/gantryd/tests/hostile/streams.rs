//! Streams that end half-way, at every stage, by a close, a reset, or with the whole connection.

use std::time::Duration;

use gantry_api::Any;
use gantry_api::containerd::services::content::v1::{ReadContentRequest, WriteAction, WriteContentRequest};
use gantry_api::containerd::services::diff::v1::ApplyRequest;
use gantry_api::containerd::services::events::v1::{PublishRequest, SubscribeRequest};
use gantry_api::containerd::types::Descriptor;
use gantry_testkit::{root, scaled, sha256};
use prost::Message as _;

use crate::watched::Watched;
use crate::wire::{BOUND, Call, Client, INTERNAL, OK, RESOURCE_EXHAUSTED, WRITE, framed};

const MIB: usize = 1 << 20;
const READ: &str = "/containerd.services.content.v1.Content/Read";
const SUBSCRIBE: &str = "/containerd.services.events.v1.Events/Subscribe";
const PUBLISH: &str = "/containerd.services.events.v1.Events/Publish";
const APPLY: &str = "/containerd.services.diff.v1.Diff/Apply";

/// How often each end is tried.
const ROUNDS: usize = 20;

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// Closes its side, and waits for the end.
    ByClose,
    /// Resets the stream.
    ByReset,
    /// Drops the connection.
    WithConnection,
}

const ENDS: [Leaves; 3] = [Leaves::ByClose, Leaves::ByReset, Leaves::WithConnection];

async fn leave(how: Leaves, client: Client, mut call: Call) {
    match how {
        Leaves::ByClose => {
            call.close();
            tokio::time::timeout(BOUND, call.end()).await.expect("the call ends when its client has closed");
        }
        Leaves::ByReset => {
            call.reset();
            // What was reset is on its way before the connection goes.
            tokio::task::yield_now().await;
        }
        Leaves::WithConnection => drop(call),
    }
    drop(client);
}

fn write(name: &str, action: WriteAction, offset: i64, data: Vec<u8>) -> Vec<u8> {
    let (action, data) = (action.into(), data.into());
    WriteContentRequest { action, r#ref: name.into(), offset, data, ..Default::default() }.encode_to_vec()
}

/// What is sent before the client leaves, and what a stage is called. Each reaches one state of a write further.
fn stages(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let stat = framed(&write(name, WriteAction::Stat, 0, Vec::new()));
    let data = framed(&write(name, WriteAction::Write, 0, vec![7; MIB]));
    let mut commit =
        WriteContentRequest { action: WriteAction::Commit.into(), offset: MIB as i64, ..Default::default() };
    commit.expected = format!("sha256:{}", "0".repeat(64));
    let commit = framed(&commit.encode_to_vec());
    let half = &data[..data.len() / 2];
    vec![
        ("before a message", Vec::new()),
        ("in a frame's head", stat[..3].to_vec()),
        ("in the first message", stat[..stat.len() - 1].to_vec()),
        ("after the first message", stat.to_vec()),
        ("in the data", [&stat[..], half].concat()),
        ("after the data", [&stat[..], &data[..]].concat()),
        ("in the commit", [&stat[..], &data[..], &commit[..commit.len() - 1]].concat()),
        ("after a commit that is refused", [&stat[..], &data[..], &commit[..]].concat()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_left_at_any_stage_frees_its_ref() {
    root!();
    let mut watched = Watched::start().await;
    for how in ENDS {
        let mut refs = Vec::new();
        for round in 0..ROUNDS {
            let name = format!("{how:?} {round}");
            for (stage, (what, frames)) in stages(&name).into_iter().enumerate() {
                let name = format!("{name} {stage}");
                let frames = if frames.is_empty() { frames } else { stages(&name).swap_remove(stage).1 };
                let client = watched.client().await;
                let mut call = client.begin(WRITE).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                call.send(frames.into());
                leave(how, client, call).await;
                refs.push(name);
            }
        }
        watched.assert_refs_are_free(&refs).await;
        watched.assert_unharmed(&format!("writes left {how:?}")).await;
    }
}

/// Commits a blob of `bytes` and gives its digest.
async fn blob(client: &Client, bytes: usize) -> String {
    let mut call = client.begin(WRITE).await.expect("a stream");
    let data = vec![9; bytes];
    let digest = sha256(&data);
    for (number, part) in data.chunks(4 * MIB).enumerate() {
        let offset = i64::try_from(number * 4 * MIB).expect("it fits");
        call.send(framed(&write("blob", WriteAction::Write, offset, part.to_vec())));
    }
    let offset = i64::try_from(bytes).expect("it fits");
    call.send(framed(&write("blob", WriteAction::Commit, offset, Vec::new())));
    call.close();
    let answer = call.end().await;
    assert_eq!(answer.code, Some(OK), "{answer:?}");
    digest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_nobody_reads_on_is_given_up() {
    root!();
    let mut watched = Watched::start().await;
    let digest = blob(&watched.client().await, 64 * MIB).await;
    let request = ReadContentRequest { digest, ..Default::default() }.encode_to_vec();
    for how in ENDS {
        for _ in 0..ROUNDS {
            for read in [false, true] {
                let client = watched.client().await;
                let mut call = client.begin(READ).await.expect("a stream");
                call.send(framed(&request));
                call.close();
                if read {
                    call.head().await.expect("an answer begins");
                    assert!(call.data().await.is_some());
                }
                match how {
                    // Its side is closed already; the rest is read by nobody.
                    Leaves::ByClose => drop(call),
                    how => leave(how, client, call).await,
                }
            }
        }
        watched.assert_unharmed(&format!("reads left {how:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_nobody_reads_are_bounded_and_end() {
    root!();
    let mut watched = Watched::start().await;
    let publisher = watched.client().await;
    let payload = Any { type_url: "example.com/Large".into(), value: vec![1; 64 << 10] };
    let event = PublishRequest { topic: "/test/large".into(), event: Some(payload) }.encode_to_vec();
    for how in ENDS {
        for _ in 0..3 {
            // Ten that never read: together they share what waits.
            let mut held = Vec::new();
            for _ in 0..10 {
                let client = Client::with(
                    &watched.daemon.address(),
                    h2::client::Builder::new().initial_window_size(0),
                )
                .await;
                let mut call = client.begin(SUBSCRIBE).await.expect("a stream");
                call.send(framed(&SubscribeRequest::default().encode_to_vec()));
                call.close();
                call.head().await.expect("the subscription begins");
                held.push((client, call));
            }
            for _ in 0..400 {
                let answer = publisher.call(PUBLISH, &event).await;
                assert_eq!(answer.code, Some(OK), "{answer:?}");
            }
            watched.assert_answers("while nobody listens").await;
            for (client, call) in held {
                match how {
                    Leaves::ByClose => drop((call, client)),
                    how => leave(how, client, call).await,
                }
            }
        }
        watched.assert_unharmed(&format!("subscriptions left {how:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_falls_behind_is_told() {
    root!();
    let mut watched = Watched::start().await;
    let publisher = watched.client().await;
    let slow = watched.client().await;
    let mut call = slow.begin(SUBSCRIBE).await.expect("a stream");
    call.send(framed(&SubscribeRequest::default().encode_to_vec()));
    call.close();
    call.head().await.expect("the subscription begins");
    let payload = Any { type_url: "example.com/Large".into(), value: vec![1; 64 << 10] };
    let event = PublishRequest { topic: "/test/large".into(), event: Some(payload) }.encode_to_vec();
    for _ in 0..600 {
        assert_eq!(publisher.call(PUBLISH, &event).await.code, Some(OK));
    }
    let answer = tokio::time::timeout(BOUND, call.end()).await.expect("it ends");
    assert_eq!(answer.code, Some(RESOURCE_EXHAUSTED), "{answer:?}");
    drop((publisher, slow));
    watched.assert_unharmed("a subscriber that fell behind").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diff_whose_client_leaves_stops() {
    root!();
    let mut watched = Watched::start().await;
    let digest = blob(&watched.client().await, 64 * MIB).await;
    let diff = Some(Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".into(),
        digest,
        size: 64 << 20,
        ..Default::default()
    });
    let request = ApplyRequest { diff, ..Default::default() }.encode_to_vec();
    for how in ENDS {
        for round in 0..ROUNDS {
            let client = watched.client().await;
            let mut call = client.begin(APPLY).await.expect("a stream");
            let frames = framed(&request);
            // Cut within the message by turns.
            call.send(frames.slice(..if round % 2 == 0 { frames.len() } else { frames.len() / 2 }));
            tokio::time::sleep(Duration::from_millis(round as u64 % 5)).await;
            leave(how, client, call).await;
        }
        watched.assert_unharmed(&format!("diffs left {how:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_message_never_ends_waits_for_its_client_only() {
    root!();
    let mut watched = Watched::start().await;
    let mut held = Vec::new();
    for _ in 0..200 {
        let client = watched.client().await;
        let mut call = client.begin("/containerd.services.images.v1.Images/Create").await.expect("a stream");
        // Says 16 MiB, and sends a little: what is not there takes no memory.
        call.send(crate::wire::framed_as(0, 16 << 20, b"\x0a"));
        held.push((client, call));
    }
    watched.assert_answers("while 200 messages are under way").await;
    let held_kib = watched.size().pss_kib;
    let (client, call) = held.swap_remove(0);
    let mut call = call;
    call.close();
    let answer = tokio::time::timeout(scaled(BOUND), call.end()).await.expect("it ends");
    assert_eq!(answer.code, Some(INTERNAL), "{answer:?}");
    drop((client, held));
    println!("{held_kib} KiB with 200 messages under way");
    watched.assert_unharmed("messages that never ended").await;
}
