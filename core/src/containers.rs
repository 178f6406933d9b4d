//! Containers: the stored records. A container has no process; its task has.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::field_mask::FieldMask;
use crate::filters::{Adaptor, label_field};
use crate::{Any, ContainerId, Context, ItemStream, Labels, Result};

/// Which runtime runs a container, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerRuntime {
    /// The runtime's name, required, for example `io.containerd.runc.v2`.
    pub name: String,
    /// Options for that runtime, optional.
    pub options: Option<Any>,
}

/// A container as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Its name; immutable.
    pub id: ContainerId,
    /// Its labels.
    pub labels: Labels,
    /// The image it was made from; informative.
    pub image: String,
    /// Its runtime; the name is immutable but by mask.
    pub runtime: ContainerRuntime,
    /// The OCI runtime specification as JSON, optional until a task is created.
    pub spec: Option<Any>,
    /// The snapshotter of its root file system; required if `snapshot_key` is set, immutable but by mask.
    pub snapshotter: String,
    /// The snapshot that is its root file system, optional.
    pub snapshot_key: String,
    /// When it was stored; set by the store.
    pub created_at: SystemTime,
    /// When it was last changed; set by the store.
    pub updated_at: SystemTime,
    /// Clients' own data, by name.
    pub extensions: BTreeMap<String, Any>,
    /// The sandbox it belongs to, optional; not checked for existence.
    pub sandbox: String,
}

impl Adaptor for Container {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            // Source: features E19.
            ["id"] => Some(self.id.to_string()),
            ["image"] if !self.image.is_empty() => Some(self.image.clone()),
            ["runtime", "name"] if !self.runtime.name.is_empty() => Some(self.runtime.name.clone()),
            ["labels", key @ ..] => label_field(&self.labels, key),
            _ => None,
        }
    }
}

impl Container {
    /// A record with nothing but its name and runtime.
    pub fn new(id: ContainerId, runtime: impl Into<String>) -> Self {
        Container {
            id,
            labels: Labels::new(),
            image: String::new(),
            runtime: ContainerRuntime { name: runtime.into(), options: None },
            spec: None,
            snapshotter: String::new(),
            snapshot_key: String::new(),
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
            extensions: BTreeMap::new(),
            sandbox: String::new(),
        }
    }
}

/// Where container records are kept, by namespace.
#[async_trait]
pub trait ContainerStore: Send + Sync {
    /// Stores `new` in the caller's namespace and returns it as stored.
    ///
    /// # Errors
    /// `AlreadyExists` if its id is taken; `InvalidArgument` if a required field is missing.
    async fn create(&self, cx: &Context, new: Container) -> Result<Container>;

    /// The record of `id`.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get(&self, cx: &Context, id: &str) -> Result<Container>;

    /// The records that any of `filters` matches (all, without filters), in byte order of their ids.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter that does not parse.
    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<Container>>;

    /// Changes the parts that `mask` names: `labels`, `labels.<k>`, `spec`, `extensions`, `extensions.<k>`, `image`,
    /// `snapshotkey`. Without mask all of them, and then runtime name and snapshotter must be the stored ones.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for another path or a changed immutable field.
    async fn update(&self, cx: &Context, changed: Container, mask: &FieldMask) -> Result<Container>;

    /// Removes the record; a running task is not looked at.
    ///
    /// # Errors
    /// `NotFound`.
    async fn delete(&self, cx: &Context, id: &str) -> Result<()>;
}
