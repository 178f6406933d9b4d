//! A content store elsewhere: of a daemon, or a proxy plugin.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gantry_api::containerd::services::content::v1 as pb;
use gantry_core::content::{
    CommitContent, ContentInfo, ContentProvider, ContentReader, ContentStore, ContentWriter, IngestStatus,
    OpenWriter,
};
use gantry_core::field_mask::FieldMask;
use gantry_core::{Context, Digest, Error, IngestRef, ItemStream, Labels, Result};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::convert::{info_from_proto, signed, status_from_proto, unsigned};
use crate::remote::{ask, items, remote};
use crate::status::from_status;
use crate::{field_mask, timestamp};

/// How much one message of a write holds, and one call of a read asks for, at most: well below the limit of a message.
const CHUNK_BYTES: usize = 4 << 20;

type Client = pb::content_client::ContentClient<Channel>;

remote! {
    /// A content store elsewhere.
    RemoteContentStore, pb::content_client::ContentClient<Channel>
}

#[async_trait::async_trait]
impl ContentProvider for RemoteContentStore {
    async fn reader(&self, cx: &Context, digest: &Digest) -> Result<Arc<dyn ContentReader>> {
        let size_bytes = self.info(cx, digest).await?.size_bytes;
        let reader =
            Reader { client: self.client.clone(), cx: cx.clone(), digest: digest.clone(), size_bytes };
        Ok(Arc::new(reader))
    }
}

#[async_trait::async_trait]
impl ContentStore for RemoteContentStore {
    async fn info(&self, cx: &Context, digest: &Digest) -> Result<ContentInfo> {
        info_from_proto(ask!(self.info(cx, pb::InfoRequest { digest: digest.to_string() })).info)
    }

    async fn update(
        &self,
        cx: &Context,
        digest: &Digest,
        labels: Labels,
        mask: &FieldMask,
    ) -> Result<ContentInfo> {
        let request = pb::UpdateRequest {
            info: Some(pb::Info { digest: digest.to_string(), labels, ..pb::Info::default() }),
            update_mask: field_mask::to_proto(mask),
        };
        info_from_proto(ask!(self.update(cx, request)).info)
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<ContentInfo>> {
        let messages = ask!(self.list(cx, pb::ListContentRequest { filters: filters.to_vec() }));
        Ok(items(messages, |message| message.info.into_iter().map(|info| info_from_proto(Some(info)))))
    }

    async fn delete(&self, cx: &Context, digest: &Digest) -> Result<()> {
        ask!(self.delete(cx, pb::DeleteContentRequest { digest: digest.to_string() }));
        Ok(())
    }

    async fn writer(&self, cx: &Context, open: OpenWriter) -> Result<Box<dyn ContentWriter>> {
        let total = signed(open.total_bytes);
        let first = pb::WriteContentRequest {
            r#ref: open.reference.to_string(),
            total,
            expected: open.expected.as_ref().map(Digest::to_string).unwrap_or_default(),
            ..pb::WriteContentRequest::default()
        };
        // One message under way: the server sets the pace.
        let (sender, receiver) = mpsc::channel(1);
        // Before the call, which answers when it has headers: a Go server sends them with its first message only.
        // The receiver is here, and the channel has room for one.
        let _ = sender.send(first).await;
        let answers = ask!(self.write(cx, ReceiverStream::new(receiver)));
        let (reference, expected) = (open.reference, open.expected);
        let mut writer = Writer { reference, expected, offset: 0, sender, answers };
        writer.offset = writer.answer().await?.offset;
        Ok(Box::new(writer))
    }

    async fn status(&self, cx: &Context, reference: &IngestRef) -> Result<IngestStatus> {
        status_from_proto(ask!(self.status(cx, pb::StatusRequest { r#ref: reference.to_string() })).status)
    }

    async fn statuses(&self, cx: &Context, filters: &[String]) -> Result<Vec<IngestStatus>> {
        let answer = ask!(self.list_statuses(cx, pb::ListStatusesRequest { filters: filters.to_vec() }));
        answer.statuses.into_iter().map(|status| status_from_proto(Some(status))).collect()
    }

    async fn abort(&self, cx: &Context, reference: &IngestRef) -> Result<()> {
        ask!(self.abort(cx, pb::AbortRequest { r#ref: reference.to_string() }));
        Ok(())
    }
}

struct Reader {
    client: Client,
    cx: Context,
    digest: Digest,
    size_bytes: u64,
}

#[async_trait::async_trait]
impl ContentReader for Reader {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let length = length.min(CHUNK_BYTES);
        if offset >= self.size_bytes || length == 0 {
            return Ok(Bytes::new());
        }
        let request = pb::ReadContentRequest {
            digest: self.digest.to_string(),
            offset: signed(offset),
            size: signed(length as u64),
        };
        let mut chunks = ask!(self.read(&self.cx, request));
        let mut data = BytesMut::new();
        while let Some(chunk) = chunks.message().await.map_err(from_status)? {
            if data.len() + chunk.data.len() > length {
                return Err(Error::internal(format!("read {}: more than was asked for", self.digest)));
            }
            data.extend_from_slice(&chunk.data);
        }
        Ok(data.freeze())
    }
}

struct Writer {
    reference: IngestRef,
    expected: Option<Digest>,
    offset: i64,
    sender: mpsc::Sender<pb::WriteContentRequest>,
    answers: Streaming<pb::WriteContentResponse>,
}

impl Writer {
    async fn ask(&mut self, message: pb::WriteContentRequest) -> Result<pb::WriteContentResponse> {
        // If the server has ended the stream, its answers say why.
        let _ = self.sender.send(message).await;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<pb::WriteContentResponse> {
        let answer = self.answers.message().await.map_err(from_status)?;
        answer.ok_or_else(|| Error::unavailable(format!("write {:?}: the stream has ended", self.reference)))
    }

    async fn stat(&mut self) -> Result<pb::WriteContentResponse> {
        self.ask(pb::WriteContentRequest::default()).await
    }
}

#[async_trait::async_trait]
impl ContentWriter for Writer {
    async fn write(&mut self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(CHUNK_BYTES));
            let message = pb::WriteContentRequest {
                action: pb::WriteAction::Write.into(),
                offset: self.offset,
                data: chunk,
                ..pb::WriteContentRequest::default()
            };
            self.offset = self.ask(message).await?.offset;
        }
        Ok(())
    }

    async fn truncate(&mut self, size_bytes: u64) -> Result<()> {
        let size = signed(size_bytes);
        if size > self.offset {
            return Err(Error::out_of_range(format!("truncate to {size}, beyond the end {}", self.offset)));
        }
        if size == self.offset {
            return Ok(());
        }
        if size > 0 {
            return Err(Error::unimplemented("the protocol truncates to nothing only"));
        }
        let action = pb::WriteAction::Write.into();
        let message = pb::WriteContentRequest { action, ..pb::WriteContentRequest::default() };
        self.offset = self.ask(message).await?.offset;
        Ok(())
    }

    async fn status(&mut self) -> Result<IngestStatus> {
        let answer = self.stat().await?;
        Ok(IngestStatus {
            reference: self.reference.clone(),
            offset_bytes: unsigned(answer.offset),
            total_bytes: unsigned(answer.total),
            expected: self.expected.clone(),
            started_at: timestamp::or_epoch(answer.started_at),
            updated_at: timestamp::or_epoch(answer.updated_at),
        })
    }

    async fn digest(&mut self) -> Result<Digest> {
        Digest::parse(self.stat().await?.digest)
    }

    async fn commit(&mut self, how: CommitContent) -> Result<Digest> {
        let message = pb::WriteContentRequest {
            action: pb::WriteAction::Commit.into(),
            total: signed(how.total_bytes),
            expected: how.expected.map(Digest::into_string).unwrap_or_default(),
            offset: self.offset,
            labels: how.labels,
            ..pb::WriteContentRequest::default()
        };
        Digest::parse(self.ask(message).await?.digest)
    }
}
