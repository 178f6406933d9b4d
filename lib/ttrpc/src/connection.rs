//! One connection of a server: its frames, its calls, its end.
//!
//! ```text
//!            frame                    answer
//!   reading ───────► a job per call ─────────► writing
//!      │ peer closed: `ended` fires, jobs run out, writing stops
//!      │ stop:        no more frames, jobs run out, writing stops
//!      └ give up:     `ended` fires too
//! ```

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::FutureExt;
use gantry_core::{Error, Result};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::frame::{FrameReader, Header, Incoming, flags, kind};
use crate::message::{Request, Response, too_long};
use crate::outgoing::{self, Outgoing};
use crate::service::{Reply, Service, no_service};
use crate::stream::QUEUE_MESSAGES;
use crate::{CallContext, Metadata, ServerStream};

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) services: HashMap<String, Arc<dyn Service>>,
    pub(crate) max_calls: usize,
    /// No more requests are read.
    pub(crate) stop: CancellationToken,
    /// Calls that still run are told that nobody waits.
    pub(crate) give_up: CancellationToken,
}

/// Serves one connection until its end.
pub(crate) async fn serve(stream: UnixStream, shared: Arc<Shared>) {
    let (read, write) = stream.into_split();
    let (out, queue) = Outgoing::new();
    let mut connection = Connection {
        ended: shared.give_up.child_token(),
        shared,
        out,
        jobs: JoinSet::new(),
        streams: Arc::default(),
        last_id: 0,
    };
    let mut writer = JoinSet::new();
    writer.spawn(outgoing::write(write, queue));
    connection.read(FrameReader::new(read), &mut writer).await;
    connection.finish().await;
    // Every sender is gone now; what is queued still goes out.
    drop(connection);
    writer.join_next().await;
}

/// Where the messages of each streaming call go. An entry without sender is a stream whose client sends no more.
type Streams = Arc<Mutex<HashMap<u32, Option<mpsc::Sender<Bytes>>>>>;

fn lock(streams: &Streams) -> MutexGuard<'_, HashMap<u32, Option<mpsc::Sender<Bytes>>>> {
    // Nothing panics while holding it; a poisoned table is still whole.
    streams.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Connection {
    shared: Arc<Shared>,
    out: Outgoing,
    jobs: JoinSet<()>,
    streams: Streams,
    last_id: u32,
    ended: CancellationToken,
}

impl Connection {
    async fn read(&mut self, mut reader: FrameReader, writer: &mut JoinSet<()>) {
        let stop = self.shared.stop.clone();
        loop {
            // Each branch may be dropped: frames and joins lose nothing by it.
            let handled = tokio::select! {
                () = stop.cancelled() => return,
                _ = writer.join_next(), if !writer.is_empty() => break,
                Some(_) = self.jobs.join_next(), if !self.jobs.is_empty() => continue,
                incoming = reader.next() => match incoming {
                    Ok(Some(Incoming::Frame(header, payload))) => self.frame(header, payload).await,
                    Ok(Some(Incoming::TooLong(header))) => self.too_long(header).await,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "ttrpc connection broke");
                        break;
                    }
                },
            };
            if handled.is_err() {
                break;
            }
        }
        self.ended.cancel();
        lock(&self.streams).clear();
    }

    /// Waits for the calls that still run.
    async fn finish(&mut self) {
        while self.jobs.join_next().await.is_some() {}
    }

    async fn too_long(&mut self, header: Header) -> Result<()> {
        if header.kind == kind::REQUEST {
            self.last_id = self.last_id.max(header.stream_id);
        }
        self.out.refuse(header.stream_id, &too_long(header.length_bytes as usize)).await
    }

    async fn frame(&mut self, header: Header, payload: Bytes) -> Result<()> {
        let refused = match header.kind {
            _ if header.stream_id.is_multiple_of(2) => {
                Error::invalid_argument("StreamID must be odd for client initiated streams")
            }
            kind::REQUEST => match self.request(header, payload) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            kind::DATA => match self.data(header, payload).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            // Kinds of a later version are not for us.
            _ => return Ok(()),
        };
        self.out.refuse(header.stream_id, &refused).await
    }

    fn request(&mut self, header: Header, payload: Bytes) -> Result<()> {
        if header.stream_id <= self.last_id {
            return Err(Error::invalid_argument("StreamID cannot be re-used and must increment"));
        }
        self.last_id = header.stream_id;
        let request: Request = crate::service::decode(payload)?;
        let service =
            self.shared.services.get(&request.service).ok_or_else(|| no_service(&request.service))?;
        while self.jobs.try_join_next().is_some() {}
        if self.jobs.len() >= self.shared.max_calls {
            return Err(Error::resource_exhausted("calls on this connection"));
        }
        let cx = CallContext::new(
            Metadata::from_wire(request.metadata),
            request.timeout_nano,
            self.ended.child_token(),
        );
        let call = Call { service: Arc::clone(service), method: request.method, cx, id: header.stream_id };
        if call.service.is_stream(&call.method) {
            let incoming = self.open_stream(header, request.payload);
            let stream = ServerStream { id: header.stream_id, out: self.out.clone(), incoming };
            self.jobs.spawn(call.run_stream(stream, Arc::clone(&self.streams)));
        } else if header.has(flags::REMOTE_OPEN) {
            return Err(crate::service::no_method(&call.method));
        } else {
            self.jobs.spawn(call.run(request.payload, self.out.clone()));
        }
        Ok(())
    }

    /// Makes the queue of a stream's messages, with the request's own message in it if it has one.
    fn open_stream(&mut self, header: Header, payload: Bytes) -> mpsc::Receiver<Bytes> {
        let (tx, rx) = mpsc::channel(QUEUE_MESSAGES);
        let open = header.has(flags::REMOTE_OPEN);
        // Go's client never sets "no data" on a request: there an empty payload of a client that will send more is none.
        let none = header.has(flags::NO_DATA) || (open && payload.is_empty());
        if !none {
            tx.try_send(payload).expect("the queue is new and has room");
        }
        lock(&self.streams).insert(header.stream_id, open.then_some(tx));
        rx
    }

    async fn data(&mut self, header: Header, payload: Bytes) -> Result<()> {
        let sender = {
            let mut streams = lock(&self.streams);
            match streams.get_mut(&header.stream_id) {
                Some(entry) if header.has(flags::REMOTE_CLOSED) => entry.take(),
                Some(entry) => entry.clone(),
                None => None,
            }
        };
        let Some(sender) = sender else {
            return Err(Error::invalid_argument("StreamID is no longer active"));
        };
        let none = header.has(flags::NO_DATA) || (header.has(flags::REMOTE_CLOSED) && payload.is_empty());
        if !none {
            // Waiting here is the back pressure of the protocol. A method that reads no more has dropped its end.
            let _ = sender.send(payload).await;
        }
        Ok(())
    }
}

struct Call {
    service: Arc<dyn Service>,
    method: String,
    cx: CallContext,
    id: u32,
}

impl Call {
    async fn run(self, payload: Bytes, out: Outgoing) {
        let work = AssertUnwindSafe(self.service.call(&self.method, payload, self.cx)).catch_unwind();
        let response = match work.await.unwrap_or_else(|_| Err(panicked(&self.method))) {
            Ok(payload) => Response::ok(payload),
            Err(error) => Response::failed(&error),
        };
        // A client that is gone gets no answer.
        let _ = out.respond(self.id, &response).await;
    }

    async fn run_stream(self, stream: ServerStream, streams: Streams) {
        let out = stream.out.clone();
        let work = AssertUnwindSafe(self.service.stream(&self.method, stream, self.cx)).catch_unwind();
        let ended = work.await.unwrap_or_else(|_| Err(panicked(&self.method)));
        lock(&streams).remove(&self.id);
        let _ = match ended {
            Ok(Reply::End) => out.close(self.id).await,
            Ok(Reply::Message(payload)) => out.respond(self.id, &Response::ok(payload)).await,
            Err(error) => out.refuse(self.id, &error).await,
        };
    }
}

fn panicked(method: &str) -> Error {
    tracing::error!(method, "a ttrpc method panicked");
    Error::internal(format!("method {method} panicked"))
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("services", &self.services.keys()).finish()
    }
}
