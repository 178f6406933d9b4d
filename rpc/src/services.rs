//! What a daemon offers, assembled.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::containerd::services as pb;
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
use tonic::service::Routes;

use crate::jobs::JobSet;
use crate::message::MAX_MESSAGE_BYTES;

/// The services of a daemon. What is absent, and every service not listed here (transfer, for one), answers UNIMPLEMENTED to every method.
#[derive(Clone, Default)]
pub struct Services {
    /// The version that `Version` answers.
    pub version: String,
    /// The commit that `Version` answers.
    pub revision: String,
    /// Introspection.
    pub introspection: Option<Arc<dyn Introspection>>,
    /// Namespaces.
    pub namespaces: Option<Arc<dyn NamespaceStore>>,
    /// Containers.
    pub containers: Option<Arc<dyn ContainerStore>>,
    /// Images.
    pub images: Option<Arc<dyn ImageStore>>,
    /// Content.
    pub content: Option<Arc<dyn ContentStore>>,
    /// Leases.
    pub leases: Option<Arc<dyn LeaseManager>>,
    /// Snapshotters by name.
    pub snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
    /// Applies layers.
    pub applier: Option<Arc<dyn DiffApplier>>,
    /// Computes layers.
    pub comparer: Option<Arc<dyn DiffComparer>>,
    /// Events.
    pub events: Option<Arc<dyn EventService>>,
    /// Tasks.
    pub tasks: Option<Arc<dyn TaskManager>>,
    /// The sandbox store.
    pub sandboxes: Option<Arc<dyn SandboxStore>>,
    /// Controllers of sandboxes by name.
    pub sandbox_controllers: BTreeMap<String, Arc<dyn SandboxController>>,
    /// Looks after the store; a service of gantry's own.
    pub maintenance: Option<Arc<dyn Maintenance>>,
    /// Activated mounts.
    pub mounts: Option<Arc<dyn MountManager>>,
    /// Streams that clients open by name.
    pub streams: Option<Arc<dyn StreamManager>>,
}

macro_rules! limited {
    ($server:path, $shell:expr) => {{
        use $server as Server;
        Server::new($shell)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }};
}

impl Services {
    /// The routes of these services; their mutations and long work run on `jobs`.
    pub fn routes(self, jobs: &JobSet) -> Routes {
        let version = crate::version::GrpcVersion { version: self.version, revision: self.revision };
        let mut routes = Routes::new(limited!(pb::version::v1::version_server::VersionServer, version));
        let health = crate::health::GrpcHealth::new(jobs.clone());
        routes =
            routes.add_service(limited!(gantry_api::grpc::health::v1::health_server::HealthServer, health));
        macro_rules! add {
            ($inner:expr, $server:path, $shell:path) => {
                if let Some(inner) = $inner {
                    routes = routes.add_service(limited!($server, <$shell>::new(inner, jobs.clone())));
                }
            };
        }
        if let Some(inner) = self.introspection {
            let shell = crate::introspection::GrpcIntrospection::new(inner);
            let server = limited!(pb::introspection::v1::introspection_server::IntrospectionServer, shell);
            routes = routes.add_service(server);
        }
        add!(
            self.namespaces,
            pb::namespaces::v1::namespaces_server::NamespacesServer,
            crate::namespaces::GrpcNamespaces
        );
        add!(
            self.containers,
            pb::containers::v1::containers_server::ContainersServer,
            crate::containers::GrpcContainers
        );
        add!(self.images, pb::images::v1::images_server::ImagesServer, crate::images::GrpcImages);
        add!(self.content, pb::content::v1::content_server::ContentServer, crate::content::GrpcContent);
        add!(self.leases, pb::leases::v1::leases_server::LeasesServer, crate::leases::GrpcLeases);
        add!(self.events, pb::events::v1::events_server::EventsServer, crate::events::GrpcEvents);
        add!(self.tasks, pb::tasks::v1::tasks_server::TasksServer, crate::tasks::GrpcTasks);
        add!(
            self.maintenance,
            gantry_api::gantry::services::maintenance::v1::maintenance_server::MaintenanceServer,
            crate::maintenance::GrpcMaintenance
        );
        add!(self.sandboxes, pb::sandbox::v1::store_server::StoreServer, crate::sandboxes::GrpcSandboxes);
        let controllers =
            crate::sandbox_controllers::GrpcSandboxControllers::new(self.sandbox_controllers, jobs.clone());
        routes =
            routes.add_service(limited!(pb::sandbox::v1::controller_server::ControllerServer, controllers));
        add!(self.mounts, pb::mounts::v1::mounts_server::MountsServer, crate::mounts::GrpcMounts);
        add!(
            self.streams,
            pb::streaming::v1::streaming_server::StreamingServer,
            crate::streaming::GrpcStreams
        );
        let snapshots = crate::snapshots::GrpcSnapshots::new(self.snapshotters, jobs.clone());
        routes =
            routes.add_service(limited!(pb::snapshots::v1::snapshots_server::SnapshotsServer, snapshots));
        let diff = crate::diff::GrpcDiff::new(self.applier, self.comparer, jobs.clone());
        routes.add_service(limited!(pb::diff::v1::diff_server::DiffServer, diff)).prepare()
    }
}
