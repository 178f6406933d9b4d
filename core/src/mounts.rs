//! Mount lists with steps that the kernel does not know, performed and remembered.
//!
//! A snapshotter may answer a list that nobody can mount as it is: a file to be attached to a loop device, options with the mount
//! point of an earlier entry in them (`format/overlay`), a directory to be made first (`mkdir/..`), a file system to be made
//! first (`mkfs/..`). [`MountManager::activate`] performs such a list up to the entry from which the kernel can go on, and answers
//! the rest for the caller to mount. What it mounted stays, under a name, until it is deactivated or collected.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::filters::{Adaptor, label_field};
use crate::mount::Mount;
use crate::{Context, Error, ItemStream, Labels, Result};

/// A mount that a manager performed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActiveMount {
    /// What was mounted, as the kernel or the handler was told.
    pub mount: Mount,
    /// When.
    pub mounted_at: Option<SystemTime>,
    /// Where: a directory, or for a device a symlink to it.
    pub mount_point: String,
    /// What its handler has to say to those of later mounts.
    pub data: BTreeMap<String, String>,
}

/// A list that was activated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activation {
    /// Its name, any text; unique in its namespace.
    pub name: String,
    /// The mounts that were performed, in order.
    pub active: Vec<ActiveMount>,
    /// The mounts that are left to the caller.
    pub system: Vec<Mount>,
    /// `containerd.io/gc.bref.*` keep it as long as what they name.
    pub labels: Labels,
}

impl Adaptor for Activation {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["name"] if !self.name.is_empty() => Some(self.name.clone()),
            ["labels", key @ ..] => label_field(&self.labels, key),
            _ => None,
        }
    }
}

/// How to activate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActivateMounts {
    /// Labels of the activation. Optional.
    pub labels: Labels,
    /// Whether every entry is to be mounted; what is left to the caller is a bind mount of the last. Default: no.
    pub temporary: bool,
    /// Types that the caller performs by itself, such as `loop` or `format/*`. Default: none.
    pub allowed_types: Vec<String>,
    /// Whether it is for work of this process: kept without lease or reference, gone with the process. Default: no.
    pub pinned: bool,
}

/// Activates mount lists, by namespace.
#[async_trait]
pub trait MountManager: Send + Sync {
    /// Whether anything in `mounts` may be for a manager; if not, activating them would be `Unimplemented`.
    fn is_for(&self, _mounts: &[Mount]) -> bool {
        true
    }

    /// Performs `mounts` as far as needed. Under a lease it lives as long as the lease.
    ///
    /// # Errors
    /// `Unimplemented` if nothing in the list needs a manager: the caller mounts it. `AlreadyExists` if there is an activation of that
    /// name; `InvalidArgument` for lists and options that make no sense; those of mounting. Nothing stays mounted then.
    async fn activate(
        &self,
        cx: &Context,
        name: &str,
        mounts: &[Mount],
        how: ActivateMounts,
    ) -> Result<Activation>;

    /// Unmounts an activation and forgets it.
    ///
    /// # Errors
    /// `NotFound`; those of unmounting, after which the next collection tries again.
    async fn deactivate(&self, cx: &Context, name: &str) -> Result<()>;

    /// One activation.
    ///
    /// # Errors
    /// `NotFound`.
    async fn info(&self, cx: &Context, name: &str) -> Result<Activation>;

    /// Changes an activation. Source: semantics: containerd does not implement it.
    ///
    /// # Errors
    /// `Unimplemented`.
    async fn update(&self, cx: &Context, _changed: Activation, _paths: &[String]) -> Result<Activation> {
        cx.namespace()?;
        Err(Error::unimplemented("update of an activation"))
    }

    /// All activations of the namespace, in byte order of their names.
    ///
    /// # Errors
    /// `FailedPrecondition` without namespace.
    async fn list(&self, cx: &Context) -> Result<ItemStream<Activation>>;
}

/// Mounts entries of one type that the kernel does not know, or not alone. Blocks.
pub trait MountHandler: Send + Sync {
    /// Performs `entry` at `point`, which does not exist yet, after the mounts `before`.
    ///
    /// # Errors
    /// Those of the system. Nothing is left at `point` then but, maybe, an empty directory.
    fn mount(&self, entry: &Mount, point: &Path, before: &[ActiveMount]) -> Result<ActiveMount>;

    /// Undoes it. What is not mounted is no error.
    ///
    /// # Errors
    /// `FailedPrecondition` if it stays busy.
    fn unmount(&self, point: &Path) -> Result<()>;
}

/// An activation that is being made, or was.
#[derive(Clone, Debug, PartialEq)]
pub struct MountRecord {
    /// Its number, never used again: the name of its directory.
    pub id: u64,
    /// Its namespace.
    pub namespace: String,
    /// What it is.
    pub activation: Activation,
    /// The lease that it was made under.
    pub lease: Option<crate::LeaseId>,
    /// Whether its mounts are all there.
    pub finished: bool,
    /// See [`ActivateMounts::pinned`].
    pub pinned: bool,
}

/// Where activations are written down.
#[async_trait]
pub trait MountRecords: Send + Sync {
    /// Notes that `name` is being activated, and gives the record's number.
    ///
    /// # Errors
    /// `AlreadyExists`.
    async fn begin(&self, cx: &Context, name: &str, labels: Labels, pinned: bool) -> Result<u64>;

    /// Notes what was mounted.
    ///
    /// # Errors
    /// `NotFound` if the record was removed meanwhile.
    async fn finish(&self, id: u64, active: &[ActiveMount], system: &[Mount]) -> Result<()>;

    /// Forgets a record; one that is not there is no error.
    ///
    /// # Errors
    /// Those of the store.
    async fn remove(&self, id: u64) -> Result<()>;

    /// One record.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get(&self, cx: &Context, name: &str) -> Result<MountRecord>;

    /// The finished records of the namespace, in byte order of their names.
    ///
    /// # Errors
    /// `FailedPrecondition` without namespace.
    async fn list(&self, cx: &Context) -> Result<ItemStream<Activation>>;

    /// All records of all namespaces, without their mounts.
    ///
    /// # Errors
    /// Those of the store.
    async fn all(&self) -> Result<Vec<MountRecord>>;

    /// Forgets what cannot be mounted any more: records of another boot, pinned ones, and unfinished ones. For the start.
    ///
    /// # Errors
    /// Those of the store.
    async fn forget_lost(&self) -> Result<()>;
}
