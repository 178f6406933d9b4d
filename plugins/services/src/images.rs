//! Images: the records, and what is told about them.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_core::events::{Event, EventPublisher};
use gantry_core::field_mask::FieldMask;
use gantry_core::images::{DeleteImage, Image, ImageChange, ImageStore};
use gantry_core::{Context, ItemStream, Result};

/// The images service.
pub struct ImagesService {
    store: Arc<dyn ImageStore>,
    events: Arc<dyn EventPublisher>,
}

impl ImagesService {
    /// The service over `store`.
    pub fn new(store: Arc<dyn ImageStore>, events: Arc<dyn EventPublisher>) -> Self {
        ImagesService { store, events }
    }
}

#[async_trait]
impl ImageStore for ImagesService {
    async fn create(&self, cx: &Context, new: Image, source_date_epoch: Option<SystemTime>) -> Result<Image> {
        let created = self.store.create(cx, new, source_date_epoch).await?;
        let event = Event::ImageCreate { name: created.name.clone(), labels: created.labels.clone() };
        self.events.publish(cx, event).await;
        Ok(created)
    }

    async fn get(&self, cx: &Context, name: &str) -> Result<Image> {
        self.store.get(cx, name).await
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<Image>> {
        self.store.list(cx, filters).await
    }

    async fn update(
        &self,
        cx: &Context,
        changed: ImageChange,
        mask: &FieldMask,
        source_date_epoch: Option<SystemTime>,
    ) -> Result<Image> {
        let updated = self.store.update(cx, changed, mask, source_date_epoch).await?;
        let event = Event::ImageUpdate { name: updated.name.clone(), labels: updated.labels.clone() };
        self.events.publish(cx, event).await;
        Ok(updated)
    }

    async fn delete(&self, cx: &Context, name: &str, how: DeleteImage) -> Result<()> {
        self.store.delete(cx, name, how).await?;
        self.events.publish(cx, Event::ImageDelete { name: name.to_owned() }).await;
        Ok(())
    }
}
