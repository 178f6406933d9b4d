//! A differ elsewhere: of a daemon, or a proxy plugin.

use gantry_api::containerd::services::diff::v1 as pb;
use gantry_core::diff::{ApplyDiff, CompareDiff, DiffApplier, DiffComparer};
use gantry_core::mount::Mount;
use gantry_core::{Context, Descriptor, Result};
use tonic::transport::Channel;

use crate::remote::{answered, ask, remote};
use crate::{any, descriptor, mount, timestamp};

remote! {
    /// A differ elsewhere.
    RemoteDiff, pb::diff_client::DiffClient<Channel>
}

#[async_trait::async_trait]
impl DiffApplier for RemoteDiff {
    async fn apply(
        &self,
        cx: &Context,
        layer: &Descriptor,
        mounts: &[Mount],
        how: ApplyDiff,
    ) -> Result<Descriptor> {
        let request = pb::ApplyRequest {
            diff: Some(descriptor::to_proto(layer.clone())),
            mounts: mount::to_proto(mounts.to_vec()),
            payloads: how.payloads.into_iter().map(|(key, value)| (key, any::to_proto(value))).collect(),
            sync_fs: how.sync_fs,
        };
        descriptor::from_proto(answered(ask!(self.apply(cx, request)).applied, "descriptor")?, "applied")
    }
}

#[async_trait::async_trait]
impl DiffComparer for RemoteDiff {
    async fn compare(
        &self,
        cx: &Context,
        lower: &[Mount],
        upper: &[Mount],
        how: CompareDiff,
    ) -> Result<Descriptor> {
        let request = pb::DiffRequest {
            left: mount::to_proto(lower.to_vec()),
            right: mount::to_proto(upper.to_vec()),
            media_type: how.media_type,
            r#ref: how.reference,
            labels: how.labels,
            source_date_epoch: how.source_date_epoch.map(timestamp::to_proto),
        };
        descriptor::from_proto(answered(ask!(self.diff(cx, request)).diff, "descriptor")?, "diff")
    }
}
