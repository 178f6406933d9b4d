//! Fetching blobs: as a stream, from any host that has them, resumed where a connection breaks.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use gantry_core::{Descriptor, Digest, Error, ErrorKind, Result, ResultExt};
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::{Response, Url};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::explain::Operation;
use crate::repository::{Repository, Timeouts};
use crate::stall::StallMeter;
use crate::transport::{Ask, HostClient, Place};
use crate::{answer, failure, resolve, retry};

/// What to fetch of a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchOptions {
    /// Which bytes; all by default. What was fetched before a restart need not be fetched again.
    pub range: Option<Range<u64>>,
    /// Leave checking the digest to the caller, who hashes anyway. A range that is not the whole is never checked.
    pub unchecked: bool,
    /// Other places that the descriptor names. They are strangers, asked as nobody when no host has the blob (S01).
    pub urls: Vec<String>,
}

/// Where a blob may be had.
#[derive(Clone)]
enum Source {
    Host(Arc<HostClient>),
    /// A stranger's URL, asked over the connections of a host but without anything of ours.
    Stranger(Arc<HostClient>, Url),
}

impl Source {
    fn name(&self) -> String {
        match self {
            Source::Host(client) => client.host.host.clone(),
            Source::Stranger(_, url) => crate::redirect::shown(url),
        }
    }
}

/// A blob on its way. Dropping it closes the connection.
pub struct BlobReader {
    repository: Repository,
    descriptor: Descriptor,
    /// Where to go on if the present source fails, the present one first.
    sources: Vec<Source>,
    at: u64,
    end: u64,
    hasher: Option<Hasher>,
    connection: Option<Connection>,
    /// Connections in a row that brought too little.
    fruitless: u32,
    failures: Vec<(String, Error)>,
    failed: bool,
}

struct Connection {
    response: Response,
    meter: StallMeter,
    received: u64,
    /// Bytes before the ones we want, from a server that does not know ranges.
    to_skip: u64,
}

enum Hasher {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    fn like(digest: &Digest) -> Self {
        match digest.algorithm() {
            "sha384" => Hasher::Sha384(Sha384::new()),
            "sha512" => Hasher::Sha512(Sha512::new()),
            _ => Hasher::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha384(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn hex(self) -> String {
        let sum = match self {
            Hasher::Sha256(hasher) => hasher.finalize().to_vec(),
            Hasher::Sha384(hasher) => hasher.finalize().to_vec(),
            Hasher::Sha512(hasher) => hasher.finalize().to_vec(),
        };
        use std::fmt::Write as _;
        sum.iter().fold(String::with_capacity(sum.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        })
    }
}

impl Repository {
    /// Opens a blob. The first connection is made here, so that absence is known at once.
    ///
    /// # Errors
    /// As [`Repository::resolve`]; `InvalidArgument` for a descriptor without a size; `OutOfRange` for a range beyond
    /// its end.
    pub async fn fetch_blob(&self, descriptor: &Descriptor, options: FetchOptions) -> Result<BlobReader> {
        let step = || format!("fetch {} of {}", descriptor.digest, self.reference.name());
        let size = u64::try_from(descriptor.size_bytes).map_err(|_| {
            Error::invalid_argument(format!("size {}", descriptor.size_bytes)).context(step())
        })?;
        let range = options.range.unwrap_or(0..size);
        if range.start > range.end || range.end > size {
            return Err(Error::out_of_range(format!("bytes {range:?} of {size}")).context(step()));
        }
        let mut sources: Vec<Source> = match self.hosts_for(Operation::Pull) {
            Ok(hosts) => hosts.into_iter().map(Source::Host).collect(),
            Err(error) => return Err(error.context(step())),
        };
        sources.extend(self.strangers(&options.urls));
        let whole = range == (0..size);
        let mut reader = BlobReader {
            repository: self.clone(),
            descriptor: descriptor.clone(),
            sources,
            at: range.start,
            end: range.end,
            hasher: (whole && !options.unchecked).then(|| Hasher::like(&descriptor.digest)),
            connection: None,
            fruitless: 0,
            failures: Vec::new(),
            failed: false,
        };
        if reader.at < reader.end {
            reader.connect().await.with_context(step)?;
        }
        Ok(reader)
    }

    fn strangers(&self, urls: &[String]) -> Vec<Source> {
        let Some(client) = self.hosts.last() else { return Vec::new() };
        urls.iter()
            .take(8)
            .filter_map(|text| Url::parse(text).ok())
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some())
            .filter_map(|mut url| {
                url.set_username("").ok()?;
                url.set_password(None).ok()?;
                Some(Source::Stranger(Arc::clone(client), url))
            })
            .collect()
    }
}

impl BlobReader {
    /// Where in the blob the next piece begins.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// The host, or other place, that the present connection leads to.
    pub fn source(&self) -> Option<String> {
        self.connection.as_ref().and(self.sources.first()).map(Source::name)
    }

    fn timeouts(&self) -> &Timeouts {
        &self.repository.timeouts
    }

    /// The next piece; `None` at the end, which is reached only if the digest is right, where it is checked.
    ///
    /// A connection that breaks, or stalls, is replaced and goes on where it stopped. Dropping this future loses
    /// nothing: the next call goes on.
    ///
    /// # Errors
    /// `Unavailable` if no host delivers; `FailedPrecondition` if what came does not have its digest. After an error
    /// there is nothing more to be had.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.failed {
            return Err(Error::failed_precondition("this blob has failed already"));
        }
        let result = self.try_next().await;
        if let Err(error) = result {
            self.failed = true;
            self.connection = None;
            let step = format!("fetch {} of {}", self.descriptor.digest, self.repository.reference.name());
            return Err(error.context(step));
        }
        result
    }

    async fn try_next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.at >= self.end {
                self.connection = None;
                self.check_digest()?;
                return Ok(None);
            }
            if self.connection.is_none() {
                self.connect().await?;
            }
            let connection = self.connection.as_mut().expect("connect made one");
            let patience = connection.meter.patience();
            let asked = Instant::now();
            let piece = match tokio::time::timeout(patience, connection.response.chunk()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => {
                    self.broken(Error::unavailable(format!(
                        "the blob ends at byte {} of {}",
                        self.at, self.end
                    )));
                    continue;
                }
                Ok(Err(error)) => {
                    self.broken(answer::failed(error));
                    continue;
                }
                Err(_) => {
                    self.broken(Error::unavailable("the connection stalls"));
                    continue;
                }
            };
            connection.received += piece.len() as u64;
            let flows = connection.meter.record(asked.elapsed(), piece.len() as u64);
            let piece = match connection.skip(piece) {
                Some(piece) => piece,
                None if flows => continue,
                None => {
                    self.broken(Error::unavailable("the connection stalls"));
                    continue;
                }
            };
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            if piece.len() > left && self.end == u64::try_from(self.descriptor.size_bytes).unwrap_or(0) {
                return Err(Error::failed_precondition(format!(
                    "the blob is longer than {} bytes",
                    self.end
                )));
            }
            let piece = if piece.len() > left { piece.slice(..left) } else { piece };
            self.at += piece.len() as u64;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&piece);
            }
            if !flows && self.at < self.end {
                self.broken(Error::unavailable("the connection stalls"));
            }
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    fn check_digest(&mut self) -> Result<()> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let got = format!("{}:{}", self.descriptor.digest.algorithm(), hasher.hex());
        if got == self.descriptor.digest.as_str() {
            return Ok(());
        }
        Err(resolve::mismatch(&self.descriptor.digest, &Digest::parse(got)?))
    }

    /// Gives the present connection up.
    fn broken(&mut self, error: Error) {
        let received = self.connection.take().map_or(0, |connection| connection.received);
        if received >= self.timeouts().stall.min_bytes {
            self.fruitless = 0;
        } else {
            self.fruitless += 1;
        }
        let name = self.sources.first().map(Source::name).unwrap_or_default();
        tracing::debug!(host = name, digest = %self.descriptor.digest, offset = self.at, %error, "connection given up");
        // Only the last word of each source is told.
        self.failures.retain(|(host, _)| *host != name);
        self.failures.push((name, error));
        if self.fruitless >= self.timeouts().fruitless_connections {
            self.next_source();
        }
    }

    fn next_source(&mut self) {
        self.fruitless = 0;
        if !self.sources.is_empty() {
            self.sources.remove(0);
        }
    }

    /// Connects to the first source that has the blob, at the present place.
    async fn connect(&mut self) -> Result<()> {
        loop {
            let Some(source) = self.sources.first().cloned() else {
                let failures = std::mem::take(&mut self.failures);
                return Err(match failures.is_empty() {
                    true => Error::not_found("no host has it"),
                    false => failure::of_hosts(failures),
                });
            };
            if self.fruitless > 0 {
                tokio::time::sleep(retry::wait(self.fruitless, None)).await;
            }
            match self.open(&source).await {
                Ok(connection) => {
                    self.connection = Some(connection);
                    return Ok(());
                }
                Err(error) => {
                    let name = source.name();
                    tracing::debug!(host = name, digest = %self.descriptor.digest, %error, "trying the next host");
                    self.failures.retain(|(host, _)| *host != name);
                    self.failures.push((name, error));
                    self.next_source();
                }
            }
        }
    }

    async fn open(&self, source: &Source) -> Result<Connection> {
        let patient = self.sources.len() == 1;
        let path = format!("blobs/{}", self.descriptor.digest);
        let range = HeaderValue::try_from(format!("bytes={}-{}", self.at, self.end - 1))
            .expect("digits fit a header");
        let size = u64::try_from(self.descriptor.size_bytes).unwrap_or(0);
        let partial = self.at > 0 || self.end < size;
        let prepare = |ask: &mut Ask| {
            ask.patient = patient;
            ask.headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
            ask.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if partial {
                ask.headers.insert(header::RANGE, range.clone());
            }
        };
        let response = match source {
            Source::Host(client) => {
                let mut ask = self.repository.ask(client, Method::GET, &path, false);
                prepare(&mut ask);
                let response = client.ask(&ask).await?;
                if !response.status().is_success() {
                    return Err(client.unexpected(response).await);
                }
                response
            }
            Source::Stranger(client, url) => {
                let mut ask = Ask::new(Method::GET, "");
                ask.place = Place::Url(url.clone());
                prepare(&mut ask);
                let response = client.ask_stranger(&ask).await?;
                if !response.status().is_success() {
                    return Err(client.unexpected(response).await);
                }
                response
            }
        };
        let to_skip = self.check_head(&response, size, partial)?;
        Ok(Connection { response, meter: StallMeter::new(self.timeouts().stall), received: 0, to_skip })
    }

    /// Checks that the answer is what was asked for, and says how many bytes come before it.
    fn check_head(&self, response: &Response, size: u64, partial: bool) -> Result<u64> {
        let wrong = |text: String| Error::failed_precondition(text);
        if response.headers().contains_key(header::CONTENT_ENCODING)
            && response.headers()[header::CONTENT_ENCODING] != "identity"
        {
            return Err(wrong("the host sends the blob in another encoding".to_owned()));
        }
        match response.status() {
            StatusCode::PARTIAL_CONTENT if partial => {
                let text =
                    response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
                let expected = format!("bytes {}-", self.at);
                let (_, total) = text
                    .filter(|text| text.starts_with(&expected))
                    .and_then(|text| text.split_once('/'))
                    .ok_or_else(|| wrong(format!("the host sends other bytes than asked for: {text:?}")))?;
                if total != "*" && total.parse() != Ok(size) {
                    return Err(wrong(format!("unexpected size {total:.20}, expected {size}")));
                }
                Ok(0)
            }
            StatusCode::OK => {
                if let Some(length) = response.content_length()
                    && length != size
                {
                    return Err(wrong(format!("unexpected size {length}, expected {size}")));
                }
                Ok(self.at)
            }
            other => Err(Error::new(ErrorKind::Unknown, format!("unexpected status {other}"))),
        }
    }
}

impl Connection {
    /// The part of `piece` that was asked for; `None` if there is none yet.
    fn skip(&mut self, piece: Bytes) -> Option<Bytes> {
        if self.to_skip == 0 {
            return Some(piece);
        }
        let length = piece.len() as u64;
        if length <= self.to_skip {
            self.to_skip -= length;
            return None;
        }
        let skipped = usize::try_from(self.to_skip).expect("less than the piece's length");
        self.to_skip = 0;
        Some(piece.slice(skipped..))
    }
}
