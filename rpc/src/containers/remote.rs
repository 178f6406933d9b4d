//! Containers of a daemon elsewhere.

use gantry_api::containerd::services::containers::v1 as pb;
use gantry_core::containers::{Container, ContainerStore};
use gantry_core::field_mask::FieldMask;
use gantry_core::{Context, ItemStream, Result};
use tonic::transport::Channel;

use super::convert::{container_from_proto, container_to_proto};
use crate::field_mask;
use crate::remote::{ask, items, remote};

remote! {
    /// A container store elsewhere.
    RemoteContainers, pb::containers_client::ContainersClient<Channel>
}

#[async_trait::async_trait]
impl ContainerStore for RemoteContainers {
    async fn create(&self, cx: &Context, new: Container) -> Result<Container> {
        let request = pb::CreateContainerRequest { container: Some(container_to_proto(new)) };
        container_from_proto(ask!(self.create(cx, request)).container)
    }

    async fn get(&self, cx: &Context, id: &str) -> Result<Container> {
        let request = pb::GetContainerRequest { id: id.to_owned() };
        container_from_proto(ask!(self.get(cx, request)).container)
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<Container>> {
        let request = pb::ListContainersRequest { filters: filters.to_vec() };
        // The streaming list has no limit of size.
        let messages = ask!(self.list_stream(cx, request));
        Ok(items(messages, |message| Some(container_from_proto(message.container))))
    }

    async fn update(&self, cx: &Context, changed: Container, mask: &FieldMask) -> Result<Container> {
        let request = pb::UpdateContainerRequest {
            container: Some(container_to_proto(changed)),
            update_mask: field_mask::to_proto(mask),
        };
        container_from_proto(ask!(self.update(cx, request)).container)
    }

    async fn delete(&self, cx: &Context, id: &str) -> Result<()> {
        ask!(self.delete(cx, pb::DeleteContainerRequest { id: id.to_owned() }));
        Ok(())
    }
}
