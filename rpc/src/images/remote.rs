//! Images of a daemon elsewhere.

use std::time::SystemTime;

use futures_util::StreamExt as _;
use gantry_api::containerd::services::images::v1 as pb;
use gantry_api::containerd::types::Descriptor;
use gantry_core::field_mask::FieldMask;
use gantry_core::images::{DeleteImage, Image, ImageChange, ImageStore};
use gantry_core::{Context, Digest, ItemStream, Result};
use tonic::transport::Channel;

use super::convert::{change_to_proto, from_proto, to_proto};
use crate::remote::{ask, remote};
use crate::{field_mask, timestamp};

remote! {
    /// An image store elsewhere.
    RemoteImages, pb::images_client::ImagesClient<Channel>
}

#[async_trait::async_trait]
impl ImageStore for RemoteImages {
    async fn create(&self, cx: &Context, new: Image, source_date_epoch: Option<SystemTime>) -> Result<Image> {
        let request = pb::CreateImageRequest {
            image: Some(to_proto(new)),
            source_date_epoch: source_date_epoch.map(timestamp::to_proto),
        };
        from_proto(ask!(self.create(cx, request)).image)
    }

    async fn get(&self, cx: &Context, name: &str) -> Result<Image> {
        from_proto(ask!(self.get(cx, pb::GetImageRequest { name: name.to_owned() })).image)
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<Image>> {
        let answer = ask!(self.list(cx, pb::ListImagesRequest { filters: filters.to_vec() }));
        let images = answer.images.into_iter().map(|image| from_proto(Some(image)));
        Ok(futures_util::stream::iter(images).boxed())
    }

    async fn update(
        &self,
        cx: &Context,
        changed: ImageChange,
        mask: &FieldMask,
        source_date_epoch: Option<SystemTime>,
    ) -> Result<Image> {
        let request = pb::UpdateImageRequest {
            image: Some(change_to_proto(changed)),
            update_mask: field_mask::to_proto(mask),
            source_date_epoch: source_date_epoch.map(timestamp::to_proto),
        };
        from_proto(ask!(self.update(cx, request)).image)
    }

    async fn delete(&self, cx: &Context, name: &str, how: DeleteImage) -> Result<()> {
        let target = |digest: Digest| Descriptor { digest: digest.into_string(), ..Descriptor::default() };
        let request = pb::DeleteImageRequest {
            name: name.to_owned(),
            sync: how.sync,
            target: how.if_target.map(target),
        };
        ask!(self.delete(cx, request));
        Ok(())
    }
}
