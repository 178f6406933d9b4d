//! Many connections that say nothing, or too little.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_testkit::root;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use crate::watched::Watched;

/// The beginning of every HTTP/2 connection. Source: RFC 9113, section 3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const MANY: usize = 1000;

/// Opens `MANY` connections that send `bytes` and no more.
async fn open(socket: &Path, bytes: &[u8]) -> Vec<UnixStream> {
    let mut all = Vec::new();
    for count in 0..MANY {
        let stream = UnixStream::connect(socket).await;
        let mut stream =
            stream.unwrap_or_else(|error| panic!("connection {count} to {}: {error}", socket.display()));
        stream.write_all(bytes).await.expect("write a little");
        all.push(stream);
    }
    all
}

fn sockets(watched: &Watched) -> [PathBuf; 2] {
    let main = watched.daemon.address();
    let mut shims = main.clone().into_os_string();
    shims.push(".ttrpc");
    let shims = PathBuf::from(shims);
    assert!(shims.metadata().is_ok_and(|found| found.file_type().is_socket()), "{}", shims.display());
    [main, shims]
}

async fn hold(bytes: &[u8], what: &str) {
    let mut watched = Watched::start().await;
    for socket in sockets(&watched) {
        let before = watched.size();
        let held = open(&socket, bytes).await;
        let what = format!("{MANY} connections to {} that {what}", socket.display());
        watched.assert_answers(&what).await;
        let size = watched.size();
        let each = size.pss_kib.saturating_sub(before.pss_kib) * 1024 / MANY as u64;
        println!("{what}: {each} bytes each");
        assert!(each < 64 << 10, "{what}: {each} bytes each");
        let cpu = watched.cpu();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let spent = watched.cpu() - cpu;
        assert!(spent < Duration::from_millis(500), "{what}: {spent:?} of CPU time in a second of silence");
        drop(held);
        watched.assert_unharmed(&what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_silent_connections_disturb_nobody() {
    root!();
    hold(b"", "say nothing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_half_prefaces_disturb_nobody() {
    root!();
    hold(&PREFACE[..12], "send half a preface").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_prefaces_alone_disturb_nobody() {
    root!();
    hold(PREFACE, "send a preface").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_http_is_hung_up_on() {
    root!();
    let mut watched = Watched::start().await;
    for (what, bytes) in [
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()),
        ("noise", (0..=255).cycle().take(10_000).collect()),
        ("zeros", vec![0; 10_000]),
        ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(100)),
    ] {
        for _ in 0..50 {
            let mut stream = UnixStream::connect(watched.daemon.address()).await.expect("connect");
            // The daemon may hang up before all is written.
            let _ = stream.write_all(&bytes).await;
            let left = tokio::time::timeout(Duration::from_secs(20), read_to_end(stream)).await;
            left.unwrap_or_else(|_| panic!("{what}: the connection stays open"));
        }
    }
    watched.assert_unharmed("what is no HTTP").await;
}

/// Reads what comes until the other side hangs up, and gives how much it was.
pub(crate) async fn read_to_end(mut stream: UnixStream) -> usize {
    use tokio::io::AsyncReadExt as _;
    let (mut buffer, mut all) = (vec![0; 64 << 10], 0);
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return all,
            Ok(read) => all += read,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_left_the_daemon_waits_and_goes_on() {
    root!();
    for which in 0..2 {
        let mut watched = Watched::start().await;
        let socket = sockets(&watched)[which].clone();
        let pid = Pid::from_raw(i32::try_from(watched.daemon.pid()).expect("pids fit"));
        let some = watched.size().descriptors as u64 + 40;
        let set = |most| prlimit(pid, Resource::Nofile, Rlimit { current: Some(most), maximum: Some(4096) });
        set(some).expect("set the limit of descriptors");
        let mut held = Vec::new();
        for _ in 0..200 {
            held.push(UnixStream::connect(&socket).await.expect("the backlog takes them"));
        }
        let cpu = watched.cpu();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let spent = watched.cpu() - cpu;
        drop(held);
        set(4096).expect("set the limit of descriptors");
        assert!(spent < Duration::from_secs(1), "{spent:?} of CPU time in two seconds without descriptors");
        watched.assert_unharmed(&format!("no descriptors left, {}", socket.display())).await;
    }
}
