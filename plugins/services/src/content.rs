//! Content: blobs and writes, and what is told about them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_core::content::{
    CommitContent, ContentInfo, ContentProvider, ContentReader, ContentStore, ContentWriter, IngestStatus,
    OpenWriter,
};
use gantry_core::events::{Event, EventPublisher};
use gantry_core::field_mask::FieldMask;
use gantry_core::{Context, Digest, IngestRef, ItemStream, Labels, Result};

/// The content service.
pub struct ContentService {
    store: Arc<dyn ContentStore>,
    events: Arc<dyn EventPublisher>,
}

impl ContentService {
    /// The service over `store`.
    pub fn new(store: Arc<dyn ContentStore>, events: Arc<dyn EventPublisher>) -> Self {
        ContentService { store, events }
    }
}

#[async_trait]
impl ContentProvider for ContentService {
    async fn reader(&self, cx: &Context, digest: &Digest) -> Result<Arc<dyn ContentReader>> {
        self.store.reader(cx, digest).await
    }
}

#[async_trait]
impl ContentStore for ContentService {
    async fn info(&self, cx: &Context, digest: &Digest) -> Result<ContentInfo> {
        self.store.info(cx, digest).await
    }

    async fn update(
        &self,
        cx: &Context,
        digest: &Digest,
        labels: Labels,
        mask: &FieldMask,
    ) -> Result<ContentInfo> {
        self.store.update(cx, digest, labels, mask).await
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<ContentInfo>> {
        self.store.list(cx, filters).await
    }

    async fn delete(&self, cx: &Context, digest: &Digest) -> Result<()> {
        self.store.delete(cx, digest).await?;
        self.events.publish(cx, Event::ContentDelete { digest: digest.to_string() }).await;
        Ok(())
    }

    async fn writer(&self, cx: &Context, open: OpenWriter) -> Result<Box<dyn ContentWriter>> {
        let inner = self.store.writer(cx, open).await?;
        Ok(Box::new(TellingWriter { inner, cx: cx.clone(), events: Arc::clone(&self.events) }))
    }

    async fn status(&self, cx: &Context, reference: &IngestRef) -> Result<IngestStatus> {
        self.store.status(cx, reference).await
    }

    async fn statuses(&self, cx: &Context, filters: &[String]) -> Result<Vec<IngestStatus>> {
        self.store.statuses(cx, filters).await
    }

    async fn abort(&self, cx: &Context, reference: &IngestRef) -> Result<()> {
        self.store.abort(cx, reference).await
    }
}

/// A writer that tells of its commit.
struct TellingWriter {
    inner: Box<dyn ContentWriter>,
    cx: Context,
    events: Arc<dyn EventPublisher>,
}

#[async_trait]
impl ContentWriter for TellingWriter {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        self.inner.write(data).await
    }

    async fn truncate(&mut self, size_bytes: u64) -> Result<()> {
        self.inner.truncate(size_bytes).await
    }

    async fn status(&mut self) -> Result<IngestStatus> {
        self.inner.status().await
    }

    async fn digest(&mut self) -> Result<Digest> {
        self.inner.digest().await
    }

    async fn commit(&mut self, how: CommitContent) -> Result<Digest> {
        let written = self.inner.status().await?.offset_bytes;
        let digest = self.inner.commit(how).await?;
        let event = Event::ContentCreate {
            digest: digest.to_string(),
            size: i64::try_from(written).unwrap_or(i64::MAX),
            media_type: String::new(),
        };
        self.events.publish(&self.cx, event).await;
        Ok(digest)
    }
}
