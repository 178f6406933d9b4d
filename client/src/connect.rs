//! A client over a daemon's socket.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_core::snapshots::Snapshotter;
use gantry_core::{Context, Error, Namespace, Result, ResultExt};
use gantry_rpc::containers::RemoteContainers;
use gantry_rpc::content::RemoteContentStore;
use gantry_rpc::diff::RemoteDiff;
use gantry_rpc::events::RemoteEvents;
use gantry_rpc::images::RemoteImages;
use gantry_rpc::introspection::RemoteIntrospection;
use gantry_rpc::leases::RemoteLeases;
use gantry_rpc::maintenance::RemoteMaintenance;
use gantry_rpc::namespaces::RemoteNamespaces;
use gantry_rpc::snapshots::RemoteSnapshotter;
use gantry_rpc::tasks::RemoteTasks;
use gantry_rpc::version::RemoteVersion;

use crate::client::Client;
use crate::services::{DaemonVersion, Services, Snapshotters, VersionSource};

impl Client {
    /// A client of the daemon whose socket is at `address`, which may begin with `unix://`, in `namespace`. Asks the
    /// daemon for its version, so that a wrong address is known here.
    ///
    /// # Errors
    /// `Unavailable` if nobody answers there; `InvalidArgument` if `address` can be no socket's.
    pub async fn connect(address: &str, namespace: Namespace) -> Result<Client> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let connect = async {
            let client = Self::connect_lazy(Path::new(path), namespace)?;
            client.version().await?;
            Ok::<_, Error>(client)
        };
        connect.await.with_context(|| format!("connect to {path}"))
    }

    /// The same, connecting with the first call.
    ///
    /// # Errors
    /// `InvalidArgument` if `path` can be no socket's.
    pub fn connect_lazy(path: &Path, namespace: Namespace) -> Result<Client> {
        let channel = gantry_rpc::connect(path)?;
        let services = Services {
            containers: Arc::new(RemoteContainers::new(channel.clone())),
            images: Arc::new(RemoteImages::new(channel.clone())),
            content: Arc::new(RemoteContentStore::new(channel.clone())),
            leases: Arc::new(RemoteLeases::new(channel.clone())),
            applier: Arc::new(RemoteDiff::new(channel.clone())),
            tasks: Arc::new(RemoteTasks::new(channel.clone())),
            events: Arc::new(RemoteEvents::new(channel.clone())),
            namespaces: Arc::new(RemoteNamespaces::new(channel.clone())),
            introspection: Arc::new(RemoteIntrospection::new(channel.clone())),
            maintenance: Arc::new(RemoteMaintenance::new(channel.clone())),
            version: Arc::new(OverChannel(RemoteVersion::new(channel.clone()))),
            snapshotters: Arc::new(RemoteSnapshotters(Box::new(move |name| {
                Arc::new(RemoteSnapshotter::new(channel.clone(), name))
            }))),
        };
        Ok(Client::from_services(services, namespace))
    }
}

/// Makes a remote snapshotter of a name.
type MakeSnapshotter = dyn Fn(&str) -> Arc<dyn Snapshotter> + Send + Sync;

struct RemoteSnapshotters(Box<MakeSnapshotter>);

impl Snapshotters for RemoteSnapshotters {
    fn by_name(&self, name: &str) -> Result<Arc<dyn Snapshotter>> {
        Ok((self.0)(name))
    }
}

struct OverChannel(RemoteVersion);

#[async_trait]
impl VersionSource for OverChannel {
    async fn version(&self) -> Result<DaemonVersion> {
        let answer = self.0.get(&Context::background()).await?;
        Ok(DaemonVersion { version: answer.version, revision: answer.revision })
    }
}
