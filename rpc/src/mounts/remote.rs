//! Activations of a daemon elsewhere.

use gantry_api::FieldMask;
use gantry_api::containerd::services::mounts::v1 as pb;
use gantry_core::mount::Mount;
use gantry_core::mounts::{ActivateMounts, Activation, MountManager};
use gantry_core::{Context, Error, ItemStream, Result};
use tonic::transport::Channel;

use super::convert::{from_proto, to_proto};
use crate::mount;
use crate::remote::{ask, items, remote};

remote! {
    /// A mount manager elsewhere.
    RemoteMounts, pb::mounts_client::MountsClient<Channel>
}

#[async_trait::async_trait]
impl MountManager for RemoteMounts {
    async fn activate(
        &self,
        cx: &Context,
        name: &str,
        mounts: &[Mount],
        how: ActivateMounts,
    ) -> Result<Activation> {
        if how.pinned || !how.allowed_types.is_empty() {
            // Source: the request has no fields for them.
            return Err(Error::invalid_argument("only the daemon itself can pin mounts or leave types out"));
        }
        let request = pb::ActivateRequest {
            name: name.to_owned(),
            mounts: mount::to_proto(mounts.to_vec()),
            labels: how.labels,
            temporary: how.temporary,
        };
        from_proto(ask!(self.activate(cx, request)).info)
    }

    async fn deactivate(&self, cx: &Context, name: &str) -> Result<()> {
        ask!(self.deactivate(cx, pb::DeactivateRequest { name: name.to_owned() }));
        Ok(())
    }

    async fn info(&self, cx: &Context, name: &str) -> Result<Activation> {
        from_proto(ask!(self.info(cx, pb::InfoRequest { name: name.to_owned() })).info)
    }

    async fn update(&self, cx: &Context, changed: Activation, paths: &[String]) -> Result<Activation> {
        let update_mask = (!paths.is_empty()).then(|| FieldMask { paths: paths.to_vec() });
        from_proto(
            ask!(self.update(cx, pb::UpdateRequest { info: Some(to_proto(changed)), update_mask })).info,
        )
    }

    async fn list(&self, cx: &Context) -> Result<ItemStream<Activation>> {
        let messages = ask!(self.list(cx, pb::ListRequest::default()));
        Ok(items(messages, |message| Some(from_proto(message.info))))
    }
}
