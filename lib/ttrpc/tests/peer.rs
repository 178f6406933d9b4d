//! Who may call: the same user, nobody else.
#![allow(clippy::unwrap_used, clippy::disallowed_types, reason = "a test; nothing here waits for any child")]

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use common::{NAME, quick, start};
use gantry_testkit::root;
use gantry_ttrpc::ServerConfig;
use gantry_ttrpc::frame::{Header, flags, kind};
use gantry_ttrpc::message::Request;
use prost::Message;

/// Where the other user's process finds the socket.
const SOCKET: &str = "GANTRY_TTRPC_TEST_SOCKET";

/// Calls once and says how many bytes were answered.
fn call(path: &str) -> usize {
    let payload = Request {
        service: NAME.into(),
        method: "Echo".into(),
        payload: "hello".into(),
        ..Request::default()
    }
    .encode_to_vec();
    let length_bytes = u32::try_from(payload.len()).unwrap();
    let header = Header { length_bytes, stream_id: 1, kind: kind::REQUEST, flags: flags::REMOTE_CLOSED };
    let mut stream = UnixStream::connect(path).unwrap();
    // The server may have hung up already.
    let _ = stream.write_all(&[&header.to_bytes()[..], &payload].concat());
    stream.read(&mut [0; 64]).unwrap_or(0)
}

#[tokio::test]
async fn a_peer_of_another_user_is_refused() {
    if let Ok(path) = std::env::var(SOCKET) {
        assert_eq!(call(&path), 0, "another user was answered");
        return;
    }
    root!();
    for same_uid_only in [true, false] {
        let server = start(ServerConfig { same_uid_only, ..quick() });
        let dir = server.path.parent().unwrap();
        let open = |path: &std::path::Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        open(dir, 0o755);
        open(&server.path, 0o666);
        let program = dir.join("peer");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let mut other = Command::new(&program);
        other
            .args(["a_peer_of_another_user_is_refused", "--exact"])
            .env(SOCKET, &server.path)
            .current_dir("/")
            .uid(65534);
        let refused = tokio::task::spawn_blocking(move || other.output().unwrap()).await.unwrap();
        assert_eq!(refused.status.success(), same_uid_only, "{}", String::from_utf8_lossy(&refused.stdout));
        let path = server.path.display().to_string();
        assert!(tokio::task::spawn_blocking(move || call(&path)).await.unwrap() > 0);
    }
}
