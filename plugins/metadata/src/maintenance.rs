//! Looking after the store from outside: questions about the collection, and the check.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_core::maintenance::check::{CheckEvent, CheckOptions};
use gantry_core::maintenance::{Collected, Doomed, Explanation, Maintenance, ObjectName};
use gantry_core::{Context, ItemStream, Result};
use gantry_store::Reading;

use crate::collection::{Marker, explain};
use crate::database::Inner;

/// Answers questions about the store, and checks it.
#[derive(Clone)]
pub struct MetadataMaintenance {
    inner: Arc<Inner>,
}

impl MetadataMaintenance {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        MetadataMaintenance { inner }
    }
}

#[async_trait]
impl Maintenance for MetadataMaintenance {
    async fn explain(&self, cx: &Context, object: &ObjectName) -> Result<Explanation> {
        let object = ObjectName { namespace: cx.namespace()?.to_string(), ..object.clone() };
        let snapshotters: Vec<String> = self.inner.drivers.keys().cloned().collect();
        let _alone = self.inner.questions.lock().await;
        let read = move |db: &Reading<'_>| {
            let mut marker = Marker::tracing(SystemTime::now());
            marker.mark_roots(db)?;
            explain(db, &marker, &object, &snapshotters)
        };
        self.inner.store.read(read).await
    }

    async fn preview(&self, cx: &Context) -> Result<ItemStream<Doomed>> {
        self.inner.preview(cx.namespace_if_any().map(ToString::to_string)).await
    }

    async fn collect(&self, _cx: &Context) -> Result<Collected> {
        let stats = self.inner.collect().await?;
        Ok(Collected {
            elapsed: stats.elapsed,
            leases: stats.leases,
            images: stats.images,
            blobs: stats.blobs,
            ingests: stats.ingests,
            snapshots: stats.snapshots,
        })
    }

    async fn check(&self, _cx: &Context, options: CheckOptions) -> Result<ItemStream<CheckEvent>> {
        self.inner.check(options)
    }
}
