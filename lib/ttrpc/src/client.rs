//! The calling end of a connection.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use gantry_core::{Error, Result};
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::frame::{self, FrameReader, Header, Incoming, MAX_PAYLOAD_BYTES, flags, kind};
use crate::message::{Request, Response, closed, too_long};
use crate::outgoing::{self, Outgoing};
use crate::stream::{ClientStream, Item, QUEUE_MESSAGES};
use crate::{Metadata, socket};

/// How a call is made.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// How long to wait for the answer; the server is told. Default: for ever.
    pub timeout: Option<Duration>,
    /// What travels beside the message. Default: nothing.
    pub metadata: Metadata,
}

impl CallOptions {
    /// Options with a timeout.
    pub fn timeout(timeout: Duration) -> Self {
        CallOptions { timeout: Some(timeout), ..Default::default() }
    }
}

/// A connection to a server. Clones share it; it closes when the last one and its streams are gone.
#[derive(Clone, Debug)]
pub struct Client {
    out: Outgoing,
    calls: Arc<Calls>,
    /// The two jobs of the connection; they end with the last clone.
    _jobs: Arc<Mutex<JoinSet<()>>>,
}

/// The calls that wait for something.
#[derive(Debug)]
struct Calls {
    table: Mutex<Table>,
    ended: CancellationToken,
}

#[derive(Debug)]
struct Table {
    next_id: u32,
    waiting: HashMap<u32, Waiting>,
}

#[derive(Debug)]
enum Waiting {
    Unary(oneshot::Sender<Result<Response>>),
    Stream(mpsc::Sender<Item>),
}

/// A call's place in the table; dropping it forgets the call.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: u32,
    calls: Arc<Calls>,
    /// Keeps the connection for as long as one of its streams lives.
    _jobs: Arc<Mutex<JoinSet<()>>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.calls.lock().waiting.remove(&self.id);
    }
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while holding it; a poisoned table is still whole.
        self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Ends every call; further ones fail at once.
    fn close(&self) {
        self.ended.cancel();
        let waiting = std::mem::take(&mut self.lock().waiting);
        for (_, call) in waiting {
            if let Waiting::Unary(answer) = call {
                // The caller may have given up meanwhile.
                let _ = answer.send(Err(closed()));
            }
            // A stream learns it from its channel's end.
        }
    }
}

impl Client {
    /// Connects to the server listening at `path`.
    ///
    /// # Errors
    /// `NotFound` if there is no such socket, `Unavailable` if nobody listens there.
    pub async fn connect(path: &Path) -> Result<Client> {
        let stream = socket::connect(path)?;
        Ok(Client::new(stream))
    }

    /// A client on a connected socket. Must be called within a runtime.
    pub fn new(stream: UnixStream) -> Client {
        let (read, write) = stream.into_split();
        let (out, queue) = Outgoing::new();
        let calls = Arc::new(Calls {
            table: Mutex::new(Table { next_id: 1, waiting: HashMap::new() }),
            ended: CancellationToken::new(),
        });
        let mut jobs = JoinSet::new();
        let writing = Arc::clone(&calls);
        jobs.spawn(async move {
            outgoing::write(write, queue).await;
            writing.close();
        });
        let reading = Arc::clone(&calls);
        jobs.spawn(async move {
            if let Err(error) = read_answers(FrameReader::new(read), &reading).await {
                tracing::debug!(%error, "ttrpc connection broke");
            }
            reading.close();
        });
        Client { out, calls, _jobs: Arc::new(Mutex::new(jobs)) }
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.calls.ended.is_cancelled()
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) {
        self.calls.ended.cancelled().await;
    }

    /// Calls a method with one message and waits for its answer.
    ///
    /// # Errors
    /// What the server says; `DeadlineExceeded` after the timeout; `Unavailable` if the connection ended;
    /// `ResourceExhausted` if the message is too long; `Internal` if the answer does not decode.
    pub async fn call<Q: Message, P: Message + Default>(
        &self,
        service: &str,
        method: &str,
        request: &Q,
        options: CallOptions,
    ) -> Result<P> {
        let payload = self.call_bytes(service, method, request.encode_to_vec().into(), options).await?;
        P::decode(payload).map_err(|error| Error::internal(format!("answer of {service}/{method}: {error}")))
    }

    /// The same, with messages that are encoded already.
    ///
    /// # Errors
    /// As for [`Client::call`].
    pub async fn call_bytes(
        &self,
        service: &str,
        method: &str,
        payload: Bytes,
        options: CallOptions,
    ) -> Result<Bytes> {
        let timeout = options.timeout;
        let request = request(service, method, payload, options)?;
        let exchange = async {
            let (tx, rx) = oneshot::channel();
            let _entry = self.open(&request, flags::REMOTE_CLOSED, Waiting::Unary(tx)).await?;
            rx.await.unwrap_or_else(|_| Err(closed()))?.into_result()
        };
        match timeout {
            None => exchange.await,
            Some(limit) => match tokio::time::timeout(limit, exchange).await {
                Ok(done) => done,
                Err(_) => Err(Error::deadline_exceeded(format!("{service}/{method}"))),
            },
        }
    }

    /// Opens a stream to a method. `first` is the request's own message, if it has one; `more` says whether the client
    /// will send others.
    ///
    /// # Errors
    /// `Unavailable` if the connection ended; `ResourceExhausted` if `first` is too long.
    pub async fn stream(
        &self,
        service: &str,
        method: &str,
        first: Option<Bytes>,
        more: bool,
        options: CallOptions,
    ) -> Result<ClientStream> {
        let mut bits = if more { flags::REMOTE_OPEN } else { flags::REMOTE_CLOSED };
        if first.is_none() {
            bits |= flags::NO_DATA;
        }
        let request = request(service, method, first.unwrap_or_default(), options)?;
        let (tx, incoming) = mpsc::channel(QUEUE_MESSAGES);
        let entry = self.open(&request, bits, Waiting::Stream(tx)).await?;
        Ok(ClientStream { out: self.out.clone(), incoming, entry, send_closed: !more, recv_closed: false })
    }

    /// Takes a stream id and sends the request. Ids reach the server in order, since both happen under the lock.
    async fn open(&self, request: &[u8], bits: u8, waiting: Waiting) -> Result<Entry> {
        let place = self.out.reserve().await?;
        let mut table = self.calls.lock();
        // Checked under the lock: whoever closes empties the table after setting it.
        if self.calls.ended.is_cancelled() {
            return Err(closed());
        }
        let id = table.next_id;
        // A connection that used up its ids is replaced; 2^31 calls are months of work.
        table.next_id = id.checked_add(2).ok_or_else(|| {
            self.calls.ended.cancel();
            closed()
        })?;
        table.waiting.insert(id, waiting);
        place.send(frame::encode(id, kind::REQUEST, bits, request));
        Ok(Entry { id, calls: Arc::clone(&self.calls), _jobs: Arc::clone(&self._jobs) })
    }
}

fn request(service: &str, method: &str, payload: Bytes, options: CallOptions) -> Result<Vec<u8>> {
    let timeout_nano =
        options.timeout.map_or(0, |limit| i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX).max(1));
    let request = Request {
        service: service.to_owned(),
        method: method.to_owned(),
        payload,
        timeout_nano,
        metadata: options.metadata.into_wire(),
    };
    match request.encoded_len() {
        length if length > MAX_PAYLOAD_BYTES => Err(too_long(length)),
        _ => Ok(request.encode_to_vec()),
    }
}

/// Hands what comes in to whoever waits for it, until the server closes.
async fn read_answers(mut reader: FrameReader, calls: &Calls) -> std::io::Result<()> {
    while let Some(incoming) = reader.next().await? {
        match incoming {
            Incoming::TooLong(header) => {
                deliver(calls, header, Err(too_long(header.length_bytes as usize))).await;
            }
            Incoming::Frame(header, payload) => deliver(calls, header, Ok(payload)).await,
        }
    }
    Ok(())
}

async fn deliver(calls: &Calls, header: Header, payload: Result<Bytes>) {
    let ends = header.kind == kind::RESPONSE || header.has(flags::REMOTE_CLOSED) || payload.is_err();
    let waiting = {
        let mut table = calls.lock();
        match table.waiting.get(&header.stream_id) {
            Some(Waiting::Stream(tx)) if !ends => Some(Waiting::Stream(tx.clone())),
            Some(_) => table.waiting.remove(&header.stream_id),
            None => None,
        }
    };
    // Nobody waits: the caller gave up, or the server invents streams. Either way it is of no use.
    let Some(waiting) = waiting else { return };
    let decode = |payload: Bytes| {
        Response::decode(payload).map_err(|error| Error::internal(format!("ttrpc response: {error}")))
    };
    match waiting {
        Waiting::Unary(answer) => {
            let response = match header.kind {
                kind::RESPONSE => payload.and_then(decode),
                _ => payload.and(Err(Error::internal("received data from non-streaming server"))),
            };
            let _ = answer.send(response);
        }
        Waiting::Stream(tx) => {
            let item = match (header.kind, payload) {
                (_, Err(error)) => Item::Failed(error),
                (kind::RESPONSE, Ok(payload)) => decode(payload).map_or_else(Item::Failed, Item::Response),
                (kind::DATA, Ok(_)) if header.has(flags::REMOTE_CLOSED | flags::NO_DATA) => Item::End,
                (kind::DATA, Ok(payload)) if ends => Item::Last(payload),
                (kind::DATA, Ok(_)) if header.has(flags::NO_DATA) => return,
                (kind::DATA, Ok(payload)) => Item::Message(payload),
                _ => return,
            };
            // A stream that was dropped meanwhile wants nothing.
            let _ = tx.send(item).await;
        }
    }
}
