//! Fetching blobs into the content store.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_core::content::{CommitContent, ContentWriter, OpenWriter};
use gantry_core::field_mask::FieldMask;
use gantry_core::wire_names::LABEL_DISTRIBUTION_SOURCE;
use gantry_core::{Descriptor, ErrorKind, IngestRef, Labels, Result, ResultExt, labels};
use gantry_oci::manifest::{ChildDescriptor, Manifest};
use gantry_oci::media_types;
use gantry_registry::{FetchOptions, Repository};

use super::unpack::Arrived;
use super::{Pull, PullEvent, PullItem};

/// What one write carries: enough that calls do not count, little enough to be held for each download.
const WRITE_BYTES: usize = 1 << 20;
/// How long to wait for another client that writes the same blob before asking again.
const LOCKED_PAUSE: Duration = Duration::from_millis(500);

/// Bytes in memory, or still in a registry.
pub(super) enum Source<'a> {
    Memory(Bytes),
    Registry(&'a Repository, &'a ChildDescriptor),
}

/// The ref that a blob is written under, so that clients of any kind resume each other's downloads.
///
/// Source: containerd's `remotes.MakeRefKey`.
fn reference_of(descriptor: &Descriptor) -> Result<IngestRef> {
    let media_type = descriptor.media_type.as_str();
    let kind = if media_types::is_index(media_type) {
        "index"
    } else if media_types::is_manifest(media_type) {
        "manifest"
    } else if media_types::is_layer(media_type) {
        "layer"
    } else if media_types::is_known_config(media_type) {
        "config"
    } else {
        "unknown"
    };
    IngestRef::parse(format!("{kind}-{}", descriptor.digest))
}

impl Pull {
    /// The label that says where a blob came from, for later cross-repository mounts.
    ///
    /// Source: containerd's `AppendDistributionSourceLabel`.
    fn source_label(&self) -> (String, String) {
        let key = format!("{LABEL_DISTRIBUTION_SOURCE}.{}", self.reference.host());
        (key, self.reference.repository().to_owned())
    }

    /// Fetches what a manifest lists, several at once, and tells each arrival.
    pub(super) async fn layers(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        arrived: Arrived,
    ) -> Result<()> {
        for child in &manifest.layers {
            self.tell(found(PullItem::Layer, &child.descriptor));
        }
        let mut downloads: Vec<BoxFuture<'_, Result<()>>> = Vec::with_capacity(manifest.layers.len());
        for (place, child) in manifest.layers.iter().enumerate() {
            downloads.push(Box::pin(self.layer(repository, child, place, &arrived)));
        }
        stream::iter(downloads)
            .buffer_unordered(self.options.max_concurrent_downloads.max(1))
            .try_collect::<Vec<()>>()
            .await
            .map(|_| ())
    }

    async fn layer(
        &self,
        repository: &Repository,
        child: &ChildDescriptor,
        place: usize,
        arrived: &Arrived,
    ) -> Result<()> {
        self.store(&child.descriptor, Source::Registry(repository, child), Labels::new()).await?;
        arrived.tell(place);
        Ok(())
    }

    /// Makes sure that a blob is in the content store, with `extra` labels and the one of its source.
    pub(super) async fn store(&self, blob: &Descriptor, source: Source<'_>, extra: Labels) -> Result<()> {
        let step = || format!("store {}", blob.digest);
        let content = &self.client.services().content;
        let mut wanted = extra;
        let (key, repository) = self.source_label();
        if let Ok(info) = content.info(&self.cx, &blob.digest).await {
            // Several repositories of a host stand side by side in one label.
            let known = info.labels.get(&key).map_or("", String::as_str);
            let mut all: Vec<&str> = known.split(',').filter(|one| !one.is_empty()).collect();
            if !all.contains(&repository.as_str()) {
                all.push(&repository);
                all.sort_unstable();
            }
            wanted.insert(key.clone(), all.join(","));
        } else {
            wanted.insert(key.clone(), repository);
        }
        // Where it came from is a convenience, and is left out where the label would be too long.
        if labels::validate(&key, &wanted[&key]).is_err() {
            wanted.remove(&key);
        }
        let existed = self.write(blob, source, &wanted).await.with_context(step)?;
        if existed {
            let mask = FieldMask::new(wanted.keys().map(|key| format!("labels.{key}")));
            if !mask.is_empty() {
                content.update(&self.cx, &blob.digest, wanted, &mask).await.with_context(step)?;
            }
        }
        self.tell(PullEvent::Fetched { digest: blob.digest.clone(), existed });
        Ok(())
    }

    /// Writes a blob; says whether it was there before.
    async fn write(&self, blob: &Descriptor, source: Source<'_>, labels: &Labels) -> Result<bool> {
        let content = &self.client.services().content;
        let size = u64::try_from(blob.size_bytes).unwrap_or(0);
        let reference = reference_of(blob)?;
        let mut writer = loop {
            let open = OpenWriter {
                reference: reference.clone(),
                total_bytes: size,
                expected: Some(blob.digest.clone()),
            };
            match content.writer(&self.cx, open).await {
                Ok(writer) => break writer,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Unavailable && self.is_written(&reference).await => {
                    tokio::time::sleep(LOCKED_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        };
        self.fill(writer.as_mut(), blob, source).await?;
        let how =
            CommitContent { total_bytes: size, expected: Some(blob.digest.clone()), labels: labels.clone() };
        match writer.commit(how).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(true),
            Err(error) => {
                drop(writer);
                if matches!(error.kind(), ErrorKind::FailedPrecondition | ErrorKind::DataLoss) {
                    // Resuming from wrong bytes would fail for ever.
                    self.forget(&reference).await;
                }
                Err(error)
            }
        }
    }

    /// Whether a refused writer was refused because of another one, and not because the daemon is gone.
    async fn is_written(&self, reference: &IngestRef) -> bool {
        match self.client.services().content.status(&self.cx, reference).await {
            Ok(_) => true,
            // It was committed or aborted just now.
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    async fn forget(&self, reference: &IngestRef) {
        if let Err(error) = self.client.services().content.abort(&self.cx, reference).await
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%reference, %error, "aborting an ingest failed");
        }
    }

    async fn fill(
        &self,
        writer: &mut dyn ContentWriter,
        blob: &Descriptor,
        source: Source<'_>,
    ) -> Result<()> {
        let size = u64::try_from(blob.size_bytes).unwrap_or(0);
        let mut offset = writer.status().await?.offset_bytes;
        if offset > size || (offset > 0 && matches!(source, Source::Memory(_))) {
            writer.truncate(0).await?;
            offset = 0;
        }
        let (repository, child) = match source {
            Source::Memory(bytes) => return writer.write(bytes).await,
            Source::Registry(repository, child) => (repository, child),
        };
        if offset == size {
            return Ok(());
        }
        // The store hashes everything at the commit anyway.
        let options = FetchOptions { range: Some(offset..size), unchecked: true, urls: child.urls.clone() };
        let mut reader = repository.fetch_blob(blob, options).await?;
        let mut buffer = BytesMut::with_capacity(WRITE_BYTES);
        loop {
            let piece = reader.next().await?;
            let ended = piece.is_none();
            if let Some(piece) = piece {
                buffer.extend_from_slice(&piece);
            }
            if buffer.len() >= WRITE_BYTES || (ended && !buffer.is_empty()) {
                offset += buffer.len() as u64;
                writer.write(buffer.split().freeze()).await?;
                self.tell(PullEvent::Progress { digest: blob.digest.clone(), done_bytes: offset });
            }
            if ended {
                return Ok(());
            }
        }
    }
}

pub(super) fn found(item: PullItem, descriptor: &Descriptor) -> PullEvent {
    PullEvent::Found {
        item,
        digest: descriptor.digest.clone(),
        total_bytes: u64::try_from(descriptor.size_bytes).unwrap_or(0),
    }
}
