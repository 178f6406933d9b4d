//! Content by namespace: which blobs of the content store behind are visible where, their labels, and the writes in progress.
//!
//! A blob's file is there before its record, and leaves after it; both happen under the lock of its digest.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_core::content::{
    ContentInfo, ContentProvider, ContentReader, ContentStore, ContentWriter, IngestStatus, OpenWriter,
};
use gantry_core::field_mask::FieldMask;
use gantry_core::filters::Filters;
use gantry_core::{Context, Digest, Error, ErrorKind, IngestRef, ItemStream, Labels, Namespace, Result};
use gantry_failpoint::{Point, pass};
use gantry_store::{Reading, Row, Writing, params};

use crate::columns::{length_at, time_at, time_to_text};
use crate::content_writer::{MetadataWriter, Source};
use crate::database::{ContentSharing, Inner};
use crate::labels::{self, Owner};
use crate::leases::{self, ResourceKind};
use crate::{ingests, paging};

const PAGE: usize = 256;

const COLUMNS: &str = "id, digest, size, created_at, updated_at";

/// The content of each namespace.
#[derive(Clone)]
pub struct MetadataContent {
    inner: Arc<Inner>,
}

impl MetadataContent {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        MetadataContent { inner }
    }

    /// The length of a blob that the context's namespace has not, but may have without its data.
    async fn shared_size(&self, open: &OpenWriter) -> Result<Option<(Digest, u64)>> {
        let Some(digest) = open.expected.clone() else { return Ok(None) };
        if self.inner.config.content_sharing == ContentSharing::Isolated {
            let wanted = digest.clone();
            if !self.inner.store.read_few(move |db| ingests::is_shareable(db, &wanted)).await? {
                return Ok(None);
            }
        }
        match self.inner.content.info(&Context::background(), &digest).await {
            // Another length is likely a mistake, which the commit will tell.
            Ok(info) if open.total_bytes == 0 || open.total_bytes == info.size_bytes => {
                Ok(Some((digest, info.size_bytes)))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the context's namespace has the blob; if so, its lease keeps it from now on.
    async fn has_and_keeps(&self, cx: &Context, digest: &Digest) -> Result<bool> {
        let (owner, wanted) = (cx.clone(), digest.clone());
        let found = self.inner.store.read_few(move |db| ingests::has_blob(db, &owner, &wanted)).await?;
        if !found || cx.lease().is_none() {
            return Ok(found);
        }
        let (owner, wanted) = (cx.clone(), digest.clone());
        let write = move |db: &Writing<'_>| {
            leases::add_to_lease(db, &owner, &ResourceKind::Content, wanted.as_str())?;
            // It may have been deleted since.
            ingests::has_blob(db, &owner, &wanted)
        };
        self.inner.change(write).await
    }

    async fn backend_ref(&self, cx: &Context, reference: &IngestRef) -> Result<IngestRef> {
        cx.namespace()?;
        let (cx, wanted) = (cx.clone(), reference.clone());
        let found = self.inner.store.read_few(move |db| ingests::backend_ref(db, &cx, &wanted)).await?;
        found.ok_or_else(|| missing_ingest(reference))
    }
}

fn missing_ingest(reference: &IngestRef) -> Error {
    Error::not_found(format!("reference {:?}", reference.as_str()))
}

fn missing(digest: &Digest) -> Error {
    Error::not_found(format!("content digest {digest}"))
}

fn from_row(db: &Reading<'_>, row: &Row<'_>) -> Result<(i64, ContentInfo)> {
    let id = row.get(0)?;
    let info = ContentInfo {
        digest: Digest::parse(row.get::<String>(1)?)?,
        size_bytes: length_at(row, 2)?,
        created_at: time_at(row, 3)?,
        updated_at: time_at(row, 4)?,
        labels: labels::load(db, Owner::Blob, id)?,
    };
    Ok((id, info))
}

fn find(db: &Reading<'_>, namespace: &Namespace, digest: &Digest) -> Result<(i64, ContentInfo)> {
    let sql = format!("SELECT {COLUMNS} FROM blobs WHERE namespace = ?1 AND digest = ?2");
    let found = db.one(&sql, params![namespace.as_str(), digest.as_str()], |row| from_row(db, row))?;
    found.ok_or_else(|| missing(digest))
}

#[async_trait]
impl ContentProvider for MetadataContent {
    async fn reader(&self, cx: &Context, digest: &Digest) -> Result<Arc<dyn ContentReader>> {
        cx.namespace()?;
        let (seen_by, wanted) = (cx.clone(), digest.clone());
        if !self.inner.store.read_few(move |db| ingests::has_blob(db, &seen_by, &wanted)).await? {
            return Err(missing(digest));
        }
        self.inner.content.reader(cx, digest).await
    }
}

#[async_trait]
impl ContentStore for MetadataContent {
    async fn info(&self, cx: &Context, digest: &Digest) -> Result<ContentInfo> {
        let (namespace, digest) = (cx.namespace()?.clone(), digest.clone());
        self.inner.store.read_few(move |db| Ok(find(db, &namespace, &digest)?.1)).await
    }

    async fn update(
        &self,
        cx: &Context,
        digest: &Digest,
        given: Labels,
        mask: &FieldMask,
    ) -> Result<ContentInfo> {
        let (namespace, digest, mask) = (cx.namespace()?.clone(), digest.clone(), mask.clone());
        let write = move |db: &Writing<'_>| {
            let (id, mut info) = find(db, &namespace, &digest)?;
            info.labels = labels::update(info.labels, &given, &mask, &format!("content {digest}"))?;
            info.updated_at = SystemTime::now();
            let updated = time_to_text(info.updated_at);
            db.execute("UPDATE blobs SET updated_at = ?2 WHERE id = ?1", params![id, updated])?;
            labels::store(db, Owner::Blob, id, &info.labels)?;
            Ok(info)
        };
        self.inner.change(write).await
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<ContentInfo>> {
        let namespace = cx.namespace()?.clone();
        let filter = Filters::parse(filters)?;
        let sql = format!(
            "SELECT {COLUMNS} FROM blobs WHERE namespace = ?1 AND digest > ?2 ORDER BY digest LIMIT ?3"
        );
        let fetch = move |db: &Reading<'_>, after: Option<&str>, limit: usize| {
            db.all(&sql, params![namespace.as_str(), after.unwrap_or_default(), limit as i64], |row| {
                let (_, info) = from_row(db, row)?;
                Ok((info.digest.as_str().to_owned(), info))
            })
        };
        Ok(paging::list(Arc::clone(&self.inner), filter, PAGE, Arc::new(fetch)))
    }

    async fn delete(&self, cx: &Context, digest: &Digest) -> Result<()> {
        cx.namespace()?;
        let _removal = self.inner.removals.read().await;
        let (cx, gone) = (cx.clone(), digest.clone());
        let write = move |db: &Writing<'_>| {
            let sql = "DELETE FROM blobs WHERE namespace = ?1 AND digest = ?2";
            if db.execute(sql, params![cx.namespace()?.as_str(), gone.as_str()])? == 0 {
                return Err(missing(&gone));
            }
            leases::drop_from_lease(db, &cx, &ResourceKind::Content, gone.as_str())
        };
        self.inner.delete(write).await?;
        // The file goes with the next collection, if no other namespace has it.
        self.inner.garbage.add_blob(digest.as_str());
        Ok(())
    }

    async fn writer(&self, cx: &Context, open: OpenWriter) -> Result<Box<dyn ContentWriter>> {
        cx.namespace()?;
        if let Some(expected) = &open.expected
            && self.has_and_keeps(cx, expected).await?
        {
            return Err(ingests::taken(expected));
        }
        // Before the digest's lock: those who compare files and records take them in this order.
        let removal = self.inner.removals.read().await;
        let mut shared = None;
        let mut alone = None;
        if let Some(expected) = &open.expected {
            // Held until the record speaks of the blob, so that no collection removes it in between.
            alone = Some(self.inner.digests.lock(expected.as_str().to_owned()).await);
            shared = self.shared_size(&open).await?;
        }
        let (owner, reference) = (cx.clone(), open.reference.clone());
        let digest = shared.as_ref().map(|(digest, _)| digest.clone());
        let write = move |db: &Writing<'_>| ingests::open(db, &owner, &reference, digest.as_ref());
        let ingests::Opened { backend_ref, no_longer } = self.inner.change(write).await?;
        self.inner.garbage.add_blobs(no_longer);
        pass(Point::IngestRecorded)?;
        drop((alone, removal));
        let background = Context::background();
        let source = match shared {
            // Data that was already written under this ref goes on where it stands.
            Some((digest, size)) if self.inner.content.status(&background, &backend_ref).await.is_err() => {
                Source::Shared { digest, size }
            }
            _ => {
                // Whether the namespace has the expected blob was looked at above; the store behind would answer for all of them.
                let behind = OpenWriter {
                    reference: backend_ref.clone(),
                    total_bytes: open.total_bytes,
                    expected: None,
                };
                Source::Own(self.inner.content.writer(&background, behind).await?)
            }
        };
        let cx = cx.clone();
        Ok(Box::new(MetadataWriter::new(Arc::clone(&self.inner), cx, open.reference, backend_ref, source)))
    }

    async fn status(&self, cx: &Context, reference: &IngestRef) -> Result<IngestStatus> {
        let backend_ref = self.backend_ref(cx, reference).await?;
        let status = self.inner.content.status(&Context::background(), &backend_ref).await;
        let mut status = status.map_err(|error| match error.kind() {
            ErrorKind::NotFound => missing_ingest(reference),
            _ => error,
        })?;
        status.reference = reference.clone();
        Ok(status)
    }

    async fn statuses(&self, cx: &Context, filters: &[String]) -> Result<Vec<IngestStatus>> {
        let namespace = cx.namespace()?.clone();
        let filter = Filters::parse(filters)?;
        let read = move |db: &Reading<'_>| {
            let sql = "SELECT ref, backend_ref FROM ingests WHERE namespace = ?1 ORDER BY ref";
            db.all(sql, params![namespace.as_str()], |row| {
                Ok((IngestRef::parse(row.get::<String>(0)?)?, IngestRef::parse(row.get::<String>(1)?)?))
            })
        };
        let mut found = Vec::new();
        for (reference, backend_ref) in self.inner.store.read(read).await? {
            match self.inner.content.status(&Context::background(), &backend_ref).await {
                Ok(status) => {
                    let status = IngestStatus { reference, expected: None, ..status };
                    if filter.matches(&status) {
                        found.push(status);
                    }
                }
                // Aborted or committed since, or nothing was written yet.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn abort(&self, cx: &Context, reference: &IngestRef) -> Result<()> {
        let backend_ref = self.backend_ref(cx, reference).await?;
        let _removal = self.inner.removals.read().await;
        let (owner, gone) = (cx.clone(), reference.clone());
        let write =
            move |db: &Writing<'_>| ingests::forget(db, &owner, &gone)?.ok_or_else(|| missing_ingest(&gone));
        let forgotten = self.inner.change(write).await?;
        self.inner.garbage.add_blobs(forgotten.expected);
        match self.inner.content.abort(&Context::background(), &backend_ref).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                // Without record it is garbage, which the next collection removes.
                self.inner.garbage.add_ingest(backend_ref.as_str());
                tracing::warn!(r#ref = backend_ref.as_str(), %error, "abort an ingest");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
