//! A snapshotter elsewhere: of a daemon, or a proxy plugin.

use gantry_api::containerd::services::snapshots::v1 as pb;
use gantry_core::field_mask::FieldMask;
use gantry_core::mount::Mount;
use gantry_core::snapshots::{CommitSnapshot, NewSnapshot, SnapshotInfo, SnapshotUsage, Snapshotter};
use gantry_core::{Context, ItemStream, Labels, Result, SnapshotKey};
use tonic::transport::Channel;

use super::convert::from_proto;
use crate::remote::{ask, items};
use crate::{MAX_MESSAGE_BYTES, field_mask, mount};

/// One snapshotter elsewhere.
#[derive(Clone, Debug)]
pub struct RemoteSnapshotter {
    client: pb::snapshots_client::SnapshotsClient<Channel>,
    name: String,
}

impl RemoteSnapshotter {
    /// Calls the snapshotter `name` over `channel`.
    pub fn new(channel: Channel, name: impl Into<String>) -> Self {
        let client = pb::snapshots_client::SnapshotsClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        RemoteSnapshotter { client, name: name.into() }
    }

    fn snapshotter(&self) -> String {
        self.name.clone()
    }
}

fn text(key: Option<SnapshotKey>) -> String {
    key.map(SnapshotKey::into_string).unwrap_or_default()
}

#[async_trait::async_trait]
impl Snapshotter for RemoteSnapshotter {
    async fn prepare(&self, cx: &Context, new: NewSnapshot) -> Result<Vec<Mount>> {
        let request = pb::PrepareSnapshotRequest {
            snapshotter: self.snapshotter(),
            key: new.key.into_string(),
            parent: text(new.parent),
            labels: new.labels,
        };
        Ok(mount::from_proto(ask!(self.prepare(cx, request)).mounts))
    }

    async fn view(&self, cx: &Context, new: NewSnapshot) -> Result<Vec<Mount>> {
        let request = pb::ViewSnapshotRequest {
            snapshotter: self.snapshotter(),
            key: new.key.into_string(),
            parent: text(new.parent),
            labels: new.labels,
        };
        Ok(mount::from_proto(ask!(self.view(cx, request)).mounts))
    }

    async fn mounts(&self, cx: &Context, key: &SnapshotKey) -> Result<Vec<Mount>> {
        let request = pb::MountsRequest { snapshotter: self.snapshotter(), key: key.to_string() };
        Ok(mount::from_proto(ask!(self.mounts(cx, request)).mounts))
    }

    async fn commit(&self, cx: &Context, how: CommitSnapshot) -> Result<()> {
        let request = pb::CommitSnapshotRequest {
            snapshotter: self.snapshotter(),
            name: how.name.into_string(),
            key: how.key.into_string(),
            labels: how.labels,
            parent: text(how.parent),
        };
        ask!(self.commit(cx, request));
        Ok(())
    }

    async fn remove(&self, cx: &Context, key: &SnapshotKey) -> Result<()> {
        let request = pb::RemoveSnapshotRequest { snapshotter: self.snapshotter(), key: key.to_string() };
        ask!(self.remove(cx, request));
        Ok(())
    }

    async fn stat(&self, cx: &Context, key: &SnapshotKey) -> Result<SnapshotInfo> {
        let request = pb::StatSnapshotRequest { snapshotter: self.snapshotter(), key: key.to_string() };
        from_proto(ask!(self.stat(cx, request)).info)
    }

    async fn update(
        &self,
        cx: &Context,
        key: &SnapshotKey,
        labels: Labels,
        mask: &FieldMask,
    ) -> Result<SnapshotInfo> {
        let request = pb::UpdateSnapshotRequest {
            snapshotter: self.snapshotter(),
            info: Some(pb::Info { name: key.to_string(), labels, ..pb::Info::default() }),
            update_mask: field_mask::to_proto(mask),
        };
        from_proto(ask!(self.update(cx, request)).info)
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<SnapshotInfo>> {
        let request = pb::ListSnapshotsRequest { snapshotter: self.snapshotter(), filters: filters.to_vec() };
        let messages = ask!(self.list(cx, request));
        Ok(items(messages, |message| message.info.into_iter().map(|info| from_proto(Some(info)))))
    }

    async fn usage(&self, cx: &Context, key: &SnapshotKey) -> Result<SnapshotUsage> {
        let request = pb::UsageRequest { snapshotter: self.snapshotter(), key: key.to_string() };
        let usage = ask!(self.usage(cx, request));
        let number = |value| u64::try_from(value).unwrap_or(0);
        Ok(SnapshotUsage { size_bytes: number(usage.size), inodes: number(usage.inodes) })
    }

    async fn cleanup(&self, cx: &Context) -> Result<()> {
        ask!(self.cleanup(cx, pb::CleanupRequest { snapshotter: self.snapshotter() }));
        Ok(())
    }
}
