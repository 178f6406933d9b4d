//! The parts across a socket and the model do the same.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_rpc::containers::RemoteContainers;
use gantry_rpc::content::RemoteContentStore;
use gantry_rpc::images::RemoteImages;
use gantry_rpc::leases::RemoteLeases;
use gantry_rpc::namespaces::RemoteNamespaces;
use gantry_rpc::sandboxes::RemoteSandboxes;
use gantry_rpc::snapshots::RemoteSnapshotter;
use gantry_testkit::model::{self, Stores, Subject};
use gantry_testkit::root;

use crate::parts::Served;

struct Remote {
    served: Option<Served>,
    dir: PathBuf,
    _temporary: tempfile::TempDir,
}

#[async_trait]
impl Subject for Remote {
    const REMOTE: bool = true;
    // Only overlays can have their parent changed, which need root.
    const REBASES: bool = true;

    async fn open() -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let dir = temporary.path().to_path_buf();
        Remote { served: Some(Served::start(&dir).await), dir, _temporary: temporary }
    }

    fn stores(&self) -> Stores {
        let served = self.served.as_ref().expect("it is open");
        let channel = || served.channel.clone();
        Stores {
            namespaces: Arc::new(RemoteNamespaces::new(channel())),
            containers: Arc::new(RemoteContainers::new(channel())),
            images: Arc::new(RemoteImages::new(channel())),
            content: Arc::new(RemoteContentStore::new(channel())),
            leases: Arc::new(RemoteLeases::new(channel())),
            sandboxes: Arc::new(RemoteSandboxes::new(channel())),
            snapshots: Arc::new(RemoteSnapshotter::new(channel(), "overlayfs")),
            snapshotter: "overlayfs".to_owned(),
            behind: Some(Arc::clone(&served.content)),
        }
    }

    async fn reopen(&mut self) {
        let served = self.served.take().expect("it is open");
        served.stop(Duration::from_secs(10)).await;
        self.served = Some(Served::start(&self.dir).await);
    }
}

#[test]
fn what_is_served_does_what_the_model_does() {
    root!();
    model::compare::<Remote>(10);
}
