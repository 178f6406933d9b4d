//! The way out of a connection: a bounded queue of frames and the job that writes them.

use gantry_core::{Error, Result};
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;

use crate::frame::{self, MAX_PAYLOAD_BYTES, flags, kind};
use crate::message::{Response, closed, too_long};

/// Frames waiting to be written. When full, whoever has an answer waits, and so does the reading of more requests.
const QUEUE_FRAMES: usize = 16;

/// Sends whole frames; a sender that is dropped leaves no half frame behind.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing(mpsc::Sender<Vec<u8>>);

impl Outgoing {
    /// A queue, and what [`write`] takes from it.
    pub(crate) fn new() -> (Outgoing, mpsc::Receiver<Vec<u8>>) {
        let (tx, rx) = mpsc::channel(QUEUE_FRAMES);
        (Outgoing(tx), rx)
    }

    /// Waits for room in the queue.
    pub(crate) async fn reserve(&self) -> Result<mpsc::Permit<'_, Vec<u8>>> {
        self.0.reserve().await.map_err(|_| closed())
    }

    /// Queues one frame.
    pub(crate) async fn send(&self, stream_id: u32, kind: u8, flags: u8, payload: &[u8]) -> Result<()> {
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(too_long(payload.len()));
        }
        self.reserve().await?.send(frame::encode(stream_id, kind, flags, payload));
        Ok(())
    }

    /// Queues an answer; one that is too long becomes the error that says so.
    pub(crate) async fn respond(&self, stream_id: u32, response: &Response) -> Result<()> {
        let length = response.encoded_len();
        let bytes = if length > MAX_PAYLOAD_BYTES {
            Response::failed(&too_long(length)).encode_to_vec()
        } else {
            response.encode_to_vec()
        };
        self.send(stream_id, kind::RESPONSE, 0, &bytes).await
    }

    /// Queues an error as answer.
    pub(crate) async fn refuse(&self, stream_id: u32, error: &Error) -> Result<()> {
        self.respond(stream_id, &Response::failed(error)).await
    }

    /// Queues the frame that says there is no more, if there is room for it now.
    pub(crate) fn try_close(&self, stream_id: u32) {
        // A full queue or a closed connection: the peer finds out by the connection's end.
        let _ = self.0.try_send(close_frame(stream_id));
    }

    /// Queues the frame that says there is no more.
    pub(crate) async fn close(&self, stream_id: u32) -> Result<()> {
        self.reserve().await?.send(close_frame(stream_id));
        Ok(())
    }
}

fn close_frame(stream_id: u32) -> Vec<u8> {
    frame::encode(stream_id, kind::DATA, flags::REMOTE_CLOSED | flags::NO_DATA, b"")
}

/// Writes frames until every sender is gone or the peer is.
pub(crate) async fn write(mut io: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = queue.recv().await {
        if let Err(error) = io.write_all(&frame).await {
            tracing::debug!(%error, "ttrpc peer is gone");
            return;
        }
    }
}
