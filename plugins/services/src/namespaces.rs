//! Namespaces: the records, and what is told about them. Events carry the namespace that the request names.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_core::events::{Event, EventPublisher};
use gantry_core::field_mask::FieldMask;
use gantry_core::namespaces::{NamespaceRecord, NamespaceStore};
use gantry_core::{Context, Labels, Namespace, Result};

/// The namespaces service.
pub struct NamespacesService {
    store: Arc<dyn NamespaceStore>,
    events: Arc<dyn EventPublisher>,
}

impl NamespacesService {
    /// The service over `store`.
    pub fn new(store: Arc<dyn NamespaceStore>, events: Arc<dyn EventPublisher>) -> Self {
        NamespacesService { store, events }
    }

    async fn publish(&self, cx: &Context, name: &Namespace, event: Event) {
        self.events.publish(&cx.clone().with_namespace(name.clone()), event).await;
    }
}

#[async_trait]
impl NamespaceStore for NamespacesService {
    async fn create(&self, cx: &Context, new: NamespaceRecord) -> Result<NamespaceRecord> {
        let created = self.store.create(cx, new).await?;
        let event = Event::NamespaceCreate { name: created.name.to_string(), labels: created.labels.clone() };
        self.publish(cx, &created.name, event).await;
        Ok(created)
    }

    async fn labels(&self, cx: &Context, name: &str) -> Result<Labels> {
        self.store.labels(cx, name).await
    }

    async fn list(&self, cx: &Context) -> Result<Vec<NamespaceRecord>> {
        self.store.list(cx).await
    }

    async fn update(
        &self,
        cx: &Context,
        changed: NamespaceRecord,
        mask: &FieldMask,
    ) -> Result<NamespaceRecord> {
        let updated = self.store.update(cx, changed, mask).await?;
        let event = Event::NamespaceUpdate { name: updated.name.to_string(), labels: updated.labels.clone() };
        self.publish(cx, &updated.name, event).await;
        Ok(updated)
    }

    async fn delete(&self, cx: &Context, name: &Namespace) -> Result<()> {
        self.store.delete(cx, name).await?;
        self.publish(cx, name, Event::NamespaceDelete { name: name.to_string() }).await;
        Ok(())
    }
}
