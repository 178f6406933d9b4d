//! The sandbox store of a daemon elsewhere.

use gantry_api::containerd::services::sandbox::v1 as pb;
use gantry_core::field_mask::FieldMask;
use gantry_core::sandboxes::{Sandbox, SandboxStore};
use gantry_core::{Context, Result};
use tonic::transport::Channel;

use super::convert::{from_proto, to_proto};
use crate::remote::{ask, remote};

remote! {
    /// A sandbox store elsewhere.
    RemoteSandboxes, pb::store_client::StoreClient<Channel>
}

#[async_trait::async_trait]
impl SandboxStore for RemoteSandboxes {
    async fn create(&self, cx: &Context, new: Sandbox) -> Result<Sandbox> {
        let request = pb::StoreCreateRequest { sandbox: Some(to_proto(new)) };
        from_proto(ask!(self.create(cx, request)).sandbox)
    }

    async fn update(&self, cx: &Context, changed: Sandbox, mask: &FieldMask) -> Result<Sandbox> {
        let request = pb::StoreUpdateRequest { sandbox: Some(to_proto(changed)), fields: mask.paths.clone() };
        from_proto(ask!(self.update(cx, request)).sandbox)
    }

    async fn get(&self, cx: &Context, id: &str) -> Result<Sandbox> {
        from_proto(ask!(self.get(cx, pb::StoreGetRequest { sandbox_id: id.to_owned() })).sandbox)
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<Vec<Sandbox>> {
        let answer = ask!(self.list(cx, pb::StoreListRequest { filters: filters.to_vec() }));
        answer.list.into_iter().map(|sandbox| from_proto(Some(sandbox))).collect()
    }

    async fn delete(&self, cx: &Context, id: &str) -> Result<()> {
        ask!(self.delete(cx, pb::StoreDeleteRequest { sandbox_id: id.to_owned() }));
        Ok(())
    }
}
