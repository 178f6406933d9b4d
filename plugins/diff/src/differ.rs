//! The differ for tar layers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use gantry_archive::{Compression, WriteLayer};
use gantry_core::content::{CommitContent, ContentStore, ContentWriter, OpenWriter};
use gantry_core::diff::{ApplyDiff, CompareDiff, DiffApplier, DiffComparer};
use gantry_core::field_mask::FieldMask;
use gantry_core::mount::Mount;
use gantry_core::mounts::{ActivateMounts, MountManager};
use gantry_core::wire_names::LABEL_UNCOMPRESSED;
use gantry_core::{Context, Descriptor, Digest, Error, ErrorKind, IngestRef, Labels, Result, ResultExt};
use gantry_oci::media_types;
use tokio::runtime::Handle;

use crate::apply::{self, Application};
use crate::compare::{self, Comparison};
use crate::job::Jobs;
use crate::processor::{self, StreamProcessor};

/// Applies and computes tar layers: plain, gzip and zstd. Named for containerd's, which walks both trees; this one
/// does so only where it must.
pub struct WalkingDiffer {
    content: Arc<dyn ContentStore>,
    temp: PathBuf,
    jobs: Jobs,
    processors: Vec<StreamProcessor>,
    mounts: Option<Arc<dyn MountManager>>,
}

impl WalkingDiffer {
    /// Reads and writes layers in `content`; makes temporary mounts, where they are needed, below `temp`.
    pub fn new(content: Arc<dyn ContentStore>, temp: impl Into<PathBuf>) -> Self {
        WalkingDiffer {
            content,
            temp: temp.into(),
            jobs: Jobs::default(),
            processors: Vec::new(),
            mounts: None,
        }
    }

    /// Lets layers of other types go through these programs first. The first one that takes a type is used.
    #[must_use]
    pub fn with_processors(mut self, processors: Vec<StreamProcessor>) -> Self {
        self.processors = processors;
        self
    }

    /// Lets `mounts` perform what of a snapshot's mounts the kernel cannot.
    #[must_use]
    pub fn with_mounts(mut self, mounts: Arc<dyn MountManager>) -> Self {
        self.mounts = Some(mounts);
        self
    }

    /// The mounts that are left to do, and the name to deactivate the others by, if there are any.
    async fn activated(&self, cx: &Context, mounts: &[Mount]) -> Result<(Vec<Mount>, Option<Active<'_>>)> {
        let Some(manager) = self.mounts.as_deref().filter(|manager| manager.is_for(mounts)) else {
            return Ok((mounts.to_vec(), None));
        };
        let name = format!("fs-diffapply-{}", made_up_ref());
        // Ours alone: nobody else keeps it, and it ends with this process.
        let how = ActivateMounts { pinned: true, ..ActivateMounts::default() };
        match manager.activate(cx, &name, mounts, how).await {
            Ok(active) => Ok((active.system, Some(Active { manager, name }))),
            Err(error) if error.kind() == ErrorKind::Unimplemented => Ok((mounts.to_vec(), None)),
            Err(error) => Err(error.context("activate mounts")),
        }
    }

    /// Ends the write: gives the descriptor of the layer, which has its diff id as a label.
    async fn finish(
        &self,
        cx: &Context,
        mut writer: Box<dyn ContentWriter>,
        media_type: &str,
        labels: Labels,
    ) -> Result<Descriptor> {
        let digest = writer.digest().await?;
        let diff_id = labels.get(LABEL_UNCOMPRESSED).cloned();
        let how = CommitContent { total_bytes: 0, expected: Some(digest.clone()), labels };
        match writer.commit(how).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            done => drop(done.context("commit")?),
        }
        let info = self.content.info(cx, &digest).await?;
        if let Some(diff_id) = diff_id.filter(|_| !info.labels.contains_key(LABEL_UNCOMPRESSED)) {
            // The same blob was there before, without its diff id.
            let labels = Labels::from([(LABEL_UNCOMPRESSED.to_owned(), diff_id)]);
            let mask = FieldMask::new([format!("labels.{LABEL_UNCOMPRESSED}")]);
            self.content.update(cx, &digest, labels, &mask).await.context("set the diff id's label")?;
        }
        let size = i64::try_from(info.size_bytes).map_err(|_| Error::internal("a blob beyond all sizes"))?;
        Ok(Descriptor::new(media_type, digest, size))
    }

    /// Writes the layer into the open ingest.
    async fn write(
        &self,
        cx: &Context,
        mut writer: Box<dyn ContentWriter>,
        comparison: Comparison,
    ) -> Result<(Box<dyn ContentWriter>, Digest)> {
        self.jobs
            .run(cx, move |cx| {
                let diff_id = comparison.run(cx, writer.as_mut())?;
                Ok((writer, diff_id))
            })
            .await
    }
}

#[async_trait]
impl DiffApplier for WalkingDiffer {
    async fn apply(
        &self,
        cx: &Context,
        layer: &Descriptor,
        mounts: &[Mount],
        how: ApplyDiff,
    ) -> Result<Descriptor> {
        let step = || format!("apply layer {}", layer.digest);
        let known = |media_type: &str| apply::compression(media_type).is_ok();
        let (chain, media_type) =
            processor::chain(&self.processors, &layer.media_type, known).with_context(step)?;
        let compression = apply::compression(&media_type).with_context(step)?;
        let reader = self.content.reader(cx, &layer.digest).await.with_context(step)?;
        let (mounts, active) = self.activated(cx, mounts).await.with_context(step)?;
        let application = Application {
            runtime: Handle::current(),
            temp: self.temp.clone(),
            reader,
            chain,
            payloads: how.payloads,
            compression,
            mounts,
            sync_fs: how.sync_fs,
        };
        let applied = self.jobs.run(cx, move |cx| application.run(cx)).await.with_context(step);
        if let Some(active) = active {
            active.end(cx).await;
        }
        applied
    }
}

#[async_trait]
impl DiffComparer for WalkingDiffer {
    async fn compare(
        &self,
        cx: &Context,
        lower: &[Mount],
        upper: &[Mount],
        how: CompareDiff,
    ) -> Result<Descriptor> {
        let media_type = match how.media_type.as_str() {
            "" => media_types::OCI_LAYER_GZIP,
            given => given,
        };
        let comparison = Comparison {
            runtime: Handle::current(),
            temp: self.temp.clone(),
            lower: lower.to_vec(),
            upper: upper.to_vec(),
            compression: compare::compression(media_type)?,
            how: WriteLayer { source_date_epoch: how.source_date_epoch },
        };
        let made_up = how.reference.is_empty();
        let reference = if made_up { made_up_ref() } else { how.reference };
        let reference = IngestRef::parse(reference)?;
        let open = OpenWriter { reference: reference.clone(), total_bytes: 0, expected: None };
        let mut writer = self.content.writer(cx, open).await.context("open writer")?;
        let compressed = comparison.compression != Compression::None;
        let done = async {
            if !made_up {
                writer.truncate(0).await?;
            }
            let (writer, diff_id) = self.write(cx, writer, comparison).await?;
            let mut labels = how.labels;
            if compressed {
                labels.insert(LABEL_UNCOMPRESSED.to_owned(), diff_id.into_string());
            }
            self.finish(cx, writer, media_type, labels).await
        }
        .await;
        if done.is_err() && made_up {
            // Nobody knows the name to resume by. The caller may have left; what it began is removed all the same.
            let cx = without_end(cx);
            match self.content.abort(&cx, &reference).await {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(r#ref = %reference, %error, "remove the ingest of a layer that failed");
                }
                _ => {}
            }
        }
        done.context("compute layer")
    }
}

/// Mounts that were activated for one layer.
struct Active<'a> {
    manager: &'a dyn MountManager,
    name: String,
}

impl Active<'_> {
    async fn end(self, cx: &Context) {
        if let Err(error) = self.manager.deactivate(&without_end(cx), &self.name).await {
            tracing::warn!(name = self.name, %error, "the mounts of a layer stay for now");
        }
    }
}

/// The same namespace and lease without an end, for cleaning up.
fn without_end(cx: &Context) -> Context {
    cx.clone().with_cancellation(tokio_util::sync::CancellationToken::new())
}

/// A ref that nobody else has. Source: containerd's: the time and a few random bytes.
fn made_up_ref() -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{nanos}-{:08x}", rand::random::<u32>())
}
