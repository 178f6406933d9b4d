//! Shims, and the tasks in them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_core::events::EventPublisher;
use gantry_core::mounts::MountManager;
use gantry_core::sandbox_controller::SandboxController;
use gantry_core::tasks::TaskRuntime;
use gantry_core::{Error, Result, wire_names};
use gantry_plugin::{Plugin, PluginKind};
use gantry_services::IntrospectionService;
use gantry_task_runtime::{SandboxShims, ShimSandboxes, ShimTasks, ShimTasksConfig, Timeouts};

use super::Jobs;
use crate::config::{Config, GrpcServerSection, ShimSection};
use crate::daemon::ttrpc_section;

/// Starts shims. What it offers is how, and which of them are sandboxes'; the plugins of tasks and of sandboxes use it.
pub(super) const SHIM_MANAGER: Plugin = Plugin {
    kind: PluginKind::Shim,
    id: "manager",
    requires: &[PluginKind::Event, PluginKind::Metadata],
    init: |ic| {
        let config = Arc::clone(ic.shared::<Arc<Config>>()?);
        ic.put::<ShimTasksConfig>(PluginKind::Shim, Arc::new(shim_config(&config)?));
        ic.put::<SandboxShims>(PluginKind::Shim, Arc::default());
        Ok(())
    },
};

fn shim_config(config: &Config) -> Result<ShimTasksConfig> {
    let section: ShimSection = config.section("io.containerd.shim.v1.manager")?;
    let grpc: GrpcServerSection = config.section("io.containerd.server.v1.grpc")?;
    let ttrpc = ttrpc_section(config, &grpc)?;
    let mut env = Vec::new();
    for pair in section.env {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Error::invalid_argument(format!(
                "configuration section [plugins.'io.containerd.shim.v1.manager']: env {pair:?} is not NAME=value"
            )));
        };
        env.push((name.to_owned(), value.to_owned()));
    }
    let defaults = Timeouts::default();
    let timeout =
        |name: &str, default: Duration| config.timeout(&format!("io.containerd.timeout.{name}"), default);
    Ok(ShimTasksConfig {
        root: config.root.clone(),
        state: config.state.clone(),
        address: grpc.address,
        ttrpc_address: ttrpc.address,
        publish_binary: std::env::current_exe()
            .map_err(|error| Error::io(error).context("find the daemon's own executable"))?,
        socket_dir: Some(match section.socket_dir.as_str() {
            "" => PathBuf::from(wire_names::DEFAULT_SHIM_SOCKET_DIR),
            directory => PathBuf::from(directory),
        }),
        env,
        debug: matches!(config.log_level.as_str(), "debug" | "trace"),
        timeouts: Timeouts {
            load: timeout("shim.load", defaults.load)?,
            cleanup: timeout("shim.cleanup", defaults.cleanup)?,
            shutdown: timeout("shim.shutdown", defaults.shutdown)?,
            state: timeout("task.state", defaults.state)?,
            stats: timeout("metrics.shimstats", defaults.stats)?,
            start: defaults.start,
            call: defaults.call,
        },
    })
}

/// Runs sandboxes that a shim is.
pub(super) const SANDBOXES: Plugin = Plugin {
    kind: PluginKind::SandboxController,
    id: "shim",
    requires: &[PluginKind::Shim, PluginKind::Event],
    init: |ic| {
        let config = ShimTasksConfig::clone(&*ic.get::<ShimTasksConfig>(PluginKind::Shim)?);
        let shims = ic.get::<SandboxShims>(PluginKind::Shim)?;
        let events = ic.get::<dyn EventPublisher>(PluginKind::Event)?;
        let directories = (ic.state(), ic.root());
        let sandboxes =
            Arc::new(ShimSandboxes::open(config, (&directories.0, &directories.1), shims, events)?);
        // As for tasks: calls for a sandbox wait for that sandbox only.
        let jobs = ic.shared::<Jobs>()?.clone();
        let recovering = Arc::clone(&sandboxes);
        jobs.tracker.spawn(async move {
            tokio::select! {
                () = recovering.recover() => {}
                () = jobs.stop.cancelled() => {}
            }
        });
        ic.put::<ShimSandboxes>(PluginKind::SandboxController, Arc::clone(&sandboxes));
        ic.put::<dyn SandboxController>(PluginKind::SandboxController, sandboxes);
        Ok(())
    },
};

/// Runs tasks.
pub(super) const TASK: Plugin = Plugin {
    kind: PluginKind::Runtime,
    id: "task",
    requires: &[PluginKind::Shim, PluginKind::MountManager, PluginKind::Warning],
    init: |ic| {
        let config = ic.get::<ShimTasksConfig>(PluginKind::Shim)?;
        let events = ic.get::<dyn EventPublisher>(PluginKind::Event)?;
        let tasks = Arc::new(ShimTasks::open(ShimTasksConfig::clone(&config), events)?);
        tasks.set_sandboxes(ic.get::<SandboxShims>(PluginKind::Shim)?);
        // Where the plugin is disabled, shims get the mounts as they are.
        if let Ok(mounts) = ic.get::<dyn MountManager>(PluginKind::MountManager) {
            tasks.set_mounts(mounts);
        }
        // Sockets answer at once; a call for a task waits for that task's recovery only.
        let jobs = ic.shared::<Jobs>()?.clone();
        let recovering = Arc::clone(&tasks);
        jobs.tracker.spawn(async move {
            tokio::select! {
                () = recovering.recover() => {}
                () = jobs.stop.cancelled() => {}
            }
        });
        // Source: features A30.
        ic.export("log-uri-schemes", "binary,fifo,file");
        if let Some((_, introspection)) =
            ic.all::<IntrospectionService>(PluginKind::Service).into_iter().next()
        {
            introspection.set_runtime(Arc::clone(&tasks) as Arc<dyn TaskRuntime>);
        }
        ic.put::<ShimTasks>(PluginKind::Runtime, Arc::clone(&tasks));
        ic.put::<dyn TaskRuntime>(PluginKind::Runtime, tasks);
        Ok(())
    },
};
