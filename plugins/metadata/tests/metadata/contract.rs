//! What every store of a noun promises, whoever keeps it.

use std::path::PathBuf;
use std::sync::Arc;

use gantry_core::containers::ContainerStore;
use gantry_core::content::ContentStore;
use gantry_core::images::ImageStore;
use gantry_core::leases::LeaseManager;
use gantry_core::namespaces::NamespaceStore;
use gantry_core::sandboxes::SandboxStore;
use gantry_core::snapshots::Snapshotter;
use gantry_metadata::Metadata;
use gantry_testkit::{
    container_store_suite, content_store_suite, image_store_suite, lease_manager_suite,
    namespace_store_suite, sandbox_store_suite, snapshotter_suite,
};

use crate::support::World;

async fn metadata(dir: PathBuf) -> Metadata {
    World::open(&dir).await.metadata
}

container_store_suite!(containers, |dir| async move {
    Arc::new(metadata(dir).await.containers()) as Arc<dyn ContainerStore>
});
image_store_suite!(
    images,
    |dir| async move { Arc::new(metadata(dir).await.images()) as Arc<dyn ImageStore> }
);
lease_manager_suite!(
    leases,
    |dir| async move { Arc::new(metadata(dir).await.leases()) as Arc<dyn LeaseManager> }
);
namespace_store_suite!(namespaces, |dir| async move {
    Arc::new(metadata(dir).await.namespaces()) as Arc<dyn NamespaceStore>
});
content_store_suite!(content, |dir| async move {
    Arc::new(metadata(dir).await.content()) as Arc<dyn ContentStore>
});
snapshotter_suite!(snapshots, |dir| async move {
    Arc::new(metadata(dir).await.snapshotter("plain").expect("the driver is there")) as Arc<dyn Snapshotter>
});
sandbox_store_suite!(sandboxes, |dir| async move {
    Arc::new(metadata(dir).await.sandboxes()) as Arc<dyn SandboxStore>
});
