//! The listening servers: which services are on which socket.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use gantry_core::containers::ContainerStore;
use gantry_core::content::ContentStore;
use gantry_core::diff::{DiffApplier, DiffComparer};
use gantry_core::events::EventService;
use gantry_core::images::ImageStore;
use gantry_core::introspection::Introspection;
use gantry_core::leases::LeaseManager;
use gantry_core::maintenance::Maintenance;
use gantry_core::mounts::MountManager;
use gantry_core::namespaces::NamespaceStore;
use gantry_core::sandbox_controller::SandboxController;
use gantry_core::sandboxes::SandboxStore;
use gantry_core::snapshots::Snapshotter;
use gantry_core::streaming::StreamManager;
use gantry_core::tasks::TaskManager;
use gantry_core::{Error, Result};
use gantry_plugin::{Loaded, Plugin, PluginKind};
use gantry_rpc::{JobLimits, JobSet, Services};
use gantry_task_runtime::{EVENTS_SERVICE, ForwardedEvents, ShimTasks};
use gantry_ttrpc::{Server, ServerConfig};
use tokio::net::UnixListener;
use toml::{Table, Value};

use super::metrics::MetricsServer;
use crate::config::{self, Config};

/// The shims' socket.
pub(super) const TTRPC: Plugin = Plugin {
    kind: PluginKind::Server,
    id: "ttrpc",
    requires: &[PluginKind::Ttrpc, PluginKind::Grpc],
    init: |ic| {
        let tasks = ic.get::<ShimTasks>(PluginKind::Runtime)?;
        ic.put::<ForwardedEvents>(PluginKind::Server, tasks.events_service());
        Ok(())
    },
};

/// The main socket.
pub(super) const GRPC: Plugin = Plugin {
    kind: PluginKind::Server,
    id: "grpc",
    requires: &[PluginKind::Grpc],
    init: |ic| {
        let services = Services {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: env!("GANTRY_REVISION").to_owned(),
            introspection: ic.get::<dyn Introspection>(PluginKind::Grpc).ok(),
            namespaces: ic.get::<dyn NamespaceStore>(PluginKind::Grpc).ok(),
            containers: ic.get::<dyn ContainerStore>(PluginKind::Grpc).ok(),
            images: ic.get::<dyn ImageStore>(PluginKind::Grpc).ok(),
            content: ic.get::<dyn ContentStore>(PluginKind::Grpc).ok(),
            leases: ic.get::<dyn LeaseManager>(PluginKind::Grpc).ok(),
            snapshotters: ic.all::<dyn Snapshotter>(PluginKind::Grpc).into_iter().collect(),
            applier: ic.get::<dyn DiffApplier>(PluginKind::Grpc).ok(),
            comparer: ic.get::<dyn DiffComparer>(PluginKind::Grpc).ok(),
            events: ic.get::<dyn EventService>(PluginKind::Grpc).ok(),
            tasks: ic.get::<dyn TaskManager>(PluginKind::Grpc).ok(),
            sandboxes: ic.get::<dyn SandboxStore>(PluginKind::Grpc).ok(),
            sandbox_controllers: ic.all::<dyn SandboxController>(PluginKind::Grpc).into_iter().collect(),
            maintenance: ic.get::<dyn Maintenance>(PluginKind::Grpc).ok(),
            mounts: ic.get::<dyn MountManager>(PluginKind::Grpc).ok(),
            streams: ic.get::<dyn StreamManager>(PluginKind::Grpc).ok(),
        };
        ic.put::<Services>(PluginKind::Server, Arc::new(services));
        Ok(())
    },
};

/// What is served, before there are sockets.
pub(crate) struct Servers {
    services: Arc<Services>,
    events: Arc<ForwardedEvents>,
    /// The endpoint of metrics, where there is one.
    pub(crate) metrics: Option<MetricsServer>,
}

impl Servers {
    /// The servers of the plugins that were started.
    ///
    /// # Errors
    /// `FailedPrecondition` if a server plugin was not: a daemon that cannot be reached is of no use.
    pub(super) fn new(loaded: &Loaded) -> Result<Self> {
        let missing =
            |id| Error::failed_precondition(format!("plugin {}.{id} did not start", PluginKind::Server));
        Ok(Servers {
            services: loaded.by_id(PluginKind::Server, "grpc").ok_or_else(|| missing("grpc"))?,
            events: loaded.by_id(PluginKind::Server, "ttrpc").ok_or_else(|| missing("ttrpc"))?,
            metrics: MetricsServer::of(loaded),
        })
    }

    /// Serves clients until `shutdown`.
    pub(crate) fn grpc(
        &self,
        listener: UnixListener,
        grace: Duration,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let jobs = JobSet::new(JobLimits::default());
        let routes = Services::clone(&self.services).routes(&jobs);
        gantry_rpc::serve(listener, routes, jobs, grace, shutdown)
    }

    /// Serves shims until `shutdown`.
    pub(crate) fn ttrpc(
        &self,
        listener: UnixListener,
        grace: Duration,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        // Source: security S02; features B148: only our own user's processes.
        let config = ServerConfig { same_uid_only: true, grace, ..ServerConfig::default() };
        Server::new(config)
            .with(EVENTS_SERVICE, Arc::<ForwardedEvents>::clone(&self.events))
            .run(listener, shutdown)
    }
}

/// The sections that are read, with their defaults.
fn default_sections() -> Result<Table> {
    fn section(value: impl serde::Serialize) -> Result<Value> {
        Value::try_from(value).map_err(|error| Error::internal(format!("write a section: {error}")))
    }
    let sections = [
        ("io.containerd.gc.v1.scheduler", section(config::CollectionSection::default())?),
        ("io.containerd.metadata.v1.bolt", section(config::MetadataSection::default())?),
        ("io.containerd.monitor.container.v1.restart", section(config::RestartSection::default())?),
        ("io.containerd.monitor.task.v1.cgroups", section(config::CgroupsSection::default())?),
        ("io.containerd.server.v1.metrics", section(config::MetricsServerSection::default())?),
        ("io.containerd.server.v1.grpc", section(config::GrpcServerSection::default())?),
        ("io.containerd.server.v1.ttrpc", section(config::TtrpcServerSection::default())?),
        ("io.containerd.service.v1.diff-service", section(config::DiffSection::default())?),
        ("io.containerd.shim.v1.manager", section(config::ShimSection::default())?),
        ("io.containerd.snapshotter.v1.native", section(config::NativeSection::default())?),
        ("io.containerd.snapshotter.v1.overlayfs", section(config::OverlaySection::default())?),
    ];
    Ok(sections.into_iter().map(|(uri, section)| (uri.to_owned(), section)).collect())
}

/// The default configuration as text.
///
/// # Errors
/// `Internal` if it cannot be written.
pub(crate) fn default_configuration() -> Result<String> {
    configuration_text(&Config::default())
}

/// A configuration as text, with every section that is read.
///
/// # Errors
/// `Internal` if it cannot be written.
pub(crate) fn configuration_text(config: &Config) -> Result<String> {
    let mut plugins = default_sections()?;
    for (uri, given) in &config.plugins {
        match (plugins.get_mut(uri), given) {
            (Some(Value::Table(section)), Value::Table(given)) => section.extend(given.clone()),
            _ => drop(plugins.insert(uri.clone(), given.clone())),
        }
    }
    let mut file = Table::new();
    file.insert("version".into(), Value::Integer(config::LATEST));
    file.insert("root".into(), Value::String(config.root.display().to_string()));
    file.insert("state".into(), Value::String(config.state.display().to_string()));
    file.insert("oom_score".into(), Value::Integer(config.oom_score.into()));
    let names = |names: &[String]| Value::Array(names.iter().cloned().map(Value::String).collect());
    file.insert("disabled_plugins".into(), names(&config.disabled_plugins));
    file.insert("required_plugins".into(), names(&config.required_plugins));
    let mut debug = Table::new();
    debug.insert("level".into(), Value::String(config.log_level.clone()));
    debug.insert("format".into(), Value::String(config.log_format.clone()));
    file.insert("debug".into(), Value::Table(debug));
    let timeouts = config.timeouts.iter().map(|(key, value)| (key.clone(), Value::String(value.clone())));
    file.insert("timeouts".into(), Value::Table(timeouts.collect()));
    file.insert("plugins".into(), Value::Table(plugins));
    toml::to_string(&file).map_err(|error| Error::internal(format!("write the configuration: {error}")))
}
