//! Snapshots of one snapshotter, and what is told about them.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_core::events::{Event, EventPublisher};
use gantry_core::field_mask::FieldMask;
use gantry_core::mount::Mount;
use gantry_core::snapshots::{CommitSnapshot, NewSnapshot, SnapshotInfo, SnapshotUsage, Snapshotter};
use gantry_core::{Context, ItemStream, Labels, Result, SnapshotKey};

/// The snapshots service of one snapshotter.
pub struct SnapshotsService {
    name: String,
    store: Arc<dyn Snapshotter>,
    events: Arc<dyn EventPublisher>,
}

impl SnapshotsService {
    /// The service over the snapshotter `store`, which clients know as `name`.
    pub fn new(
        name: impl Into<String>,
        store: Arc<dyn Snapshotter>,
        events: Arc<dyn EventPublisher>,
    ) -> Self {
        SnapshotsService { name: name.into(), store, events }
    }
}

#[async_trait]
impl Snapshotter for SnapshotsService {
    async fn prepare(&self, cx: &Context, new: NewSnapshot) -> Result<Vec<Mount>> {
        let event = Event::SnapshotPrepare {
            key: new.key.to_string(),
            parent: new.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
            snapshotter: self.name.clone(),
        };
        let mounts = self.store.prepare(cx, new).await?;
        self.events.publish(cx, event).await;
        Ok(mounts)
    }

    async fn view(&self, cx: &Context, new: NewSnapshot) -> Result<Vec<Mount>> {
        // Source: semantics.md, Events: a view sends none.
        self.store.view(cx, new).await
    }

    async fn mounts(&self, cx: &Context, key: &SnapshotKey) -> Result<Vec<Mount>> {
        self.store.mounts(cx, key).await
    }

    async fn commit(&self, cx: &Context, how: CommitSnapshot) -> Result<()> {
        let event = Event::SnapshotCommit {
            key: how.key.to_string(),
            name: how.name.to_string(),
            snapshotter: self.name.clone(),
        };
        self.store.commit(cx, how).await?;
        self.events.publish(cx, event).await;
        Ok(())
    }

    async fn remove(&self, cx: &Context, key: &SnapshotKey) -> Result<()> {
        self.store.remove(cx, key).await?;
        let event = Event::SnapshotRemove { key: key.to_string(), snapshotter: self.name.clone() };
        self.events.publish(cx, event).await;
        Ok(())
    }

    async fn stat(&self, cx: &Context, key: &SnapshotKey) -> Result<SnapshotInfo> {
        self.store.stat(cx, key).await
    }

    async fn update(
        &self,
        cx: &Context,
        key: &SnapshotKey,
        labels: Labels,
        mask: &FieldMask,
    ) -> Result<SnapshotInfo> {
        self.store.update(cx, key, labels, mask).await
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<SnapshotInfo>> {
        self.store.list(cx, filters).await
    }

    async fn usage(&self, cx: &Context, key: &SnapshotKey) -> Result<SnapshotUsage> {
        self.store.usage(cx, key).await
    }

    async fn cleanup(&self, cx: &Context) -> Result<()> {
        self.store.cleanup(cx).await
    }
}
