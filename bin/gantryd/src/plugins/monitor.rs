//! What watches containers and tasks.

use std::sync::Arc;
use std::time::Duration;

use gantry_core::containers::ContainerStore;
use gantry_core::namespaces::NamespaceStore;
use gantry_core::snapshots::Snapshotter;
use gantry_core::tasks::TaskManager;
use gantry_monitor::{RestartMonitor, Watched};
use gantry_plugin::{Plugin, PluginKind};

use super::Jobs;
use crate::config::{CgroupsSection, Config, RestartSection, parse_duration};

/// How often containers are looked at if nobody says. Source: features A59.
const INTERVAL: Duration = Duration::from_secs(10);

/// What is shorter would keep the daemon busy with looking.
const SHORTEST: Duration = Duration::from_millis(10);

/// What a page of metrics shows of tasks: put where their figures are wanted.
pub(super) struct TaskFigures;

/// Lets the endpoint of metrics show tasks' figures. Out-of-memory kills are told by shims.
pub(super) const CGROUPS: Plugin = Plugin {
    kind: PluginKind::TaskMonitor,
    id: "cgroups",
    requires: &[PluginKind::Event],
    init: |ic| {
        let section: CgroupsSection =
            ic.shared::<Arc<Config>>()?.section("io.containerd.monitor.task.v1.cgroups")?;
        if !section.no_prometheus {
            ic.put::<TaskFigures>(PluginKind::TaskMonitor, Arc::new(TaskFigures));
        }
        Ok(())
    },
};

/// Starts and stops tasks as their containers' labels ask for.
pub(super) const RESTART: Plugin = Plugin {
    kind: PluginKind::ContainerMonitor,
    id: "restart",
    requires: &[PluginKind::Event, PluginKind::Service],
    init: |ic| {
        let section: RestartSection =
            ic.shared::<Arc<Config>>()?.section("io.containerd.monitor.container.v1.restart")?;
        let interval = match parse_duration(&section.interval)? {
            Duration::ZERO => INTERVAL,
            interval => interval.max(SHORTEST),
        };
        for capability in ["no", "always", "on-failure", "unless-stopped"] {
            ic.capability(capability);
        }
        let watched = Watched {
            namespaces: ic.get::<dyn NamespaceStore>(PluginKind::Service)?,
            containers: ic.get::<dyn ContainerStore>(PluginKind::Service)?,
            tasks: ic.get::<dyn TaskManager>(PluginKind::Service)?,
            snapshotters: ic.all::<dyn Snapshotter>(PluginKind::Service).into_iter().collect(),
        };
        let jobs = ic.shared::<Jobs>()?.clone();
        let stop = jobs.stop.clone().cancelled_owned();
        jobs.tracker.spawn(RestartMonitor::new(watched, interval).run(stop));
        Ok(())
    },
};
