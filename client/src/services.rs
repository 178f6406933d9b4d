//! What a client works with: one trait object a noun.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_core::containers::ContainerStore;
use gantry_core::content::ContentStore;
use gantry_core::diff::DiffApplier;
use gantry_core::events::EventService;
use gantry_core::images::ImageStore;
use gantry_core::introspection::Introspection;
use gantry_core::leases::LeaseManager;
use gantry_core::maintenance::Maintenance;
use gantry_core::namespaces::NamespaceStore;
use gantry_core::snapshots::Snapshotter;
use gantry_core::tasks::TaskManager;
use gantry_core::{Error, Result};

/// The services of a daemon, remote or in this process.
#[derive(Clone)]
pub struct Services {
    /// Containers.
    pub containers: Arc<dyn ContainerStore>,
    /// Images.
    pub images: Arc<dyn ImageStore>,
    /// Content.
    pub content: Arc<dyn ContentStore>,
    /// Leases.
    pub leases: Arc<dyn LeaseManager>,
    /// Snapshotters.
    pub snapshotters: Arc<dyn Snapshotters>,
    /// Applies layers.
    pub applier: Arc<dyn DiffApplier>,
    /// Tasks.
    pub tasks: Arc<dyn TaskManager>,
    /// Events.
    pub events: Arc<dyn EventService>,
    /// Namespaces.
    pub namespaces: Arc<dyn NamespaceStore>,
    /// Introspection.
    pub introspection: Arc<dyn Introspection>,
    /// Looks after the store; containerd has no such service.
    pub maintenance: Arc<dyn Maintenance>,
    /// The daemon's version.
    pub version: Arc<dyn VersionSource>,
}

/// Finds snapshotters by name.
pub trait Snapshotters: Send + Sync {
    /// The snapshotter `name`. One behind a socket is known to be missing only when it is used.
    ///
    /// # Errors
    /// `NotFound` if it is known not to be there.
    fn by_name(&self, name: &str) -> Result<Arc<dyn Snapshotter>>;
}

impl Snapshotters for BTreeMap<String, Arc<dyn Snapshotter>> {
    fn by_name(&self, name: &str) -> Result<Arc<dyn Snapshotter>> {
        self.get(name).cloned().ok_or_else(|| Error::not_found(format!("snapshotter {name:?}")))
    }
}

/// What a daemon says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonVersion {
    /// Its version.
    pub version: String,
    /// The commit it was built from.
    pub revision: String,
}

/// Tells a daemon's version.
#[async_trait]
pub trait VersionSource: Send + Sync {
    /// The daemon's version.
    ///
    /// # Errors
    /// `Unavailable` if the daemon does not answer.
    async fn version(&self) -> Result<DaemonVersion>;
}

#[async_trait]
impl VersionSource for DaemonVersion {
    async fn version(&self) -> Result<DaemonVersion> {
        Ok(self.clone())
    }
}
