//! The gRPC APIs: each says what it serves; the server plugin puts them on the socket.

use std::sync::Arc;

use gantry_core::containers::ContainerStore;
use gantry_core::content::ContentStore;
use gantry_core::diff::{DiffApplier, DiffComparer};
use gantry_core::events::{EventPublisher, EventService};
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
use gantry_plugin::{Plugin, PluginKind};
use gantry_services::SandboxControllerService;

macro_rules! thin {
    ($($(#[$doc:meta])* $name:ident, $id:literal, $from:ident, [$($offer:ty),*];)*) => {$(
        $(#[$doc])*
        pub(super) const $name: Plugin = Plugin {
            kind: PluginKind::Grpc,
            id: $id,
            requires: &[PluginKind::$from],
            init: |ic| {
                $(let offer = ic.get::<$offer>(PluginKind::$from)?;
                ic.put::<$offer>(PluginKind::Grpc, offer);)*
                Ok(())
            },
        };
    )*};
}

thin! {
    /// Containers.
    CONTAINERS, "containers", Service, [dyn ContainerStore];
    /// Content.
    CONTENT, "content", Service, [dyn ContentStore];
    /// Diffs.
    DIFF, "diff", Service, [dyn DiffApplier, dyn DiffComparer];
    /// Events.
    EVENTS, "events", Event, [dyn EventService];
    /// Images.
    IMAGES, "images", Service, [dyn ImageStore];
    /// Introspection.
    INTROSPECTION, "introspection", Service, [dyn Introspection];
    /// Leases.
    LEASES, "leases", Lease, [dyn LeaseManager];
    /// Looking after the store: gantry's own, and named so.
    MAINTENANCE, "gantry-maintenance", Metadata, [dyn Maintenance];
    /// Mount lists that were activated.
    MOUNTS, "mounts", MountManager, [dyn MountManager];
    /// Namespaces.
    NAMESPACES, "namespaces", Service, [dyn NamespaceStore];
    /// Sandbox records.
    SANDBOXES, "sandboxes", SandboxStore, [dyn SandboxStore];
    /// Streams that clients open by name.
    STREAMING, "streaming", Streaming, [dyn StreamManager];
    /// Tasks.
    TASKS, "tasks", Service, [dyn TaskManager];
}

/// Every controller of sandboxes, and the events of what they make and begin.
pub(super) const SANDBOX_CONTROLLERS: Plugin = Plugin {
    kind: PluginKind::Grpc,
    id: "sandbox-controllers",
    requires: &[PluginKind::PodSandboxController, PluginKind::SandboxController, PluginKind::Event],
    init: |ic| {
        let events = ic.get::<dyn EventPublisher>(PluginKind::Event)?;
        for kind in [PluginKind::PodSandboxController, PluginKind::SandboxController] {
            for (name, controller) in ic.all::<dyn SandboxController>(kind) {
                let service = SandboxControllerService::new(controller, Arc::clone(&events));
                ic.put_as::<dyn SandboxController>(PluginKind::Grpc, &name, Arc::new(service));
            }
        }
        Ok(())
    },
};

/// Snapshots of every snapshotter.
pub(super) const SNAPSHOTS: Plugin = Plugin {
    kind: PluginKind::Grpc,
    id: "snapshots",
    requires: &[PluginKind::Service],
    init: |ic| {
        for (name, snapshotter) in ic.all::<dyn Snapshotter>(PluginKind::Service) {
            ic.put_as::<dyn Snapshotter>(PluginKind::Grpc, &name, snapshotter);
        }
        Ok(())
    },
};

/// What a plugin that needs nothing puts, so that it is served only where it was started.
pub(super) struct Served;

/// The version.
pub(super) const VERSION: Plugin = Plugin {
    kind: PluginKind::Grpc,
    id: "version",
    requires: &[],
    init: |ic| {
        ic.put::<Served>(PluginKind::Grpc, Arc::new(Served));
        Ok(())
    },
};

/// Health.
pub(super) const HEALTHCHECK: Plugin = Plugin {
    kind: PluginKind::Grpc,
    id: "healthcheck",
    requires: &[],
    init: |ic| {
        ic.put::<Served>(PluginKind::Grpc, Arc::new(Served));
        Ok(())
    },
};
