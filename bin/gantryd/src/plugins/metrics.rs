//! The endpoint of metrics.

use std::future::Future;
use std::sync::Arc;

use gantry_core::containers::ContainerStore;
use gantry_core::namespaces::NamespaceStore;
use gantry_core::tasks::TaskManager;
use gantry_core::{Result, ResultExt as _};
use gantry_monitor::{MetricKind, Page, Pages, TaskMetrics, serve_metrics};
use gantry_plugin::{InitError, Loaded, Plugin, PluginKind};
use tokio::net::TcpListener;

use super::monitor::TaskFigures;
use crate::config::{Config, MetricsServerSection};

/// The endpoint of metrics.
pub(super) const SERVER: Plugin = Plugin {
    kind: PluginKind::Server,
    id: "metrics",
    requires: &[],
    init: |ic| {
        let section: MetricsServerSection =
            ic.shared::<Arc<Config>>()?.section("io.containerd.server.v1.metrics")?;
        if section.address.is_empty() {
            // Source: features A14.
            return Err(InitError::Skip("no address".to_owned()));
        }
        ic.put::<MetricsServerSection>(PluginKind::Server, Arc::new(section));
        Ok(())
    },
};

/// What is served there.
pub(crate) struct MetricsServer {
    address: String,
    tasks: Option<Arc<TaskMetrics>>,
}

impl MetricsServer {
    /// The endpoint of the plugins that were started, if there is one.
    pub(super) fn of(loaded: &Loaded) -> Option<MetricsServer> {
        let section = loaded.by_id::<MetricsServerSection>(PluginKind::Server, "metrics")?;
        let tasks = || {
            loaded.by_id::<TaskFigures>(PluginKind::TaskMonitor, "cgroups")?;
            Some(Arc::new(TaskMetrics::new(
                loaded.by_id::<dyn NamespaceStore>(PluginKind::Service, "namespaces-service")?,
                loaded.by_id::<dyn ContainerStore>(PluginKind::Service, "containers-service")?,
                loaded.by_id::<dyn TaskManager>(PluginKind::Service, "tasks-service")?,
            )))
        };
        Some(MetricsServer { address: section.address.clone(), tasks: tasks() })
    }

    /// Listens.
    ///
    /// # Errors
    /// What the kernel said, naming the address.
    pub(crate) async fn bind(&self) -> Result<TcpListener> {
        let listener = TcpListener::bind(&self.address).await;
        listener.with_context(|| format!("listen on {} for metrics", self.address))
    }

    /// Answers on `listener` until `shutdown`.
    pub(crate) fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let tasks = self.tasks.clone();
        let pages: Pages = Arc::new(move || {
            let tasks = tasks.clone();
            Box::pin(async move { page(tasks.as_deref()).await })
        });
        serve_metrics(listener, pages, shutdown)
    }
}

async fn page(tasks: Option<&TaskMetrics>) -> Result<String> {
    let mut page = Page::default();
    // Source: features C35.
    let build = [("revision", env!("GANTRY_REVISION")), ("version", env!("CARGO_PKG_VERSION"))];
    page.add(("containerd_build_info_total", MetricKind::Counter, "The build of the daemon"), &build, 1);
    if let Some(tasks) = tasks {
        tasks.add(&mut page).await?;
    }
    Ok(page.text())
}
