//! The figures of all tasks, for a page of metrics.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use gantry_core::containers::ContainerStore;
use gantry_core::namespaces::NamespaceStore;
use gantry_core::tasks::TaskManager;
use gantry_core::{Context, Result};

use crate::figures;
use crate::prometheus::Page;

/// Reads the figures of every task when a page is asked for.
pub struct TaskMetrics {
    namespaces: Arc<dyn NamespaceStore>,
    containers: Arc<dyn ContainerStore>,
    tasks: Arc<dyn TaskManager>,
}

impl TaskMetrics {
    /// Of the tasks of `tasks`, in all `namespaces`; `containers` knows their runtimes.
    pub fn new(
        namespaces: Arc<dyn NamespaceStore>,
        containers: Arc<dyn ContainerStore>,
        tasks: Arc<dyn TaskManager>,
    ) -> Self {
        TaskMetrics { namespaces, containers, tasks }
    }

    /// Adds every task's figures. A task whose shim does not answer in its time is left out.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn add(&self, page: &mut Page) -> Result<()> {
        for namespace in self.namespaces.list(&Context::background()).await? {
            let cx = Context::new(namespace.name.clone());
            let metrics = self.tasks.metrics(&cx, &[]).await?;
            if metrics.is_empty() {
                continue;
            }
            let mut runtimes = HashMap::new();
            let mut containers = self.containers.list(&cx, &[]).await?;
            while let Some(container) = containers.next().await {
                let container = container?;
                runtimes.insert(container.id.to_string(), container.runtime.name);
            }
            for metric in metrics {
                let id = metric.id.clone();
                let labels = [("container_id", id.as_str()), ("namespace", namespace.name.as_str())];
                // Source: the original's label of the tasks that it has created.
                let runtime = runtimes.get(&id).map(|runtime| ("runtime", runtime.as_str()));
                let labels: Vec<_> = labels.into_iter().chain(runtime).collect();
                if let Err(error) = figures::add(page, &labels, metric) {
                    tracing::debug!(%error, container_id = id, "figures of a task are left out");
                }
            }
        }
        Ok(())
    }
}
