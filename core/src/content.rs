//! Content: immutable blobs addressed by digest, and the writes in progress (ingests) that become blobs.
//!
//! A write is opened by its [`IngestRef`] and can be left and resumed under the same ref, also after a restart.
//! [`ContentWriter::commit`] turns it into a blob; [`ContentStore::abort`] throws it away. One writer holds a ref at a
//! time: a second one is refused with `Unavailable`.
//!
//! Two layers implement [`ContentStore`]: the directories of a file system (`plugins/content`, which knows no
//! namespaces) and the namespaced view on it (`plugins/metadata`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use crate::field_mask::FieldMask;
use crate::filters::{Adaptor, label_field};
use crate::{Context, Digest, IngestRef, ItemStream, Labels, Result};

/// What is known about a blob.
#[derive(Clone, Debug, PartialEq)]
pub struct ContentInfo {
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// When it was committed.
    pub created_at: SystemTime,
    /// When its labels last changed.
    pub updated_at: SystemTime,
    /// Its labels; references to other objects are labels.
    pub labels: Labels,
}

impl Adaptor for ContentInfo {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            // Source: features E20; the size is not adapted.
            ["digest"] => Some(self.digest.to_string()),
            ["labels", key @ ..] => label_field(&self.labels, key),
            _ => None,
        }
    }
}

/// What is known about a write in progress.
#[derive(Clone, Debug, PartialEq)]
pub struct IngestStatus {
    /// The name it resumes by.
    pub reference: IngestRef,
    /// How many bytes have been written.
    pub offset_bytes: u64,
    /// How many bytes are expected; 0 if unknown.
    pub total_bytes: u64,
    /// The digest it is expected to have. Never answered after a restart.
    pub expected: Option<Digest>,
    /// When it was begun.
    pub started_at: SystemTime,
    /// When it last grew.
    pub updated_at: SystemTime,
}

impl Adaptor for IngestStatus {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            // Source: features E21; offset, total and expected are not adapted.
            ["ref"] => Some(self.reference.to_string()),
            _ => None,
        }
    }
}

/// Opens a write.
#[derive(Clone, Debug)]
pub struct OpenWriter {
    /// The name it resumes by.
    pub reference: IngestRef,
    /// How many bytes are expected; 0 if unknown.
    pub total_bytes: u64,
    /// The digest it is expected to have; a store that has that blob answers `AlreadyExists`.
    pub expected: Option<Digest>,
}

/// Ends a write.
#[derive(Clone, Debug, Default)]
pub struct CommitContent {
    /// The length that the ingest must have; 0 means: as it is.
    pub total_bytes: u64,
    /// The digest that the ingest must have.
    pub expected: Option<Digest>,
    /// The labels of the new blob.
    pub labels: Labels,
}

/// Reads a blob at any place. Cheap to clone by its `Arc`.
#[async_trait]
pub trait ContentReader: Send + Sync {
    /// The blob's length in bytes.
    fn size_bytes(&self) -> u64;

    /// Up to `length` bytes from `offset`; empty at the end only.
    ///
    /// # Errors
    /// Those of the underlying file or connection.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes>;

    /// The file that holds exactly this blob, when there is a local one: blocking code may read it itself.
    fn local_file(&self) -> Option<std::fs::File> {
        None
    }
}

/// A write in progress. Dropping it leaves the ingest, unlocked, for a later writer.
#[async_trait]
pub trait ContentWriter: Send {
    /// Appends `data`.
    ///
    /// # Errors
    /// `ResourceExhausted` if the disk is full; the ingest keeps what was written.
    async fn write(&mut self, data: Bytes) -> Result<()>;

    /// Cuts the ingest to `size_bytes`; further writes continue there.
    ///
    /// # Errors
    /// `OutOfRange` beyond its end.
    async fn truncate(&mut self, size_bytes: u64) -> Result<()>;

    /// Its state.
    ///
    /// # Errors
    /// Those of the store.
    async fn status(&mut self) -> Result<IngestStatus>;

    /// The digest of what has been written so far.
    ///
    /// # Errors
    /// Those of the store.
    async fn digest(&mut self) -> Result<Digest>;

    /// Turns the ingest into a blob, durable when this returns, and gives its digest.
    ///
    /// # Errors
    /// `FailedPrecondition` if size or digest differ from what is expected (the ingest stays); `AlreadyExists` if the
    /// blob is there already (the ingest is gone).
    async fn commit(&mut self, how: CommitContent) -> Result<Digest>;
}

/// Gives readers of blobs.
#[async_trait]
pub trait ContentProvider: Send + Sync {
    /// A reader of the blob `digest`.
    ///
    /// # Errors
    /// `NotFound`.
    async fn reader(&self, cx: &Context, digest: &Digest) -> Result<Arc<dyn ContentReader>>;
}

/// A file or directory of a content store that is part of neither a blob nor a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Where it is.
    pub path: PathBuf,
    /// What it is, in words.
    pub what: String,
    /// Whether it is the remains of a write, which may go, and not something that a person put there.
    pub removable: bool,
}

/// The files of a content store on a local disk, for those who check it. Methods block.
pub trait ContentFiles: Send + Sync {
    /// What is among the files of the store and no part of it.
    ///
    /// # Errors
    /// Those of the file system.
    fn strays(&self) -> Result<Vec<Stray>>;

    /// Removes what is removable.
    ///
    /// # Errors
    /// `FailedPrecondition` if it is not; those of the file system.
    fn remove_stray(&self, stray: &Stray) -> Result<()>;

    /// Moves the file of a damaged blob out of the way, and says where to. The store then no longer has the blob.
    ///
    /// # Errors
    /// `NotFound`; those of the file system.
    fn set_aside(&self, digest: &Digest) -> Result<PathBuf>;

    /// Whether somebody is writing under this ref.
    fn is_open(&self, reference: &IngestRef) -> bool;
}

/// Everything that can be done with content.
#[async_trait]
pub trait ContentStore: ContentProvider {
    /// Its files, if they are on a local disk and can be looked at.
    fn files(&self) -> Option<Arc<dyn ContentFiles>> {
        None
    }

    /// What is known about a blob.
    ///
    /// # Errors
    /// `NotFound`.
    async fn info(&self, cx: &Context, digest: &Digest) -> Result<ContentInfo>;

    /// Sets labels: the paths `labels` and `labels.<key>`, or all labels without mask.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for another path.
    async fn update(
        &self,
        cx: &Context,
        digest: &Digest,
        labels: Labels,
        mask: &FieldMask,
    ) -> Result<ContentInfo>;

    /// The blobs that any of `filters` matches, in byte order of their digests.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter that does not parse.
    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<ContentInfo>>;

    /// Removes a blob.
    ///
    /// # Errors
    /// `NotFound`.
    async fn delete(&self, cx: &Context, digest: &Digest) -> Result<()>;

    /// Opens, or resumes, a write.
    ///
    /// # Errors
    /// `AlreadyExists` if the expected blob is there; `Unavailable` if another writer holds the ref.
    async fn writer(&self, cx: &Context, open: OpenWriter) -> Result<Box<dyn ContentWriter>>;

    /// The state of one write in progress.
    ///
    /// # Errors
    /// `NotFound`.
    async fn status(&self, cx: &Context, reference: &IngestRef) -> Result<IngestStatus>;

    /// The writes in progress whose ref any of `filters` matches; in no fixed order.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter that does not parse.
    async fn statuses(&self, cx: &Context, filters: &[String]) -> Result<Vec<IngestStatus>>;

    /// Throws a write away, also while a writer holds it.
    ///
    /// # Errors
    /// `NotFound`.
    async fn abort(&self, cx: &Context, reference: &IngestRef) -> Result<()>;
}
