//! Containers: the records, and what is told about them.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_core::containers::{Container, ContainerStore};
use gantry_core::events::{Event, EventPublisher};
use gantry_core::field_mask::FieldMask;
use gantry_core::{Context, ItemStream, Result};

/// The containers service.
pub struct ContainersService {
    store: Arc<dyn ContainerStore>,
    events: Arc<dyn EventPublisher>,
}

impl ContainersService {
    /// The service over `store`.
    pub fn new(store: Arc<dyn ContainerStore>, events: Arc<dyn EventPublisher>) -> Self {
        ContainersService { store, events }
    }
}

#[async_trait]
impl ContainerStore for ContainersService {
    async fn create(&self, cx: &Context, new: Container) -> Result<Container> {
        let created = self.store.create(cx, new).await?;
        let event = Event::ContainerCreate {
            id: created.id.to_string(),
            image: created.image.clone(),
            runtime_name: created.runtime.name.clone(),
            runtime_options: created.runtime.options.clone(),
        };
        self.events.publish(cx, event).await;
        Ok(created)
    }

    async fn get(&self, cx: &Context, id: &str) -> Result<Container> {
        self.store.get(cx, id).await
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<Container>> {
        self.store.list(cx, filters).await
    }

    async fn update(&self, cx: &Context, changed: Container, mask: &FieldMask) -> Result<Container> {
        let updated = self.store.update(cx, changed, mask).await?;
        let event = Event::ContainerUpdate {
            id: updated.id.to_string(),
            image: updated.image.clone(),
            labels: updated.labels.clone(),
            snapshot_key: updated.snapshot_key.clone(),
        };
        self.events.publish(cx, event).await;
        Ok(updated)
    }

    async fn delete(&self, cx: &Context, id: &str) -> Result<()> {
        self.store.delete(cx, id).await?;
        self.events.publish(cx, Event::ContainerDelete { id: id.to_owned() }).await;
        Ok(())
    }
}
