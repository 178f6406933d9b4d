//! Diffs: turning layers into file systems and back.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::mount::Mount;
use crate::{Any, Context, Descriptor, Labels, Result};

/// How a layer is applied.
#[derive(Clone, Debug, Default)]
pub struct ApplyDiff {
    /// Payloads for stream processors, by media type.
    pub payloads: BTreeMap<String, Any>,
    /// Make the file system durable before answering.
    pub sync_fs: bool,
}

/// Applies layers.
#[async_trait]
pub trait DiffApplier: Send + Sync {
    /// Applies the layer `layer` to `mounts`. Gives the descriptor of its uncompressed tar: the diff id.
    ///
    /// # Errors
    /// `NotFound` if the content is missing; `Unimplemented` for a media type nobody here handles; `InvalidArgument` for a layer
    /// that is no tar or wants out of its root.
    async fn apply(
        &self,
        cx: &Context,
        layer: &Descriptor,
        mounts: &[Mount],
        how: ApplyDiff,
    ) -> Result<Descriptor>;
}

/// How a layer is computed.
#[derive(Clone, Debug, Default)]
pub struct CompareDiff {
    /// The layer's media type; empty means the compressed OCI layer.
    pub media_type: String,
    /// The ingest ref to write it under; empty means one made up.
    pub reference: String,
    /// The labels of the new content.
    pub labels: Labels,
    /// Caps the times within the layer.
    pub source_date_epoch: Option<SystemTime>,
}

/// Computes layers.
#[async_trait]
pub trait DiffComparer: Send + Sync {
    /// Writes the layer that turns `lower` into `upper` to the content store, and gives its descriptor.
    ///
    /// # Errors
    /// `Unimplemented` for a media type nobody here handles.
    async fn compare(
        &self,
        cx: &Context,
        lower: &[Mount],
        upper: &[Mount],
        how: CompareDiff,
    ) -> Result<Descriptor>;
}
