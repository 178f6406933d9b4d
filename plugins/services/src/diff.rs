//! Diffs: asks each differ in the configured order until one knows the layer's type.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_core::diff::{ApplyDiff, CompareDiff, DiffApplier, DiffComparer};
use gantry_core::mount::Mount;
use gantry_core::{Context, Descriptor, Error, ErrorKind, Result};

/// The diff service.
#[derive(Default)]
pub struct DiffService {
    appliers: Vec<Arc<dyn DiffApplier>>,
    comparers: Vec<Arc<dyn DiffComparer>>,
}

impl DiffService {
    /// The service over these differs, asked in this order.
    pub fn new(appliers: Vec<Arc<dyn DiffApplier>>, comparers: Vec<Arc<dyn DiffComparer>>) -> Self {
        DiffService { appliers, comparers }
    }
}

#[async_trait]
impl DiffApplier for DiffService {
    async fn apply(
        &self,
        cx: &Context,
        layer: &Descriptor,
        mounts: &[Mount],
        how: ApplyDiff,
    ) -> Result<Descriptor> {
        let mut refused = None;
        for differ in &self.appliers {
            match differ.apply(cx, layer, mounts, how.clone()).await {
                Err(error) if error.kind() == ErrorKind::Unimplemented => refused = Some(error),
                outcome => return outcome,
            }
        }
        Err(refused
            .unwrap_or_else(|| Error::unimplemented(format!("apply layer of type {:?}", layer.media_type))))
    }
}

#[async_trait]
impl DiffComparer for DiffService {
    async fn compare(
        &self,
        cx: &Context,
        lower: &[Mount],
        upper: &[Mount],
        how: CompareDiff,
    ) -> Result<Descriptor> {
        let mut refused = None;
        for differ in &self.comparers {
            match differ.compare(cx, lower, upper, how.clone()).await {
                Err(error) if error.kind() == ErrorKind::Unimplemented => refused = Some(error),
                outcome => return outcome,
            }
        }
        Err(refused
            .unwrap_or_else(|| Error::unimplemented(format!("compute a layer of type {:?}", how.media_type))))
    }
}
