//! A registry that misbehaves on request.

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::http::read_head;
use crate::image::{Blob, Image};

/// What goes wrong when a registry is asked for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every request needs credentials that nobody has.
    Unauthorized,
    /// The blob of this digest comes with its last byte changed.
    WrongBytes(String),
    /// The blob of this digest ends after half of its bytes, each time.
    Truncated(String),
    /// The blob of this digest stops half-way, and the connection stays open.
    Stalled(String),
    /// Every request is answered 503.
    Unavailable,
}

/// A registry in this process, with content in memory.
#[derive(Debug)]
pub struct FakeRegistry {
    address: String,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    blobs: Mutex<HashMap<String, Blob>>,
    tags: Mutex<HashMap<String, String>>,
    fault: Mutex<Option<Fault>>,
    requests: Mutex<Vec<String>>,
    closed: AtomicBool,
}

impl FakeRegistry {
    /// Starts a registry without content.
    #[must_use]
    pub fn start() -> FakeRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.closed.load(Ordering::Relaxed) {
                    break;
                }
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    // A client that leaves is none of the registry's business.
                    let _ = serve(&shared, stream);
                });
            }
        });
        FakeRegistry { address, state }
    }

    /// Offers `image` as `name` (`repository:tag`) and returns its full reference.
    pub fn offer(&self, image: &Image, name: &str) -> String {
        let mut blobs = self.state.blobs.lock().expect("no holder panics");
        for blob in image.blobs() {
            blobs.insert(blob.digest.clone(), blob.clone());
        }
        let key = name.replacen(':', "/manifests/", 1);
        self.state.tags.lock().expect("no holder panics").insert(key, image.digest().to_owned());
        format!("{}/{name}", self.address)
    }

    /// From now on this goes wrong; `None` for nothing.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *self.state.fault.lock().expect("no holder panics") = fault;
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The first lines of all requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.lock().expect("no holder panics").clone()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(state: &State, mut stream: TcpStream) -> std::io::Result<()> {
    let (line, headers) = read_head(&mut BufReader::new(stream.try_clone()?))?;
    state.requests.lock().expect("no holder panics").push(line.clone());
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let fault = state.fault.lock().expect("no holder panics").clone();
    match &fault {
        Some(Fault::Unauthorized) => {
            let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
            return respond(
                &mut stream,
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"test\"\r\n",
                "application/json",
                body,
            );
        }
        Some(Fault::Unavailable) => {
            return respond(&mut stream, "503 Service Unavailable", "", "text/plain", b"busy\n");
        }
        _ => {}
    }
    if path == "/v2/" {
        return respond(&mut stream, "200 OK", "", "application/json", b"{}");
    }
    let found = find(state, path.trim_start_matches("/v2/"));
    let Some(mut blob) = found else {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        return respond(&mut stream, "404 Not Found", "", "application/json", body);
    };
    let named = format!("Docker-Content-Digest: {}\r\n", blob.digest);
    if method == "HEAD" {
        return head(&mut stream, "200 OK", &named, &blob.media_type, blob.bytes.len());
    }
    match fault {
        Some(Fault::WrongBytes(digest)) if digest == blob.digest => {
            if let Some(last) = blob.bytes.last_mut() {
                *last ^= 1;
            }
        }
        Some(Fault::Truncated(digest)) if digest == blob.digest => {
            head(&mut stream, "200 OK", &named, &blob.media_type, blob.bytes.len())?;
            return stream.write_all(&blob.bytes[..blob.bytes.len() / 2]);
        }
        Some(Fault::Stalled(digest)) if digest == blob.digest => {
            head(&mut stream, "200 OK", &named, &blob.media_type, blob.bytes.len())?;
            stream.write_all(&blob.bytes[..blob.bytes.len() / 2])?;
            while !state.closed.load(Ordering::Relaxed) && !gone(&stream) {
                thread::sleep(Duration::from_millis(50));
            }
            return Ok(());
        }
        _ => {}
    }
    match range(&headers, blob.bytes.len()) {
        Some((from, to)) => {
            let extra = format!("{named}Content-Range: bytes {from}-{to}/{}\r\n", blob.bytes.len());
            respond(&mut stream, "206 Partial Content", &extra, &blob.media_type, &blob.bytes[from..=to])
        }
        None => respond(&mut stream, "200 OK", &named, &blob.media_type, &blob.bytes),
    }
}

/// Whether the client has closed its end.
fn gone(stream: &TcpStream) -> bool {
    let mut byte = [0u8; 1];
    stream.set_nonblocking(true).is_err() || matches!(stream.peek(&mut byte), Ok(0))
}

/// The blob or manifest at `path`, which is `repository/blobs/digest` or `repository/manifests/name`.
fn find(state: &State, path: &str) -> Option<Blob> {
    let tagged = state.tags.lock().expect("no holder panics").get(path).cloned();
    let digest = tagged.or_else(|| path.rsplit_once('/').map(|(_, digest)| digest.to_owned()))?;
    state.blobs.lock().expect("no holder panics").get(&digest).cloned()
}

/// The inclusive range that a request asks for, if it asks for one that exists.
fn range(headers: &[(String, String)], size: usize) -> Option<(usize, usize)> {
    let value = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case("range")).map(|(_, value)| value)?;
    let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = to.parse().unwrap_or(usize::MAX).min(size.checked_sub(1)?);
    (from <= to).then_some((from, to))
}

fn head(stream: &mut TcpStream, status: &str, extra: &str, kind: &str, length: usize) -> std::io::Result<()> {
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{extra}Connection: close\r\n\r\n"
    );
    stream.write_all(text.as_bytes())
}

fn respond(
    stream: &mut TcpStream,
    status: &str,
    extra: &str,
    kind: &str,
    body: &[u8],
) -> std::io::Result<()> {
    head(stream, status, extra, kind, body.len())?;
    stream.write_all(body)
}
