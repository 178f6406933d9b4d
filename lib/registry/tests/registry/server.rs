//! A small HTTP server for tests, which answers whatever a test wants.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_core::{Descriptor, Digest};
use gantry_oci::Reference;
use gantry_oci::media_types;
use gantry_registry::{BlobReader, HostsOptions, Registry, RegistryOptions, Repository, StallRule, Timeouts};
use sha2::Digest as _;

/// A request as the server saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte that a `Range` asks for.
    pub(crate) fn range_start(&self) -> usize {
        let range = self.header("range").and_then(|text| text.strip_prefix("bytes="));
        range.map_or(0, |text| text.split('-').next().unwrap().parse().unwrap())
    }
}

/// Where a handler writes its answer.
pub(crate) struct Out<'a>(pub(crate) &'a mut TcpStream);

impl Out<'_> {
    /// A whole answer; `headers` are lines.
    pub(crate) fn reply(&mut self, status: &str, headers: &[&str], body: &[u8]) {
        self.head(status, headers, body.len());
        self.bytes(body);
    }

    pub(crate) fn head(&mut self, status: &str, headers: &[&str], length: usize) {
        let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n");
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        self.bytes(head.as_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        // A client that hangs up is part of some tests.
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
    }

    /// Waits until the client has hung up.
    pub(crate) fn wait_for_the_end(&mut self) {
        let mut rest = [0u8; 64];
        while matches!(self.0.read(&mut rest), Ok(read) if read > 0) {}
    }
}

/// A server on loopback; it ends with the test.
pub(crate) struct Server {
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    closed: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Seen, &mut Out<'_>) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let closed = Arc::new(AtomicBool::new(false));
        let (shared, log, over) = (Arc::new(handler), Arc::clone(&seen), Arc::clone(&closed));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(mut stream) = stream else { continue };
                let (handler, log) = (Arc::clone(&shared), Arc::clone(&log));
                std::thread::spawn(move || {
                    // A first word in TLS does not read; hanging up is the answer.
                    let Some(request) = read_request(&stream) else { return };
                    log.lock().unwrap().push(request.clone());
                    handler(&request, &mut Out(&mut stream));
                });
            }
        });
        Server { address, seen, closed }
    }

    /// What was asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// What was asked, as `METHOD target`.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
    }

    /// Requests with an `Authorization`.
    pub(crate) fn authorized(&self) -> usize {
        self.seen().iter().filter(|seen| seen.header("authorization").is_some()).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.address);
    }
}

fn read_request(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut seen = Seen { method, target, ..Seen::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((key, value)) = line.trim_end().split_once(':') else { break };
        seen.headers.insert(key.to_ascii_lowercase(), value.trim().to_owned());
    }
    if let Some(length) = seen.header("content-length").and_then(|text| text.parse().ok()) {
        seen.body = vec![0; length];
        reader.read_exact(&mut seen.body).ok()?;
    }
    Some(seen)
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::sha256(sha2::Sha256::digest(bytes))
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, digest(bytes), bytes.len() as i64)
}

pub(crate) fn layer(bytes: &[u8]) -> Descriptor {
    descriptor(media_types::OCI_LAYER, bytes)
}

/// A manifest without layers.
pub(crate) fn manifest() -> Vec<u8> {
    let config = digest(b"{}");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{config}","size":2}},"layers":[]}}"#,
        media_types::OCI_MANIFEST,
        media_types::OCI_CONFIG
    )
    .into_bytes()
}

/// Bytes that are not the same anywhere.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
    .take(length)
    .collect()
}

/// Options with short patience.
pub(crate) fn options() -> RegistryOptions {
    RegistryOptions {
        timeouts: Timeouts {
            dial: Duration::from_secs(10),
            answer: Duration::from_secs(20),
            stall: StallRule { window: Duration::from_secs(2), min_bytes: 1024 },
            fruitless_connections: 3,
        },
        ..RegistryOptions::default()
    }
}

/// Hosts as a file says them, for the registry `registry`.
pub(crate) fn hosts(registry: &str, text: &str) -> (tempfile::TempDir, HostsOptions) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(registry)).unwrap();
    std::fs::write(dir.path().join(registry).join("hosts.toml"), text).unwrap();
    let options = HostsOptions { dirs: vec![dir.path().to_owned()], ..HostsOptions::default() };
    (dir, options)
}

/// The repository of `name`, such as `127.0.0.1:5000/a/b:tag`.
pub(crate) async fn repository(name: &str, options: RegistryOptions) -> Repository {
    Registry::new(options).repository(&Reference::parse(name).unwrap()).await.unwrap()
}

/// The repository `app/x:t` of a server, asked in plain HTTP.
pub(crate) async fn at(server: &Server) -> Repository {
    at_with(server, options()).await
}

pub(crate) async fn at_with(server: &Server, mut options: RegistryOptions) -> Repository {
    options.hosts.plain_http = true;
    repository(&format!("{}/app/x:t", server.address), options).await
}

pub(crate) async fn read_all(mut reader: BlobReader) -> gantry_core::Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}
