//! A write in progress, seen from its namespace.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_core::content::{CommitContent, ContentWriter, IngestStatus, OpenWriter};
use gantry_core::{Context, Digest, Error, ErrorKind, IngestRef, Result};
use gantry_failpoint::{Point, pass, reach};
use gantry_store::Writing;

use crate::database::Inner;
use crate::ingests::{self, NewBlob};
use crate::labels;

/// How much of a shared blob is copied at a time, when its writer begins to write after all.
const COPY_BYTES: usize = 1 << 20;

/// Where the data of a write is.
pub(crate) enum Source {
    /// In an ingest of the store behind.
    Own(Box<dyn ContentWriter>),
    /// Nowhere yet: another namespace has the expected blob, and a commit can follow at once.
    Shared { digest: Digest, size: u64 },
    /// It was committed, or is being committed by a caller that left.
    Gone,
}

/// A write in progress.
pub(crate) struct MetadataWriter {
    inner: Arc<Inner>,
    cx: Context,
    reference: IngestRef,
    backend_ref: IngestRef,
    source: Source,
    opened_at: SystemTime,
}

impl MetadataWriter {
    pub(crate) fn new(
        inner: Arc<Inner>,
        cx: Context,
        reference: IngestRef,
        backend_ref: IngestRef,
        source: Source,
    ) -> Self {
        MetadataWriter { inner, cx, reference, backend_ref, source, opened_at: SystemTime::now() }
    }

    fn ended(&self) -> Error {
        Error::failed_precondition(format!("writer of {:?} was committed", self.reference.as_str()))
    }

    fn refused(&self, why: impl std::fmt::Display) -> Error {
        Error::failed_precondition(format!("{:?} {why}", self.reference.as_str()))
    }

    /// The ingest of our own, made now if there is none yet: with the first `keep` bytes of the shared blob in it, all of them
    /// if not said.
    async fn own(&mut self, keep: Option<u64>) -> Result<&mut Box<dyn ContentWriter>> {
        if let Source::Shared { digest, size } = &self.source {
            let keep = keep.unwrap_or(*size);
            if keep > *size {
                return Err(Error::out_of_range(format!("truncate to {keep} of {size} bytes")));
            }
            let cx = Context::background();
            let open = OpenWriter { reference: self.backend_ref.clone(), total_bytes: 0, expected: None };
            let mut own = self.inner.content.writer(&cx, open).await?;
            let reader = self.inner.content.reader(&cx, digest).await?;
            let mut offset = 0;
            while offset < keep {
                let wanted = usize::try_from(keep - offset).unwrap_or(COPY_BYTES).min(COPY_BYTES);
                let data = reader.read_at(offset, wanted).await?;
                if data.is_empty() {
                    let text = format!("content {digest} ends at {offset} of {size} bytes");
                    return Err(Error::new(ErrorKind::DataLoss, text));
                }
                offset += data.len() as u64;
                own.write(data).await?;
            }
            self.source = Source::Own(own);
        }
        match &mut self.source {
            Source::Own(own) => Ok(own),
            _ => Err(Error::failed_precondition("the writer was committed")),
        }
    }

    /// Checks what is to be committed, and gives its digest and length.
    async fn settle(&mut self, how: &CommitContent) -> Result<(Digest, u64)> {
        let (digest, size) = match &mut self.source {
            Source::Own(own) => (own.digest().await?, own.status().await?.offset_bytes),
            Source::Shared { digest, size } => (digest.clone(), *size),
            Source::Gone => return Err(self.ended()),
        };
        if how.total_bytes != 0 && how.total_bytes != size {
            let wanted = how.total_bytes;
            return Err(self.refused(format!("failed size validation: {size} != {wanted}")));
        }
        if let Some(expected) = how.expected.as_ref().filter(|expected| **expected != digest) {
            return Err(self.refused(format!("unexpected commit digest {digest}, expected {expected}")));
        }
        Ok((digest, size))
    }
}

/// Makes the blob, then its record. Goes on if the caller leaves.
async fn finish(inner: Arc<Inner>, cx: Context, source: Source, new: NewBlob) -> Result<bool> {
    let _removal = inner.removals.read().await;
    let _alone = inner.digests.lock(new.digest.as_str().to_owned()).await;
    match source {
        Source::Own(mut own) => {
            let how = CommitContent {
                total_bytes: new.size_bytes,
                expected: Some(new.digest.clone()),
                ..CommitContent::default()
            };
            match own.commit(how).await {
                // Another namespace, or a commit whose record was lost, brought it.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                other => drop(other?),
            }
        }
        Source::Shared { .. } => {
            // The ingest's record has kept it, unless that was collected or aborted meanwhile.
            inner.content.info(&Context::background(), &new.digest).await?;
        }
        Source::Gone => return Err(Error::failed_precondition("the writer was committed")),
    }
    let digest = new.digest.clone();
    let record = async {
        pass(Point::ContentStored)?;
        inner.change(move |db: &Writing<'_>| ingests::become_blob(db, &cx, &new)).await
    };
    match record.await {
        Ok(recorded) => {
            reach(Point::ContentRecorded);
            inner.garbage.add_blobs(recorded.expected);
            Ok(recorded.is_new)
        }
        Err(error) => {
            // The file is in its place, and may be of nobody now.
            inner.garbage.add_blob(digest.as_str());
            Err(error)
        }
    }
}

#[async_trait]
impl ContentWriter for MetadataWriter {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        if data.is_empty() && matches!(self.source, Source::Shared { .. }) {
            return Ok(());
        }
        self.own(None).await?.write(data).await
    }

    async fn truncate(&mut self, size_bytes: u64) -> Result<()> {
        match &mut self.source {
            Source::Own(own) => own.truncate(size_bytes).await,
            _ => self.own(Some(size_bytes)).await.map(drop),
        }
    }

    async fn status(&mut self) -> Result<IngestStatus> {
        match &mut self.source {
            Source::Own(own) => {
                let status = own.status().await?;
                Ok(IngestStatus { reference: self.reference.clone(), ..status })
            }
            Source::Shared { digest, size } => Ok(IngestStatus {
                reference: self.reference.clone(),
                offset_bytes: *size,
                total_bytes: *size,
                expected: Some(digest.clone()),
                started_at: self.opened_at,
                updated_at: self.opened_at,
            }),
            Source::Gone => Err(self.ended()),
        }
    }

    async fn digest(&mut self) -> Result<Digest> {
        match &mut self.source {
            Source::Own(own) => own.digest().await,
            Source::Shared { digest, .. } => Ok(digest.clone()),
            Source::Gone => Err(self.ended()),
        }
    }

    async fn commit(&mut self, how: CommitContent) -> Result<Digest> {
        let labels = labels::checked(how.labels.clone()).map_err(|error| error.context("info.Labels"))?;
        let (digest, size_bytes) = self.settle(&how).await?;
        let new = NewBlob { reference: self.reference.clone(), digest: digest.clone(), size_bytes, labels };
        let source = std::mem::replace(&mut self.source, Source::Gone);
        let inner = Arc::clone(&self.inner);
        let recorded = self.inner.detached(finish(inner, self.cx.clone(), source, new)).await?;
        if recorded { Ok(digest) } else { Err(ingests::taken(&digest)) }
    }
}
