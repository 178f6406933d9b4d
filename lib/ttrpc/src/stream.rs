//! Streams of messages within one call, as each end sees them.

use bytes::Bytes;
use gantry_core::Result;
use tokio::sync::mpsc;

use crate::frame::{flags, kind};
use crate::message::{Response, closed};
use crate::outgoing::Outgoing;

/// Messages waiting for a stream's reader. When full, reading from the whole connection waits, as in the original.
pub(crate) const QUEUE_MESSAGES: usize = 16;

/// The server's end of a streaming call.
#[derive(Debug)]
pub struct ServerStream {
    pub(crate) id: u32,
    pub(crate) out: Outgoing,
    pub(crate) incoming: mpsc::Receiver<Bytes>,
}

impl ServerStream {
    /// The client's next message, or `None` when it will send no more or left.
    ///
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.incoming.recv().await
    }

    /// Sends one message.
    ///
    /// # Errors
    /// `ResourceExhausted` if it is too long for a frame; `Unavailable` if the client is gone.
    pub async fn send(&self, message: &[u8]) -> Result<()> {
        self.out.send(self.id, kind::DATA, 0, message).await
    }
}

/// What the server sent to a client's stream.
#[derive(Debug)]
pub(crate) enum Item {
    Message(Bytes),
    /// The last message of a stream that ends with it.
    Last(Bytes),
    End,
    Response(Response),
    Failed(gantry_core::Error),
}

/// The client's end of a streaming call.
#[derive(Debug)]
pub struct ClientStream {
    pub(crate) out: Outgoing,
    pub(crate) incoming: mpsc::Receiver<Item>,
    /// Forgets the stream when dropped; also knows its id.
    pub(crate) entry: crate::client::Entry,
    pub(crate) send_closed: bool,
    pub(crate) recv_closed: bool,
}

impl ClientStream {
    /// Sends one message.
    ///
    /// # Errors
    /// `ResourceExhausted` if it is too long for a frame; `FailedPrecondition` after `close_send`; `Unavailable` if the
    /// connection ended.
    pub async fn send(&self, message: &[u8]) -> Result<()> {
        if self.send_closed {
            return Err(gantry_core::Error::failed_precondition("stream is closed for sending"));
        }
        self.out.send(self.entry.id, kind::DATA, flags::REMOTE_OPEN, message).await
    }

    /// Says that no more messages will be sent. Saying it twice is harmless.
    ///
    /// # Errors
    /// `Unavailable` if the connection ended.
    pub async fn close_send(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.send_closed, true) {
            self.out.close(self.entry.id).await?;
        }
        Ok(())
    }

    /// The server's next message, or `None` when the stream ended well. For a method that streams only from the client,
    /// the answer is the one message.
    ///
    /// # Errors
    /// What the server's status says; `Unavailable` if the connection ended before the stream.
    pub async fn recv(&mut self) -> Result<Option<Bytes>> {
        if self.recv_closed {
            return Ok(None);
        }
        let item = self.incoming.recv().await;
        match item {
            Some(Item::Message(message)) => Ok(Some(message)),
            ended => {
                self.recv_closed = true;
                match ended {
                    Some(Item::Last(message)) => Ok(Some(message)),
                    Some(Item::End) => Ok(None),
                    // An answer without payload ends a stream of the server's; one with payload is the message.
                    Some(Item::Response(response)) => {
                        response.into_result().map(|payload| (!payload.is_empty()).then_some(payload))
                    }
                    Some(Item::Failed(error)) => Err(error),
                    Some(Item::Message(_)) | None => Err(closed()),
                }
            }
        }
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if !self.send_closed {
            self.out.try_close(self.entry.id);
        }
    }
}
