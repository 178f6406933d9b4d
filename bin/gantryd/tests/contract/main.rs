//! Every contract suite on the parts as the daemon joins them: the services over the metadata, and the same across a socket.
#![forbid(unsafe_code)]

mod model;
mod parts;
mod unpack;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_core::containers::ContainerStore;
use gantry_core::content::ContentStore;
use gantry_core::events::EventService;
use gantry_core::images::ImageStore;
use gantry_core::leases::LeaseManager;
use gantry_core::namespaces::NamespaceStore;
use gantry_core::sandboxes::SandboxStore;
use gantry_core::snapshots::Snapshotter;
use gantry_rpc::containers::RemoteContainers;
use gantry_rpc::content::RemoteContentStore;
use gantry_rpc::events::RemoteEvents;
use gantry_rpc::images::RemoteImages;
use gantry_rpc::leases::RemoteLeases;
use gantry_rpc::namespaces::RemoteNamespaces;
use gantry_rpc::sandboxes::RemoteSandboxes;
use gantry_rpc::snapshots::RemoteSnapshotter;
use gantry_testkit::{
    container_store_suite, content_store_suite, event_exchange_suite, image_store_suite, lease_manager_suite,
    namespace_store_suite, sandbox_store_suite, snapshotter_suite,
};
use parts::{Parts, Served};
use tonic::transport::Channel;

macro_rules! both_ends {
    ($($suite:ident: $here:ident, $field:ident, $there:ident, $remote:ident, $store:path;)*) => {$(
        $suite!($here, |dir: PathBuf| async move { Parts::open(&dir).await.services.$field.expect("it is served") });
        $suite!($there, |dir: PathBuf| async move {
            Arc::new($remote::new(served(&dir).await)) as Arc<dyn $store>
        });
    )*};
}

both_ends! {
    container_store_suite: containers, containers, remote_containers, RemoteContainers, ContainerStore;
    content_store_suite: content, content, remote_content, RemoteContentStore, ContentStore;
    event_exchange_suite: events, events, remote_events, RemoteEvents, EventService;
    image_store_suite: images, images, remote_images, RemoteImages, ImageStore;
    lease_manager_suite: leases, leases, remote_leases, RemoteLeases, LeaseManager;
    namespace_store_suite: namespaces, namespaces, remote_namespaces, RemoteNamespaces, NamespaceStore;
    sandbox_store_suite: sandboxes, sandboxes, remote_sandboxes, RemoteSandboxes, SandboxStore;
}

/// What reaches the parts in `dir`; they are served until the runtime ends.
async fn served(dir: &Path) -> Channel {
    let served = Served::start(dir).await;
    let channel = served.channel.clone();
    // Its end would be theirs.
    std::mem::forget(served);
    channel
}

async fn snapshotter(dir: PathBuf, name: &str) -> Arc<dyn Snapshotter> {
    let mut parts = Parts::open(&dir).await;
    parts.services.snapshotters.remove(name).expect("it is served")
}

async fn remote_snapshotter(dir: PathBuf, name: &str) -> Arc<dyn Snapshotter> {
    Arc::new(RemoteSnapshotter::new(served(&dir).await, name))
}

snapshotter_suite!(native, root, |dir| snapshotter(dir, "native"));
snapshotter_suite!(overlayfs, root, |dir| snapshotter(dir, "overlayfs"));
snapshotter_suite!(remote_native, root, |dir| remote_snapshotter(dir, "native"));
snapshotter_suite!(remote_overlayfs, root, |dir| remote_snapshotter(dir, "overlayfs"));
