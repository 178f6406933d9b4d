//! The parts of a daemon, joined in this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_content::LocalContent;
use gantry_core::containers::ContainerStore;
use gantry_core::content::ContentStore;
use gantry_core::events::EventPublisher;
use gantry_core::images::ImageStore;
use gantry_core::namespaces::NamespaceStore;
use gantry_core::snapshots::{SnapshotDriver, Snapshotter};
use gantry_events::EventExchange;
use gantry_metadata::{Metadata, MetadataConfig, MetadataParts};
use gantry_rpc::{JobSet, Services};
use gantry_services::{
    ContainersService, ContentService, ImagesService, NamespacesService, SnapshotsService,
};
use gantry_snapshots::{NativeDriver, OverlayConfig, OverlayDriver};
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// How long what is under way at the end may take.
const GRACE: Duration = Duration::from_secs(5);

/// The services, as the daemon's plugins join them.
pub(crate) struct Parts {
    pub(crate) services: Services,
    /// The store behind the content.
    pub(crate) content: Arc<dyn ContentStore>,
    pub(crate) metadata: Metadata,
}

impl Parts {
    /// Opens everything in `dir`, which may have been used before.
    pub(crate) async fn open(dir: &Path) -> Parts {
        let content: Arc<dyn ContentStore> =
            Arc::new(LocalContent::open(&dir.join("content")).expect("open the content"));
        let native = NativeDriver::open(&dir.join("native")).expect("open the native snapshotter");
        let mut drivers: Vec<Arc<dyn SnapshotDriver>> = vec![Arc::new(native)];
        // Without root there may be no overlays; its own suite asks for root.
        if let Ok(overlay) = OverlayDriver::open(&dir.join("overlayfs"), OverlayConfig::default()) {
            drivers.push(Arc::new(overlay));
        }
        let exchange = Arc::new(EventExchange::new());
        let events: Arc<dyn EventPublisher> = Arc::<EventExchange>::clone(&exchange);
        let parts = MetadataParts {
            path: dir.join("gantry/store.db"),
            content: Arc::clone(&content),
            drivers,
            events: Arc::clone(&events),
        };
        let metadata = Metadata::open(MetadataConfig::default(), parts).await.expect("open the metadata");
        let snapshotters = metadata.snapshotters().into_iter().map(|name| {
            let store = metadata.snapshotter(&name).expect("its name was listed");
            let service = SnapshotsService::new(name.as_str(), Arc::new(store), Arc::clone(&events));
            (name, Arc::new(service) as Arc<dyn Snapshotter>)
        });
        let containers = ContainersService::new(Arc::new(metadata.containers()), Arc::clone(&events));
        let images = ImagesService::new(Arc::new(metadata.images()), Arc::clone(&events));
        let namespaces = NamespacesService::new(Arc::new(metadata.namespaces()), Arc::clone(&events));
        let namespaced = ContentService::new(Arc::new(metadata.content()), Arc::clone(&events));
        let services = Services {
            snapshotters: snapshotters.collect(),
            containers: Some(Arc::new(containers) as Arc<dyn ContainerStore>),
            images: Some(Arc::new(images) as Arc<dyn ImageStore>),
            namespaces: Some(Arc::new(namespaces) as Arc<dyn NamespaceStore>),
            content: Some(Arc::new(namespaced)),
            leases: Some(Arc::new(metadata.leases())),
            sandboxes: Some(Arc::new(metadata.sandboxes())),
            events: Some(exchange),
            ..Services::default()
        };
        Parts { services, content, metadata }
    }
}

/// The parts, served on a socket.
pub(crate) struct Served {
    pub(crate) channel: Channel,
    /// The store behind the content.
    pub(crate) content: Arc<dyn ContentStore>,
    metadata: Metadata,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<gantry_core::Result<()>>,
}

impl Served {
    /// Serves the parts in `dir`.
    pub(crate) async fn start(dir: &Path) -> Served {
        let Parts { services, content, metadata } = Parts::open(dir).await;
        let socket = dir.join("s.sock");
        // One that was served here before left it.
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("bind a socket");
        let jobs = JobSet::default();
        let routes = services.routes(&jobs);
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        #[allow(
            clippy::disallowed_methods,
            reason = "stop() waits for it, or it ends with the runtime of its test"
        )]
        let serving = tokio::spawn(gantry_rpc::serve(listener, routes, jobs, GRACE, stopped));
        let channel = gantry_rpc::connect(socket).expect("a channel");
        Served { channel, content, metadata, stop, serving }
    }

    /// Stops serving, and closes what was served.
    pub(crate) async fn stop(self, grace: Duration) {
        drop(self.channel);
        drop(self.stop);
        self.serving.await.expect("it does not panic").expect("it ends well");
        self.metadata.close(grace).await.expect("the metadata closes");
    }
}
