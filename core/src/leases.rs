//! Leases keep resources from garbage collection while a client works.

use std::time::SystemTime;

use async_trait::async_trait;

use crate::filters::{Adaptor, label_field};
use crate::{Context, Labels, LeaseId, Result};

/// A lease as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// Its name, any text; unique in its namespace.
    pub id: LeaseId,
    /// When it was stored; set by the store.
    pub created_at: SystemTime,
    /// `containerd.io/gc.expire` (RFC 3339) ends it, `containerd.io/gc.flat` limits what it keeps.
    pub labels: Labels,
}

impl Adaptor for Lease {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            // Source: features E22.
            ["id"] if !self.id.as_str().is_empty() => Some(self.id.to_string()),
            ["labels", key @ ..] => label_field(&self.labels, key),
            _ => None,
        }
    }
}

/// A thing that a lease keeps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseResource {
    /// A digest, an ingest ref, an image name or a snapshot key, as `kind` says.
    pub id: String,
    /// `content`, `ingests`, `images` or `snapshots/<snapshotter>`.
    pub kind: String,
}

impl LeaseResource {
    /// The snapshot `key` of `snapshotter`.
    pub fn snapshot(snapshotter: &str, key: impl Into<String>) -> Self {
        LeaseResource { id: key.into(), kind: format!("snapshots/{snapshotter}") }
    }
}

/// Where leases are kept, by namespace.
#[async_trait]
pub trait LeaseManager: Send + Sync {
    /// Makes a lease; with an empty id the store makes one up.
    ///
    /// # Errors
    /// `AlreadyExists`.
    async fn create(&self, cx: &Context, id: Option<LeaseId>, labels: Labels) -> Result<Lease>;

    /// Ends a lease; with `sync` waits for a collection.
    ///
    /// # Errors
    /// `NotFound`.
    async fn delete(&self, cx: &Context, id: &LeaseId, sync: bool) -> Result<()>;

    /// The leases that any of `filters` matches, in byte order of their ids.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter that does not parse.
    async fn list(&self, cx: &Context, filters: &[String]) -> Result<Vec<Lease>>;

    /// Lets a lease keep a resource, which need not exist. Twice is once.
    ///
    /// # Errors
    /// `NotFound` for the lease; `InvalidArgument` or `Unimplemented` for the resource's type.
    async fn add_resource(&self, cx: &Context, id: &LeaseId, resource: LeaseResource) -> Result<()>;

    /// Lets a lease no longer keep a resource. What it does not keep is no error.
    ///
    /// # Errors
    /// As [`LeaseManager::add_resource`].
    async fn delete_resource(&self, cx: &Context, id: &LeaseId, resource: LeaseResource) -> Result<()>;

    /// What a lease keeps.
    ///
    /// # Errors
    /// `NotFound`.
    async fn resources(&self, cx: &Context, id: &LeaseId) -> Result<Vec<LeaseResource>>;
}
