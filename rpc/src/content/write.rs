//! The conversation of a content write.
//!
//! Source: semantics of containerd as observed: an offset of 0 truncates, also at commit; a positive offset must be the
//! current one; a negative one appends. Ref and expected digest count in the first message, and the expected digest and the
//! total again at commit. The last answer is sent a second time before the stream ends.

use std::sync::Arc;

use futures_util::StreamExt as _;
use gantry_api::containerd::services::content::v1::{WriteAction, WriteContentRequest, WriteContentResponse};
use gantry_core::content::{CommitContent, ContentStore, ContentWriter, OpenWriter};
use gantry_core::{Context, Digest, Error, IngestRef, Result, ResultExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;
use tonic::{Status, Streaming};

use super::convert::signed;
use crate::jobs::JobSet;
use crate::message::Answers;
use crate::{timestamp, to_status};

type Sender = mpsc::Sender<Result<WriteContentResponse, Status>>;

/// Starts the job that holds the conversation. It ends between two messages when the client leaves; what was written stays.
pub(super) async fn serve(
    jobs: &JobSet,
    store: Arc<dyn ContentStore>,
    cx: Context,
    left: DropGuard,
    messages: Streaming<WriteContentRequest>,
) -> Result<Answers<WriteContentResponse>, Status> {
    // One answer under way: the client sets the pace.
    let (sender, receiver) = mpsc::channel(1);
    jobs.start_long(async move {
        if let Err(status) = converse(&*store, &cx, messages, &sender).await {
            // A client that is gone needs no answer.
            let _ = sender.send(Err(status)).await;
        }
    })
    .await?;
    let answers = tokio_stream::wrappers::ReceiverStream::new(receiver);
    Ok(answers
        .map(move |answer| {
            let _held = &left;
            answer
        })
        .boxed())
}

async fn next(
    messages: &mut Streaming<WriteContentRequest>,
    sender: &Sender,
) -> Result<Option<WriteContentRequest>, Status> {
    // The wait for a message may be dropped: the stream is not used again then.
    tokio::select! {
        message = messages.message() => message.map_err(|status| match status.code() {
            // A message above the limit is tonic's OUT_OF_RANGE, and RESOURCE_EXHAUSTED everywhere else.
            tonic::Code::OutOfRange => Status::resource_exhausted(status.message().to_owned()),
            _ => status,
        }),
        () = sender.closed() => Ok(None),
    }
}

async fn converse(
    store: &dyn ContentStore,
    cx: &Context,
    mut messages: Streaming<WriteContentRequest>,
    sender: &Sender,
) -> Result<(), Status> {
    let Some(first) = next(&mut messages, sender).await? else {
        return Err(to_status(Error::unknown("EOF")));
    };
    let mut ingest = Ingest::open(store, cx, &first).await.map_err(to_status)?;
    let mut message = first;
    loop {
        let committed = message.action == i32::from(WriteAction::Commit);
        let answer = ingest.handle(store, cx, message).await.map_err(to_status)?;
        if sender.send(Ok(answer.clone())).await.is_err() {
            return Ok(());
        }
        message = match if committed { None } else { next(&mut messages, sender).await? } {
            Some(message) => message,
            None => {
                let _ = sender.send(Ok(answer)).await;
                return Ok(());
            }
        };
    }
}

struct Ingest {
    writer: Box<dyn ContentWriter>,
    reference: IngestRef,
    total: i64,
    expected: Option<Digest>,
}

fn expected(text: &str) -> Result<Option<Digest>> {
    Some(text).filter(|text| !text.is_empty()).map(Digest::parse).transpose().context("expected")
}

impl Ingest {
    async fn open(store: &dyn ContentStore, cx: &Context, first: &WriteContentRequest) -> Result<Self> {
        if first.r#ref.is_empty() {
            return Err(Error::invalid_argument("first message must have a reference"));
        }
        let reference = IngestRef::parse(first.r#ref.clone())?;
        let expected = expected(&first.expected)?;
        let open = OpenWriter {
            reference: reference.clone(),
            total_bytes: u64::try_from(first.total).unwrap_or(0),
            expected: expected.clone(),
        };
        let writer = store.writer(cx, open).await?;
        Ok(Ingest { writer, reference, total: first.total, expected })
    }

    async fn handle(
        &mut self,
        store: &dyn ContentStore,
        cx: &Context,
        message: WriteContentRequest,
    ) -> Result<WriteContentResponse> {
        let status = self.writer.status().await?;
        let mut answer = WriteContentResponse {
            action: message.action,
            offset: signed(status.offset_bytes),
            ..WriteContentResponse::default()
        };
        if message.total > 0 {
            self.total = message.total;
        }
        match WriteAction::try_from(message.action) {
            Ok(WriteAction::Stat) => {
                answer.started_at = Some(timestamp::to_proto(status.started_at));
                answer.updated_at = Some(timestamp::to_proto(status.updated_at));
                answer.total = self.total;
                answer.digest = self.writer.digest().await?.into_string();
            }
            Ok(WriteAction::Write) => {
                answer.offset = self.write(answer.offset, message.offset, message.data).await?;
                answer.digest = self.writer.digest().await?.into_string();
            }
            Ok(WriteAction::Commit) => {
                if let Some(own) = expected(&message.expected)? {
                    self.refuse_existing(store, cx, &own).await?;
                    self.expected = Some(own);
                }
                answer.offset = self.write(answer.offset, message.offset, message.data).await?;
                let how = CommitContent {
                    total_bytes: u64::try_from(self.total).unwrap_or(0),
                    expected: self.expected.clone(),
                    labels: message.labels,
                };
                answer.digest = self.writer.commit(how).await?.into_string();
            }
            Err(_) => {
                return Err(Error::invalid_argument(format!("unknown write action {}", message.action)));
            }
        }
        Ok(answer)
    }

    /// Writes `data` where `offset` says, and gives the new end.
    async fn write(&mut self, current: i64, offset: i64, data: bytes::Bytes) -> Result<i64> {
        if offset > 0 && offset != current {
            return Err(Error::out_of_range(format!(
                "write @{offset} must occur at current offset {current}"
            )));
        }
        let mut end = current;
        if offset == 0 && current > 0 {
            self.writer.truncate(0).await.context("truncate")?;
            end = 0;
        }
        if !data.is_empty() {
            end = end.saturating_add(signed(data.len() as u64));
            self.writer.write(data).await?;
        }
        Ok(end)
    }

    /// A digest first named at commit: if that blob is there, the ingest is of no use.
    async fn refuse_existing(
        &mut self,
        store: &dyn ContentStore,
        cx: &Context,
        digest: &Digest,
    ) -> Result<()> {
        if self.expected.as_ref() == Some(digest) || store.info(cx, digest).await.is_err() {
            return Ok(());
        }
        if let Err(error) = store.abort(cx, &self.reference).await {
            tracing::warn!(%error, r#ref = %self.reference, "an ingest of a blob that exists stays");
        }
        Err(Error::already_exists(format!("blob with expected digest {digest} exists")))
    }
}
