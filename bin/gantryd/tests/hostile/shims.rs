//! The shims' socket: frames that are none, messages that are none, and calls that nobody waits for.

use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use gantry_testkit::root;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::schema::{Schema, length_delimited};
use crate::tricks::tricks;
use crate::watched::Watched;
use crate::wire::{INTERNAL, INVALID_ARGUMENT, OK, UNIMPLEMENTED};

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
const MIB: usize = 1 << 20;
/// The longest payload of a frame. Source: the ttrpc protocol description.
const LONGEST: usize = 4 * MIB;
const REQUEST: u8 = 1;
const DATA: u8 = 3;

/// A status as it is answered.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
}

fn socket(watched: &Watched) -> PathBuf {
    let mut path = watched.daemon.address().into_os_string();
    path.push(".ttrpc");
    path.into()
}

fn frame(length: u32, stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let head = [&length.to_be_bytes()[..], &stream.to_be_bytes()[..], &[kind, 0]].concat();
    [&head[..], payload].concat()
}

fn request(service: &str, method: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    length_delimited(1, service.as_bytes(), &mut message);
    length_delimited(2, method.as_bytes(), &mut message);
    length_delimited(3, payload, &mut message);
    message
}

struct Client {
    stream: UnixStream,
    next: u32,
}

impl Client {
    async fn connect(watched: &Watched) -> Client {
        Client { stream: UnixStream::connect(socket(watched)).await.expect("connect"), next: 1 }
    }

    /// Sends a request's bytes in one frame and gives the answer's code.
    async fn ask(&mut self, message: &[u8]) -> Status {
        let length = u32::try_from(message.len()).expect("it fits");
        self.say(&frame(length, self.next, REQUEST, message)).await;
        self.next += 2;
        self.answer().await.expect("an answer")
    }

    async fn say(&mut self, bytes: &[u8]) {
        // The daemon may have hung up.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The status of the next answer; none if the daemon hung up.
    async fn answer(&mut self) -> Option<Status> {
        let read = async {
            let mut head = [0; 10];
            self.stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            assert!(length <= LONGEST, "an answer of {length} bytes");
            let mut payload = BytesMut::zeroed(length);
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Response::decode(payload).expect("a response").status.unwrap_or_default())
        };
        tokio::time::timeout(Duration::from_secs(60), read).await.expect("an answer, or the end")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shims_socket_takes_any_field() {
    root!();
    let schema = Schema::read();
    let mut watched = Watched::start().await;
    let methods: Vec<_> = schema.methods.iter().filter(|method| method.service == SERVICE).collect();
    assert!(!methods.is_empty());
    for method in methods {
        let name = method.path.rsplit('/').next().expect("a method has a name");
        let mut client = Client::connect(&watched).await;
        let hollow = client.ask(&request(SERVICE, name, b"")).await;
        assert_eq!(hollow.code, INVALID_ARGUMENT, "{hollow:?}");
        let usual = client.ask(&request(SERVICE, name, &schema.usual(&method.input))).await;
        assert_eq!(usual.code, OK, "{usual:?}");
        for way in schema.places(&method.input) {
            for trick in tricks(way.last().expect("a way leads somewhere")) {
                let what = format!("{name}: {way:?}: {}", trick.name);
                for message in
                    [schema.with(&method.input, &way, &trick.bytes), schema.only(&way, &trick.bytes)]
                {
                    let status = client.ask(&request(SERVICE, name, &message)).await;
                    // Source: Go's ttrpc answers INVALID_ARGUMENT to what does not decode.
                    let refused = [INVALID_ARGUMENT, INTERNAL].contains(&status.code);
                    assert!(refused || !trick.unparsable, "{what}: {status:?}");
                    assert!(
                        trick.unparsable || [OK, INVALID_ARGUMENT].contains(&status.code),
                        "{what}: {status:?}"
                    );
                }
            }
        }
    }
    watched.assert_unharmed("any field on the shims' socket").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_none_are_refused_or_end_their_connection() {
    root!();
    let mut watched = Watched::start().await;
    let good = request(SERVICE, "Forward", b"");
    let length = u32::try_from(good.len()).expect("it fits");
    let mut garbage = Client::connect(&watched).await;
    for payload in [&b"\xff\xff\xff"[..], b"\x0a\x05x", &[0; 1000]] {
        let status = garbage.ask(payload).await;
        assert!(status.code != OK, "{status:?}");
    }
    for (service, method) in
        [("", ""), ("nobody", "Forward"), (SERVICE, "nothing"), (SERVICE, ""), ("x", &"y".repeat(100_000))]
    {
        let status = garbage.ask(&request(service, method, b"")).await;
        assert_eq!(status.code, UNIMPLEMENTED, "{service} {status:?}");
    }
    let longest = vec![0; LONGEST];
    let status = garbage.ask(&longest).await;
    assert!(status.code != OK, "{status:?}");
    for (what, bytes) in [
        ("one byte too long", frame(4 * (MIB as u32) + 1, 1, REQUEST, &vec![0; LONGEST + 1])),
        ("an even stream", frame(length, 2, REQUEST, &good)),
        ("stream 0", frame(length, 0, REQUEST, &good)),
        ("data without a request", frame(1, 1, DATA, b"x")),
        ("a stream twice", [frame(length, 1, REQUEST, &good), frame(length, 1, REQUEST, &good)].concat()),
    ] {
        let mut client = Client::connect(&watched).await;
        client.say(&bytes).await;
        let status = client.answer().await.unwrap_or_else(|| panic!("{what}: hung up"));
        assert!(status.code != OK, "{what}: {status:?}");
    }
    for (what, bytes) in [
        ("a length of 4 GiB", frame(u32::MAX, 1, REQUEST, b"x")),
        ("half a head", vec![0; 5]),
        ("half a payload", frame(100, 1, REQUEST, &[0; 50])),
        ("a kind that is none", frame(1, 1, 200, b"x")),
    ] {
        for _ in 0..50 {
            let mut client = Client::connect(&watched).await;
            client.say(&bytes).await;
        }
        watched.assert_answers(what).await;
    }
    drop(garbage);
    watched.assert_unharmed("frames that are none").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_nobody_waits_for_are_bounded() {
    root!();
    let mut watched = Watched::start().await;
    let schema = Schema::read();
    let good =
        request(SERVICE, "Forward", &schema.usual("containerd.services.events.ttrpc.v1.ForwardRequest"));
    let length = u32::try_from(good.len()).expect("it fits");
    for _ in 0..20 {
        let mut client = Client::connect(&watched).await;
        let calls: Vec<u8> = (0..5000).flat_map(|call| frame(length, call * 2 + 1, REQUEST, &good)).collect();
        // Nothing is read: the daemon need not take all of it.
        let _ = tokio::time::timeout(Duration::from_millis(500), client.stream.write_all(&calls)).await;
    }
    watched.assert_unharmed("calls that nobody waits for").await;
}
