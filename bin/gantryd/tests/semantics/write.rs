//! The conversation of a content write, one message at a time.

use gantry_api::containerd::services::content::v1::{WriteAction, WriteContentRequest, WriteContentResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use crate::support::{Wire, in_test};

/// What a client sends.
pub(crate) type Messages = ReceiverStream<WriteContentRequest>;

/// An open stream.
pub(crate) struct Writing {
    messages: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
}

impl Writing {
    /// Opens a stream with a first message, and gives its answer.
    pub(crate) async fn open(
        wire: &Wire,
        first: WriteContentRequest,
    ) -> Result<(Writing, WriteContentResponse), Status> {
        Self::open_by(wire, in_test, first).await
    }

    /// The same under the headers that `headers` sets.
    pub(crate) async fn open_by(
        wire: &Wire,
        headers: impl FnOnce(Messages) -> Request<Messages>,
        first: WriteContentRequest,
    ) -> Result<(Writing, WriteContentResponse), Status> {
        let (messages, receiver) = mpsc::channel(1);
        messages.send(first).await.unwrap();
        let answers = wire.content().write(headers(ReceiverStream::new(receiver))).await?.into_inner();
        let mut writing = Writing { messages, answers };
        let answer = writing.answer().await?;
        Ok((writing, answer))
    }

    /// Sends a message and gives its answer.
    pub(crate) async fn send(
        &mut self,
        message: WriteContentRequest,
    ) -> Result<WriteContentResponse, Status> {
        // A stream that the daemon has ended takes no message; its answer is there all the same.
        let _ = self.messages.send(message).await;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<WriteContentResponse, Status> {
        Ok(self.answers.message().await?.expect("an answer before the stream ends"))
    }

    /// Closes the client's side and gives the answers that still come.
    pub(crate) async fn close(self) -> Vec<WriteContentResponse> {
        let Writing { messages, mut answers } = self;
        drop(messages);
        let mut rest = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            rest.push(answer);
        }
        rest
    }
}

/// The message that asks for the state of the ingest `r#ref`.
pub(crate) fn stat(r#ref: &str) -> WriteContentRequest {
    WriteContentRequest { action: WriteAction::Stat.into(), r#ref: r#ref.into(), ..Default::default() }
}

/// The message that writes `data` at `offset`.
pub(crate) fn write(r#ref: &str, offset: i64, data: &str) -> WriteContentRequest {
    let data = data.as_bytes().to_vec().into();
    WriteContentRequest { action: WriteAction::Write.into(), offset, data, ..stat(r#ref) }
}

/// The message that commits at `offset`.
pub(crate) fn commit(r#ref: &str, offset: i64) -> WriteContentRequest {
    WriteContentRequest { action: WriteAction::Commit.into(), offset, ..stat(r#ref) }
}
