//! Leases of a daemon elsewhere.

use gantry_api::containerd::services::leases::v1 as pb;
use gantry_core::leases::{Lease, LeaseManager, LeaseResource};
use gantry_core::{Context, Labels, LeaseId, Result};
use tonic::transport::Channel;

use super::convert::{from_proto, resource_from_proto, resource_to_proto};
use crate::remote::{ask, remote};

remote! {
    /// A lease manager elsewhere.
    RemoteLeases, pb::leases_client::LeasesClient<Channel>
}

#[async_trait::async_trait]
impl LeaseManager for RemoteLeases {
    async fn create(&self, cx: &Context, id: Option<LeaseId>, labels: Labels) -> Result<Lease> {
        let id = id.map(LeaseId::into_string).unwrap_or_default();
        from_proto(ask!(self.create(cx, pb::CreateRequest { id, labels })).lease)
    }

    async fn delete(&self, cx: &Context, id: &LeaseId, sync: bool) -> Result<()> {
        ask!(self.delete(cx, pb::DeleteRequest { id: id.to_string(), sync }));
        Ok(())
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<Vec<Lease>> {
        let answer = ask!(self.list(cx, pb::ListRequest { filters: filters.to_vec() }));
        answer.leases.into_iter().map(|lease| from_proto(Some(lease))).collect()
    }

    async fn add_resource(&self, cx: &Context, id: &LeaseId, resource: LeaseResource) -> Result<()> {
        let resource = Some(resource_to_proto(resource));
        ask!(self.add_resource(cx, pb::AddResourceRequest { id: id.to_string(), resource }));
        Ok(())
    }

    async fn delete_resource(&self, cx: &Context, id: &LeaseId, resource: LeaseResource) -> Result<()> {
        let resource = Some(resource_to_proto(resource));
        ask!(self.delete_resource(cx, pb::DeleteResourceRequest { id: id.to_string(), resource }));
        Ok(())
    }

    async fn resources(&self, cx: &Context, id: &LeaseId) -> Result<Vec<LeaseResource>> {
        let answer = ask!(self.list_resources(cx, pb::ListResourcesRequest { id: id.to_string() }));
        answer.resources.into_iter().map(|resource| resource_from_proto(Some(resource))).collect()
    }
}
