//! Serves streams.
//!
//! Nothing is buffered here: a message is read when whoever took the stream asks for one, and one answer is under way at a time.
//! The connection's flow control holds back the rest.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::once;
use gantry_api::Any as ProtoAny;
use gantry_api::containerd::services::streaming::v1 as pb;
use gantry_core::streaming::{MessageStream, StreamManager};
use gantry_core::{Any, Context, Error, Result};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

use super::convert::{name_from_proto, ready};
use crate::call::attend;
use crate::jobs::JobSet;
use crate::message::Answers;
use crate::{any, from_status, to_status};

/// Serves a stream manager.
pub struct GrpcStreams {
    inner: Arc<dyn StreamManager>,
    jobs: JobSet,
}

impl GrpcStreams {
    /// Serves `inner`; streams end when `jobs` stop.
    pub fn new(inner: Arc<dyn StreamManager>, jobs: JobSet) -> Self {
        GrpcStreams { inner, jobs }
    }
}

/// The daemon's end of a client's stream.
struct Served {
    messages: tokio::sync::Mutex<Streaming<ProtoAny>>,
    answers: Mutex<Option<mpsc::Sender<Result<ProtoAny, Status>>>>,
    /// Fired by `close`.
    closed: CancellationToken,
    /// Fired when the client is gone.
    left: CancellationToken,
}

#[tonic::async_trait]
impl MessageStream for Served {
    async fn send(&self, message: Any) -> Result<()> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ended = || Error::unavailable("the stream has ended");
        let answers = answers.ok_or_else(ended)?;
        answers.send(Ok(any::to_proto(message))).await.map_err(|_| ended())
    }

    async fn receive(&self) -> Result<Option<Any>> {
        let mut messages = self.messages.lock().await;
        // All may be dropped: a message that is not taken stays in the stream.
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Ok(None),
            message = messages.message() => match message {
                Ok(message) => Ok(message.map(any::from_proto)),
                // A message above the limit is tonic's OUT_OF_RANGE, and RESOURCE_EXHAUSTED everywhere else.
                Err(status) if status.code() == tonic::Code::OutOfRange => {
                    Err(Error::resource_exhausted(status.message().to_owned()))
                }
                Err(status) => Err(from_status(status)),
            },
            () = self.left.cancelled() => Err(Error::bare(gantry_core::ErrorKind::Canceled)),
        }
    }

    fn close(&self) {
        self.closed.cancel();
        // The answers end once those under way are sent.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Forgets the stream when its answers are dropped, that is when it has ended or its client has left.
struct Known {
    inner: Arc<dyn StreamManager>,
    cx: Context,
    name: String,
    stream: Arc<dyn MessageStream>,
    _left: DropGuard,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.inner.remove(&self.cx, &self.name, &self.stream);
        self.stream.close();
    }
}

#[tonic::async_trait]
impl pb::streaming_server::Streaming for GrpcStreams {
    type StreamStream = Answers<ProtoAny>;

    // Class (c): the client's stream, which its leaving ends. The work done over it is the job of another call.
    async fn stream(
        &self,
        req: Request<Streaming<ProtoAny>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (cx, left, mut messages) = attend(req)?;
        let stopping = self.jobs.stopping().clone();
        // Either may be dropped: nothing was promised yet.
        let first = tokio::select! {
            first = messages.message() => first?,
            () = stopping.cancelled() => return Err(to_status(Error::unavailable("the server is stopping"))),
        };
        let first = first.ok_or_else(|| to_status(Error::unknown("EOF")))?;
        let name = name_from_proto(&first).map_err(to_status)?;
        // One answer under way: the client sets the pace.
        let (answers, receiver) = mpsc::channel(1);
        let stream: Arc<dyn MessageStream> = Arc::new(Served {
            messages: tokio::sync::Mutex::new(messages),
            answers: Mutex::new(Some(answers)),
            closed: CancellationToken::new(),
            left: cx.cancellation().clone(),
        });
        self.inner.register(&cx, &name, Arc::clone(&stream)).await.map_err(to_status)?;
        let known = Known { inner: Arc::clone(&self.inner), cx, name, stream, _left: left };
        let answers = once(async { Ok(ready()) }).chain(ReceiverStream::new(receiver)).map(move |answer| {
            let _held = &known;
            answer
        });
        Ok(Response::new(answers.take_until(stopping.cancelled_owned()).boxed()))
    }
}
