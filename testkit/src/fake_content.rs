//! A content store in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use gantry_core::content::{
    CommitContent, ContentInfo, ContentProvider, ContentReader, ContentStore, ContentWriter, IngestStatus,
    OpenWriter,
};
use gantry_core::field_mask::FieldMask;
use gantry_core::filters::Filters;
use gantry_core::{Context, Digest, Error, IngestRef, ItemStream, Labels, Result, labels};
use sha2::{Digest as _, Sha256};

/// A content store in memory; it knows no namespaces. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct FakeContent(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    blobs: BTreeMap<Digest, (Bytes, ContentInfo)>,
    ingests: BTreeMap<IngestRef, Ingest>,
    locked: BTreeSet<IngestRef>,
}

#[derive(Debug)]
struct Ingest {
    data: Vec<u8>,
    status: IngestStatus,
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::sha256(Sha256::digest(bytes))
}

fn no_blob(digest: &Digest) -> Error {
    Error::not_found(format!("content {digest}"))
}

fn no_ingest(reference: &IngestRef) -> Error {
    Error::not_found(format!("ingest ref {reference:?}"))
}

impl FakeContent {
    /// How many writes are in progress, left ones included.
    #[must_use]
    pub fn ingests(&self) -> usize {
        self.state().ingests.len()
    }

    /// What was written under a ref so far.
    #[must_use]
    pub fn ingest(&self, reference: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let found = state.ingests.iter().find(|(known, _)| known.as_str() == reference);
        found.map(|(_, ingest)| ingest.data.clone())
    }

    /// Whether a writer holds a ref.
    #[must_use]
    pub fn is_locked(&self, reference: &str) -> bool {
        self.state().locked.iter().any(|known| known.as_str() == reference)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Reader(Bytes);

#[async_trait]
impl ContentReader for Reader {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        Ok(self.0.slice(start..start.saturating_add(length).min(self.0.len())))
    }
}

#[async_trait]
impl ContentProvider for FakeContent {
    async fn reader(&self, _cx: &Context, digest: &Digest) -> Result<Arc<dyn ContentReader>> {
        let state = self.state();
        let (data, _) = state.blobs.get(digest).ok_or_else(|| no_blob(digest))?;
        Ok(Arc::new(Reader(data.clone())))
    }
}

#[async_trait]
impl ContentStore for FakeContent {
    async fn info(&self, _cx: &Context, digest: &Digest) -> Result<ContentInfo> {
        self.state().blobs.get(digest).map(|(_, info)| info.clone()).ok_or_else(|| no_blob(digest))
    }

    async fn update(
        &self,
        _cx: &Context,
        digest: &Digest,
        new: Labels,
        mask: &FieldMask,
    ) -> Result<ContentInfo> {
        let mut state = self.state();
        let (_, info) = state.blobs.get_mut(digest).ok_or_else(|| no_blob(digest))?;
        info.labels = labels::update(info.labels.clone(), &new, mask, &format!("content {digest}"))?;
        info.updated_at = SystemTime::now();
        Ok(info.clone())
    }

    async fn list(&self, _cx: &Context, filters: &[String]) -> Result<ItemStream<ContentInfo>> {
        let filters = Filters::parse(filters)?;
        let infos: Vec<_> = self.state().blobs.values().map(|(_, info)| info.clone()).collect();
        let matching = infos.into_iter().filter(move |info| filters.matches(info)).map(Ok);
        Ok(futures_util::stream::iter(matching).boxed())
    }

    async fn delete(&self, _cx: &Context, digest: &Digest) -> Result<()> {
        self.state().blobs.remove(digest).map(drop).ok_or_else(|| no_blob(digest))
    }

    async fn writer(&self, _cx: &Context, open: OpenWriter) -> Result<Box<dyn ContentWriter>> {
        let mut state = self.state();
        if let Some(expected) = open.expected.as_ref().filter(|digest| state.blobs.contains_key(digest)) {
            return Err(Error::already_exists(format!("content {expected}")));
        }
        if !state.locked.insert(open.reference.clone()) {
            return Err(Error::unavailable(format!("ref {:?} is locked", open.reference)));
        }
        let now = SystemTime::now();
        let ingest = state.ingests.entry(open.reference.clone()).or_insert_with(|| Ingest {
            data: Vec::new(),
            status: IngestStatus {
                reference: open.reference.clone(),
                offset_bytes: 0,
                total_bytes: 0,
                expected: None,
                started_at: now,
                updated_at: now,
            },
        });
        if open.total_bytes > 0 {
            ingest.status.total_bytes = open.total_bytes;
        }
        drop(state);
        Ok(Box::new(Writer { store: self.clone(), reference: open.reference, expected: open.expected }))
    }

    async fn status(&self, _cx: &Context, reference: &IngestRef) -> Result<IngestStatus> {
        let state = self.state();
        state.ingests.get(reference).map(|ingest| ingest.status.clone()).ok_or_else(|| no_ingest(reference))
    }

    async fn statuses(&self, _cx: &Context, filters: &[String]) -> Result<Vec<IngestStatus>> {
        let filters = Filters::parse(filters)?;
        let state = self.state();
        let all = state.ingests.values().map(|ingest| ingest.status.clone());
        Ok(all.filter(|status| filters.matches(status)).collect())
    }

    async fn abort(&self, _cx: &Context, reference: &IngestRef) -> Result<()> {
        self.state().ingests.remove(reference).map(drop).ok_or_else(|| no_ingest(reference))
    }
}

struct Writer {
    store: FakeContent,
    reference: IngestRef,
    expected: Option<Digest>,
}

impl Writer {
    fn with<T>(&self, work: impl FnOnce(&mut Ingest) -> T) -> Result<T> {
        let mut state = self.store.state();
        state.ingests.get_mut(&self.reference).map(work).ok_or_else(|| no_ingest(&self.reference))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.store.state().locked.remove(&self.reference);
    }
}

#[async_trait]
impl ContentWriter for Writer {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        self.with(|ingest| {
            ingest.data.extend_from_slice(&data);
            ingest.status.offset_bytes = ingest.data.len() as u64;
            ingest.status.updated_at = SystemTime::now();
        })
    }

    async fn truncate(&mut self, size_bytes: u64) -> Result<()> {
        self.with(|ingest| {
            let size = usize::try_from(size_bytes).ok().filter(|size| *size <= ingest.data.len());
            let size = size.ok_or_else(|| Error::out_of_range(format!("truncate to {size_bytes}")))?;
            ingest.data.truncate(size);
            ingest.status.offset_bytes = size_bytes;
            Ok(())
        })?
    }

    async fn status(&mut self) -> Result<IngestStatus> {
        let status = self.with(|ingest| ingest.status.clone())?;
        Ok(IngestStatus { expected: self.expected.clone(), ..status })
    }

    async fn digest(&mut self) -> Result<Digest> {
        self.with(|ingest| digest_of(&ingest.data))
    }

    async fn commit(&mut self, how: CommitContent) -> Result<Digest> {
        let mut state = self.store.state();
        let ingest = state.ingests.get(&self.reference).ok_or_else(|| no_ingest(&self.reference))?;
        let (size_bytes, digest) = (ingest.data.len() as u64, digest_of(&ingest.data));
        if how.total_bytes > 0 && how.total_bytes != size_bytes {
            let text = format!("commit: size validation {size_bytes} != {}", how.total_bytes);
            return Err(Error::failed_precondition(text));
        }
        if how.expected.as_ref().is_some_and(|expected| *expected != digest) {
            return Err(Error::failed_precondition(format!("unexpected commit digest {digest}")));
        }
        let data = state.ingests.remove(&self.reference).map(|ingest| ingest.data).unwrap_or_default();
        if state.blobs.contains_key(&digest) {
            return Err(Error::already_exists(format!("content {digest}")));
        }
        let now = SystemTime::now();
        let mut labels = how.labels;
        labels::drop_empty(&mut labels);
        let info =
            ContentInfo { digest: digest.clone(), size_bytes, created_at: now, updated_at: now, labels };
        state.blobs.insert(digest.clone(), (data.into(), info));
        Ok(digest)
    }
}
