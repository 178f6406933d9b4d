//! Every plugin, in plain sight: one file a kind. Kinds, ids and requirements are the original's (features section A).

mod event;
mod grpc;
#[cfg(test)]
mod in_process;
mod metadata;
mod metrics;
mod monitor;
mod mount;
mod runtime;
mod server;
mod service;
mod snapshotter;

use std::sync::Arc;

use gantry_core::diff::DiffApplier;
use gantry_core::introspection::PluginRecord;
use gantry_core::platforms::Platform;
use gantry_core::{Error, Result};
use gantry_metadata::Metadata;
use gantry_plugin::{Environment, InitError, Loaded, Plugin, PluginKind};
use gantry_services::PluginList;
use gantry_task_runtime::{ShimSandboxes, ShimTasks};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;

pub(crate) use server::configuration_text;
pub(crate) use server::default_configuration;
pub(crate) use snapshotter::roots as snapshotter_roots;

/// The list.
const PLUGINS: &[&Plugin] = &[
    &metadata::CONTENT,
    &event::DEPRECATIONS,
    &event::EXCHANGE,
    &monitor::CGROUPS,
    &snapshotter::NATIVE,
    &snapshotter::OVERLAYFS,
    &metadata::BOLT,
    &metadata::SCHEDULER,
    &mount::EROFS,
    &mount::BOLT,
    &service::CONTAINERS,
    &service::CONTENT,
    &service::WALKING,
    &service::DIFF,
    &service::IMAGES,
    &service::INTROSPECTION,
    &service::NAMESPACES,
    &service::SNAPSHOTS,
    &runtime::SHIM_MANAGER,
    &runtime::SANDBOXES,
    &runtime::TASK,
    &service::TASKS,
    &monitor::RESTART,
    &metadata::LEASES,
    &metadata::SANDBOXES,
    &metadata::STREAMS,
    &grpc::CONTAINERS,
    &grpc::CONTENT,
    &grpc::DIFF,
    &grpc::EVENTS,
    &grpc::IMAGES,
    &grpc::INTROSPECTION,
    &grpc::LEASES,
    &grpc::MAINTENANCE,
    &grpc::MOUNTS,
    &grpc::NAMESPACES,
    &grpc::SANDBOX_CONTROLLERS,
    &grpc::SANDBOXES,
    &grpc::SNAPSHOTS,
    &grpc::STREAMING,
    &grpc::TASKS,
    &grpc::VERSION,
    &grpc::HEALTHCHECK,
    &metrics::SERVER,
    &server::TTRPC,
    &server::GRPC,
];

/// Work of the daemon's own that goes on beside its calls, and its end.
#[derive(Clone)]
pub(crate) struct Jobs {
    /// Waits for all of it.
    pub(crate) tracker: TaskTracker,
    /// Fired when the daemon stops.
    pub(crate) stop: CancellationToken,
}

/// Shared with the plugins of a store that is only looked at: they neither make nor tidy anything.
pub(crate) struct AsIs;

/// Starts only what the store is made of, to look at it. Blocks, and is called on the blocking pool of a runtime.
///
/// # Errors
/// Those of opening the content and the database.
pub(crate) fn open_as_is(config: &Arc<Config>) -> Result<Arc<Metadata>> {
    let parts = [PluginKind::Content, PluginKind::Event, PluginKind::Snapshotter, PluginKind::Metadata];
    let list: Vec<&Plugin> = PLUGINS.iter().copied().filter(|plugin| parts.contains(&plugin.kind)).collect();
    let mut environment = Environment::default();
    environment.root.clone_from(&config.root);
    environment.state.clone_from(&config.state);
    environment.disabled.clone_from(&config.disabled_plugins);
    environment.share(Arc::clone(config));
    environment.share(AsIs);
    let loaded = gantry_plugin::load(&list, &environment)?;
    if let Some(metadata) = loaded.by_id::<Metadata>(PluginKind::Metadata, "bolt") {
        return Ok(metadata);
    }
    // The first that failed is why: the metadata comes last.
    let failed = loaded.plugins.into_iter().filter(|plugin| plugin.kind != PluginKind::Snapshotter);
    let error = failed.filter_map(|plugin| plugin.error).next();
    Err(match error {
        Some(InitError::Failed(error)) => error,
        _ => Error::failed_precondition("the configuration disables the plugins of content or metadata"),
    })
}

/// What the daemon holds once everything was started.
pub(crate) struct Parts {
    loaded: Loaded,
    pub(crate) servers: server::Servers,
}

/// Starts every plugin. Blocks, and is called on the blocking pool of a runtime.
///
/// # Errors
/// Those of a plugin without which the daemon does not run.
pub(crate) fn start(config: &Arc<Config>, jobs: &Jobs) -> Result<Parts> {
    let list = Arc::new(PluginList::default());
    let mut required = config.required_plugins.clone();
    // Without these no call can be answered; their errors (a root that another daemon holds) are the daemon's own.
    for plugin in [&metadata::CONTENT, &metadata::BOLT, &event::EXCHANGE] {
        required.push(plugin.uri());
    }
    let mut environment = Environment::default();
    environment.root.clone_from(&config.root);
    environment.state.clone_from(&config.state);
    environment.disabled.clone_from(&config.disabled_plugins);
    environment.required = required;
    environment.share(Arc::clone(config));
    environment.share(jobs.clone());
    environment.share(Arc::clone(&list));
    for uri in config.plugins.keys().filter(|uri| !PLUGINS.iter().any(|plugin| plugin.uri() == **uri)) {
        tracing::warn!(plugin = uri.as_str(), "configuration of a plugin that is not built is ignored");
    }
    // Source: features section A: a handler for what the kernel lacks is not on the list at all.
    let lacking = |plugin: &Plugin| plugin.uri() == mount::EROFS.uri() && !mount::has_erofs();
    let plugins: Vec<&Plugin> = PLUGINS.iter().copied().filter(|plugin| !lacking(plugin)).collect();
    let loaded = gantry_plugin::load(&plugins, &environment)?;
    for plugin in &loaded.plugins {
        let uri = format!("{}.{}", plugin.kind, plugin.id);
        match &plugin.error {
            None => tracing::debug!(plugin = uri, "loaded"),
            Some(InitError::Skip(why)) => tracing::info!(plugin = uri, why, "skip loading plugin"),
            Some(InitError::Failed(error)) => tracing::warn!(plugin = uri, %error, "failed to load plugin"),
        }
    }
    list.set(records(&loaded));
    rebuild_snapshots(&loaded);
    let servers = server::Servers::new(&loaded)?;
    Ok(Parts { loaded, servers })
}

/// Gives the metadata what applies layers, for snapshots that a loss of power may have damaged. Differs require the metadata, so
/// they cannot come with it.
fn rebuild_snapshots(loaded: &Loaded) {
    let metadata = loaded.by_id::<Metadata>(PluginKind::Metadata, "bolt");
    let applier = loaded.all::<dyn DiffApplier>(PluginKind::Service).into_iter().next();
    match (metadata, applier) {
        (Some(metadata), Some((_, applier))) => metadata.rebuild_with(applier),
        _ => tracing::warn!("no differ is loaded: damaged snapshots are not rebuilt"),
    }
}

/// What introspection tells about the plugins.
fn records(loaded: &Loaded) -> Vec<PluginRecord> {
    loaded
        .plugins
        .iter()
        .map(|plugin| PluginRecord {
            kind: plugin.kind.as_str().to_owned(),
            id: plugin.id.clone(),
            requires: plugin.requires.iter().map(ToString::to_string).collect(),
            platforms: match plugin.kind {
                // Source: observed answers: snapshotters, differs and runtimes name the platform they serve.
                PluginKind::Snapshotter | PluginKind::Differ | PluginKind::Runtime => vec![Platform::host()],
                _ => Vec::new(),
            },
            exports: plugin.exports.clone(),
            capabilities: plugin.capabilities.clone(),
            init_error: plugin.error.as_ref().map(InitError::published),
        })
        .collect()
}

impl Parts {
    /// Closes what must be closed, in reverse order of the start. Shims live on.
    ///
    /// # Errors
    /// The first that failed; the others are closed all the same.
    pub(crate) async fn close(self, grace: std::time::Duration) -> Result<()> {
        if let Some(tasks) = self.loaded.by_id::<ShimTasks>(PluginKind::Runtime, "task") {
            tasks.close().await;
        }
        if let Some(sandboxes) = self.loaded.by_id::<ShimSandboxes>(PluginKind::SandboxController, "shim") {
            sandboxes.close().await;
        }
        match self.loaded.by_id::<Metadata>(PluginKind::Metadata, "bolt") {
            Some(metadata) => metadata.close(grace).await,
            None => Err(Error::internal("the metadata plugin offers no store")),
        }
    }
}
