//! The behaviour behind each API.

use std::sync::Arc;

use gantry_core::Error;
use gantry_core::containers::ContainerStore;
use gantry_core::content::ContentStore;
use gantry_core::diff::{DiffApplier, DiffComparer};
use gantry_core::events::EventPublisher;
use gantry_core::images::ImageStore;
use gantry_core::introspection::{DeprecationWarning, Introspection};
use gantry_core::mounts::MountManager;
use gantry_core::namespaces::NamespaceStore;
use gantry_core::snapshots::Snapshotter;
use gantry_core::tasks::{TaskManager, TaskRuntime};
use gantry_plugin::{Plugin, PluginKind};
use gantry_services::{
    ContainersService, ContentService, DiffService, ImagesService, IntrospectionService, NamespacesService,
    PluginList, SnapshotsService, TasksService,
};

use crate::config::{Config, DiffSection};

/// Containers.
pub(super) const CONTAINERS: Plugin = Plugin {
    kind: PluginKind::Service,
    id: "containers-service",
    requires: &[PluginKind::Event, PluginKind::Metadata],
    init: |ic| {
        let store = ic.get::<dyn ContainerStore>(PluginKind::Metadata)?;
        let events = ic.get::<dyn EventPublisher>(PluginKind::Event)?;
        ic.put::<dyn ContainerStore>(PluginKind::Service, Arc::new(ContainersService::new(store, events)));
        Ok(())
    },
};

/// Content.
pub(super) const CONTENT: Plugin = Plugin {
    kind: PluginKind::Service,
    id: "content-service",
    requires: &[PluginKind::Metadata],
    init: |ic| {
        let store = ic.get::<dyn ContentStore>(PluginKind::Metadata)?;
        let events = ic.get::<dyn EventPublisher>(PluginKind::Event)?;
        ic.put::<dyn ContentStore>(PluginKind::Service, Arc::new(ContentService::new(store, events)));
        Ok(())
    },
};

/// Images.
pub(super) const IMAGES: Plugin = Plugin {
    kind: PluginKind::Service,
    id: "images-service",
    requires: &[PluginKind::Metadata, PluginKind::Gc, PluginKind::Warning],
    init: |ic| {
        let store = ic.get::<dyn ImageStore>(PluginKind::Metadata)?;
        let events = ic.get::<dyn EventPublisher>(PluginKind::Event)?;
        ic.put::<dyn ImageStore>(PluginKind::Service, Arc::new(ImagesService::new(store, events)));
        Ok(())
    },
};

/// Namespaces.
pub(super) const NAMESPACES: Plugin = Plugin {
    kind: PluginKind::Service,
    id: "namespaces-service",
    requires: &[PluginKind::Event, PluginKind::Metadata],
    init: |ic| {
        let store = ic.get::<dyn NamespaceStore>(PluginKind::Metadata)?;
        let events = ic.get::<dyn EventPublisher>(PluginKind::Event)?;
        ic.put::<dyn NamespaceStore>(PluginKind::Service, Arc::new(NamespacesService::new(store, events)));
        Ok(())
    },
};

/// Snapshots of every snapshotter.
pub(super) const SNAPSHOTS: Plugin = Plugin {
    kind: PluginKind::Service,
    id: "snapshots-service",
    requires: &[PluginKind::Metadata],
    init: |ic| {
        let events = ic.get::<dyn EventPublisher>(PluginKind::Event)?;
        for (name, store) in ic.all::<dyn Snapshotter>(PluginKind::Metadata) {
            let service = SnapshotsService::new(name.as_str(), store, Arc::clone(&events));
            ic.put_as::<dyn Snapshotter>(PluginKind::Service, &name, Arc::new(service));
        }
        Ok(())
    },
};

/// The differ for tar layers.
pub(super) const WALKING: Plugin = Plugin {
    kind: PluginKind::Differ,
    id: "walking",
    requires: &[PluginKind::Metadata, PluginKind::MountManager],
    init: |ic| {
        let content = ic.get::<dyn ContentStore>(PluginKind::Metadata)?;
        let mounts = ic.daemon_root().join("tmpmounts");
        let mut differ = gantry_diff::WalkingDiffer::new(content, mounts);
        // Where the plugin is disabled, lists that need it fail to mount.
        if let Ok(manager) = ic.get::<dyn MountManager>(PluginKind::MountManager) {
            differ = differ.with_mounts(manager);
        }
        let differ = Arc::new(differ);
        ic.put::<dyn DiffApplier>(PluginKind::Differ, Arc::clone(&differ) as Arc<dyn DiffApplier>);
        ic.put::<dyn DiffComparer>(PluginKind::Differ, differ);
        Ok(())
    },
};

/// Asks the differs in the configured order.
pub(super) const DIFF: Plugin = Plugin {
    kind: PluginKind::Service,
    id: "diff-service",
    requires: &[PluginKind::Differ],
    init: |ic| {
        let section: DiffSection =
            ic.shared::<Arc<Config>>()?.section("io.containerd.service.v1.diff-service")?;
        let (appliers, comparers) =
            (ic.all::<dyn DiffApplier>(PluginKind::Differ), ic.all::<dyn DiffComparer>(PluginKind::Differ));
        let mut chosen = (Vec::new(), Vec::new());
        for name in &section.default {
            let applier = appliers.iter().find(|(id, _)| id == name);
            let (_, applier) =
                applier.ok_or_else(|| Error::not_found(format!("needed differ {name:?} not loaded")))?;
            chosen.0.push(Arc::clone(applier));
            chosen.1.extend(
                comparers.iter().find(|(id, _)| id == name).map(|(_, comparer)| Arc::clone(comparer)),
            );
        }
        let service = Arc::new(DiffService::new(chosen.0, chosen.1));
        ic.put::<dyn DiffApplier>(PluginKind::Service, Arc::clone(&service) as Arc<dyn DiffApplier>);
        ic.put::<dyn DiffComparer>(PluginKind::Service, service);
        Ok(())
    },
};

/// What the daemon is made of.
pub(super) const INTROSPECTION: Plugin = Plugin {
    kind: PluginKind::Service,
    id: "introspection-service",
    requires: &[PluginKind::Warning],
    init: |ic| {
        let list = Arc::clone(ic.shared::<Arc<PluginList>>()?);
        let warnings = ic.get::<Vec<DeprecationWarning>>(PluginKind::Warning)?;
        let service = IntrospectionService::new(list, &ic.root(), warnings.to_vec());
        let service = Arc::new(service);
        ic.put::<IntrospectionService>(PluginKind::Service, Arc::clone(&service));
        ic.put::<dyn Introspection>(PluginKind::Service, service);
        Ok(())
    },
};

/// Tasks.
pub(super) const TASKS: Plugin = Plugin {
    kind: PluginKind::Service,
    id: "tasks-service",
    requires: &[
        PluginKind::Event,
        PluginKind::Runtime,
        PluginKind::Metadata,
        PluginKind::TaskMonitor,
        PluginKind::Warning,
    ],
    init: |ic| {
        let containers = ic.get::<dyn ContainerStore>(PluginKind::Metadata)?;
        let runtime = ic.get::<dyn TaskRuntime>(PluginKind::Runtime)?;
        ic.put::<dyn TaskManager>(PluginKind::Service, Arc::new(TasksService::new(containers, runtime)));
        Ok(())
    },
};
