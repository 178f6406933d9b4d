//! Streams of a daemon elsewhere.

use std::sync::{Arc, Mutex, PoisonError};

use gantry_api::Any as ProtoAny;
use gantry_api::containerd::services::streaming::v1 as pb;
use gantry_core::streaming::{MessageStream, StreamCreator};
use gantry_core::{Any, Context, Error, Result};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::convert::init_to_proto;
use crate::remote::{ask, remote};
use crate::{any, from_status};

remote! {
    /// Opens streams elsewhere.
    RemoteStreams, pb::streaming_client::StreamingClient<Channel>
}

/// The client's end of a stream.
struct Opened {
    messages: Mutex<Option<mpsc::Sender<ProtoAny>>>,
    answers: tokio::sync::Mutex<Streaming<ProtoAny>>,
}

#[async_trait::async_trait]
impl StreamCreator for RemoteStreams {
    async fn create(&self, cx: &Context, name: &str) -> Result<Arc<dyn MessageStream>> {
        let (messages, receiver) = mpsc::channel(1);
        // There is room for one.
        drop(messages.send(init_to_proto(name)).await);
        let mut answers = ask!(self.stream(cx, ReceiverStream::new(receiver)));
        match answers.message().await.map_err(from_status)? {
            Some(_) => Ok(Arc::new(Opened {
                messages: Mutex::new(Some(messages)),
                answers: tokio::sync::Mutex::new(answers),
            })),
            None => Err(Error::unavailable(format!("stream {name:?} ended before it began"))),
        }
    }
}

#[async_trait::async_trait]
impl MessageStream for Opened {
    async fn send(&self, message: Any) -> Result<()> {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ended = || Error::unavailable("the stream has ended");
        messages.ok_or_else(ended)?.send(any::to_proto(message)).await.map_err(|_| ended())
    }

    async fn receive(&self) -> Result<Option<Any>> {
        // May be dropped: a message that is not taken stays in the stream.
        let message = self.answers.lock().await.message().await.map_err(from_status)?;
        Ok(message.map(any::from_proto))
    }

    fn close(&self) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
