//! The store: blobs and ingests below one directory.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;
use gantry_core::content::{
    ContentFiles, ContentInfo, ContentProvider, ContentReader, ContentStore, ContentWriter, IngestStatus,
    OpenWriter,
};
use gantry_core::field_mask::FieldMask;
use gantry_core::filters::Filters;
use gantry_core::{Context, Digest, Error, ErrorKind, IngestRef, ItemStream, Labels, Result, ResultExt};

use crate::blobs::Blobs;
use crate::blocking::Blocking;
use crate::ingest::IngestDir;
use crate::locks::Locks;
use crate::reader::LocalReader;
use crate::writer::{LocalWriter, OpenIngest};

/// How many blobs of a list are looked at in one go.
const LIST_PAGE: usize = 256;

/// Content in the directories of a local file system.
#[derive(Clone)]
pub struct LocalContent {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) blobs: Blobs,
    pub(crate) blocking: Arc<Blocking>,
    pub(crate) locks: Locks,
    /// Whether blobs are protected by fs-verity.
    pub(crate) verity: bool,
    /// `None` where labels are the metadata's business.
    labels: Option<Mutex<HashMap<Digest, Labels>>>,
}

impl LocalContent {
    /// Opens the store at `root`, which is made if it is missing. Labels are not kept here: updating them is refused.
    /// Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(root: &Path) -> Result<LocalContent> {
        Self::with_labels(root, None)
    }

    /// Opens the store at `root` to look at it: what a crash left of writes is not removed. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open_as_is(root: &Path) -> Result<LocalContent> {
        Self::at(root, None)
    }

    /// Opens the store at `root` with labels in memory, for a program that has no database. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open_labelled(root: &Path) -> Result<LocalContent> {
        Self::with_labels(root, Some(Mutex::default()))
    }

    fn with_labels(root: &Path, labels: Option<Mutex<HashMap<Digest, Labels>>>) -> Result<LocalContent> {
        let store = Self::at(root, labels)?;
        remove_remains(root, &root.join("ingest"));
        Ok(store)
    }

    fn at(root: &Path, labels: Option<Mutex<HashMap<Digest, Labels>>>) -> Result<LocalContent> {
        let ingests = root.join("ingest");
        fs::create_dir_all(&ingests).with_context(|| format!("make {}", ingests.display()))?;
        let verity = gantry_sys::verity::is_supported(root);
        tracing::debug!(path = %root.display(), verity, "content store");
        Ok(LocalContent {
            inner: Arc::new(Inner {
                root: root.to_path_buf(),
                blobs: Blobs::of(root),
                blocking: Arc::default(),
                locks: Locks::default(),
                verity,
                labels,
            }),
        })
    }

    /// Runs `call` with the store on the blocking pool.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        self.inner.blocking.run(move || call(&inner)).await
    }
}

/// Removes what a crash left of ingests: those without data, and those whose records a loss of power has damaged, since they are
/// not synced. Nothing is written while a store opens.
fn remove_remains(root: &Path, ingests: &Path) {
    for entry in fs::read_dir(ingests).into_iter().flatten().flatten() {
        let dir = IngestDir::at(entry.path());
        let whole = match dir.status() {
            Err(error) => {
                !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidArgument | ErrorKind::Unknown)
            }
            Ok(status) => *dir.path() == *IngestDir::of(root, &status.reference).path(),
        };
        if !whole && let Err(error) = dir.remove() {
            tracing::warn!(path = %dir.path().display(), %error, "remove the remains of an ingest");
        }
    }
}

impl Inner {
    fn info(&self, digest: &Digest) -> Result<ContentInfo> {
        let info = self.blobs.info(digest)?;
        Ok(ContentInfo { labels: self.labels(digest), ..info })
    }

    fn labels(&self, digest: &Digest) -> Labels {
        let Some(labels) = &self.labels else { return Labels::new() };
        labels.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned().unwrap_or_default()
    }

    pub(crate) fn set_labels(&self, digest: &Digest, mut new: Labels) {
        if let Some(labels) = &self.labels {
            gantry_core::labels::drop_empty(&mut new);
            labels.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone(), new);
        }
    }

    fn update(&self, digest: &Digest, labels: Labels, mask: &FieldMask) -> Result<ContentInfo> {
        if self.labels.is_none() {
            return Err(Error::failed_precondition("update not supported on immutable content store"));
        }
        self.blobs.metadata(digest)?;
        let mut new = if mask.is_empty() { labels.clone() } else { self.labels(digest) };
        for path in &mask.paths {
            match path.strip_prefix("labels.") {
                Some(key) => {
                    new.insert(key.to_owned(), labels.get(key).cloned().unwrap_or_default());
                }
                None if path == "labels" => new.clone_from(&labels),
                None => {
                    return Err(Error::invalid_argument(format!(
                        "cannot update {path:?} field on content info {digest}"
                    )));
                }
            }
        }
        self.set_labels(digest, new);
        self.info(digest)
    }

    fn page(&self, digests: &[Digest], filters: &Filters) -> Vec<Result<ContentInfo>> {
        let infos = digests.iter().map(|digest| self.info(digest));
        infos
            .filter(|info| match info {
                Ok(info) => filters.matches(info),
                // Deleted since the list began.
                Err(error) => error.kind() != ErrorKind::NotFound,
            })
            .collect()
    }

    fn statuses(&self, filters: &Filters) -> Result<Vec<IngestStatus>> {
        let ingests = self.root.join("ingest");
        let entries = fs::read_dir(&ingests).with_context(|| format!("list {}", ingests.display()))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", ingests.display()))?;
            match IngestDir::at(entry.path()).status() {
                Ok(status) if filters.matches(&status) => found.push(status),
                Ok(_) => {}
                // Committed or aborted meanwhile, or just being made.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    // One broken record must not hide all others.
                    tracing::warn!(path = %entry.path().display(), %error, "read the state of an ingest");
                }
            }
        }
        Ok(found)
    }
}

fn no_ingest(reference: &IngestRef, error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        Error::not_found(format!("ingest ref {:?}", reference.as_str()))
    } else {
        error.context(format!("ingest ref {:?}", reference.as_str()))
    }
}

#[async_trait]
impl ContentProvider for LocalContent {
    async fn reader(&self, _cx: &Context, digest: &Digest) -> Result<Arc<dyn ContentReader>> {
        let digest = digest.clone();
        let blocking = Arc::clone(&self.inner.blocking);
        self.run(move |inner| {
            let file = inner.blobs.open(&digest)?;
            let size_bytes = file.metadata().with_context(|| format!("stat content {digest}"))?.len();
            Ok(Arc::new(LocalReader { digest, file: Arc::new(file), size_bytes, blocking })
                as Arc<dyn ContentReader>)
        })
        .await
    }
}

#[async_trait]
impl ContentStore for LocalContent {
    fn files(&self) -> Option<Arc<dyn ContentFiles>> {
        Some(Arc::new(self.clone()))
    }

    async fn info(&self, _cx: &Context, digest: &Digest) -> Result<ContentInfo> {
        let digest = digest.clone();
        self.run(move |inner| inner.info(&digest)).await
    }

    async fn update(
        &self,
        _cx: &Context,
        digest: &Digest,
        labels: Labels,
        mask: &FieldMask,
    ) -> Result<ContentInfo> {
        let (digest, mask) = (digest.clone(), mask.clone());
        self.run(move |inner| inner.update(&digest, labels, &mask)).await
    }

    async fn list(&self, _cx: &Context, filters: &[String]) -> Result<ItemStream<ContentInfo>> {
        let filters = Arc::new(Filters::parse(filters)?);
        let digests = self.run(|inner| inner.blobs.digests()).await?;
        let store = self.clone();
        let pages = stream::unfold(digests.into_iter(), move |mut left| {
            let page: Vec<Digest> = left.by_ref().take(LIST_PAGE).collect();
            let (store, filters) = (store.clone(), Arc::clone(&filters));
            async move {
                if page.is_empty() {
                    return None;
                }
                let page = store.run(move |inner| Ok(inner.page(&page, &filters))).await;
                Some((stream::iter(page.unwrap_or_else(|error| vec![Err(error)])), left))
            }
        });
        Ok(pages.flatten().boxed())
    }

    async fn delete(&self, _cx: &Context, digest: &Digest) -> Result<()> {
        let digest = digest.clone();
        self.run(move |inner| {
            inner.blobs.remove(&digest)?;
            if let Some(labels) = &inner.labels {
                labels.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
            }
            Ok(())
        })
        .await
    }

    async fn writer(&self, cx: &Context, open: OpenWriter) -> Result<Box<dyn ContentWriter>> {
        let lock = self.inner.locks.take(&open.reference)?;
        let cx = cx.clone();
        let opened = self
            .run(move |inner| {
                if let Some(expected) = &open.expected
                    && inner.blobs.exists(expected)?
                {
                    return Err(Error::already_exists(format!("content {expected}")));
                }
                OpenIngest::open(&cx, IngestDir::of(&inner.root, &open.reference), &open, lock)
            })
            .await?;
        Ok(Box::new(LocalWriter::new(Arc::clone(&self.inner), opened)))
    }

    async fn status(&self, _cx: &Context, reference: &IngestRef) -> Result<IngestStatus> {
        let reference = reference.clone();
        self.run(move |inner| {
            IngestDir::of(&inner.root, &reference).status().map_err(|error| no_ingest(&reference, error))
        })
        .await
    }

    async fn statuses(&self, _cx: &Context, filters: &[String]) -> Result<Vec<IngestStatus>> {
        let filters = Filters::parse(filters)?;
        self.run(move |inner| inner.statuses(&filters)).await
    }

    async fn abort(&self, _cx: &Context, reference: &IngestRef) -> Result<()> {
        let reference = reference.clone();
        self.run(move |inner| match IngestDir::of(&inner.root, &reference).remove()? {
            true => Ok(()),
            false => Err(Error::not_found(format!("ingest ref {:?}", reference.as_str()))),
        })
        .await
    }
}
