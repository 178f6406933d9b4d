//! Snapshots: the file systems of containers and of image layers.
//!
//! An *active* snapshot has a key and can be written to; committing it gives an immutable *committed* one with a name,
//! which may be the parent of others. A *view* is read-only and cannot be committed. Keys and names share one space
//! per namespace and snapshotter.
//!
//! Two traits: [`Snapshotter`] is what callers see, by key and namespace; [`SnapshotDriver`] is what a built-in
//! snapshotter implements, by directory id, without any table of its own.

use std::time::SystemTime;

use async_trait::async_trait;

use crate::field_mask::FieldMask;
use crate::filters::{Adaptor, label_field};
use crate::mount::Mount;
use crate::{Context, ItemStream, Labels, Result, SnapshotKey};

/// What a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotKind {
    /// Read-only, with a key.
    View,
    /// Writable, with a key.
    Active,
    /// Immutable, with a name.
    Committed,
}

impl SnapshotKind {
    /// The word that filters use. Source: features E23.
    pub fn as_str(self) -> &'static str {
        match self {
            SnapshotKind::View => "view",
            SnapshotKind::Active => "active",
            SnapshotKind::Committed => "committed",
        }
    }
}

/// What is known about a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotInfo {
    /// Its key or name.
    pub name: SnapshotKey,
    /// The name of its parent, a committed snapshot.
    pub parent: Option<SnapshotKey>,
    /// What it is.
    pub kind: SnapshotKind,
    /// When it was made, or committed.
    pub created_at: SystemTime,
    /// When its labels last changed.
    pub updated_at: SystemTime,
    /// Its labels.
    pub labels: Labels,
}

impl Adaptor for SnapshotInfo {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            // Source: features E23.
            ["kind"] => Some(self.kind.as_str().to_owned()),
            ["name"] => Some(self.name.to_string()),
            ["parent"] => self.parent.as_ref().map(ToString::to_string),
            ["labels", key @ ..] => label_field(&self.labels, key),
            _ => None,
        }
    }
}

/// What a snapshot takes on disk, without its parents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotUsage {
    /// Allocated bytes.
    pub size_bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// Makes a snapshot under `key` on top of `parent`.
#[derive(Clone, Debug)]
pub struct NewSnapshot {
    /// Its key.
    pub key: SnapshotKey,
    /// A committed snapshot, if any.
    pub parent: Option<SnapshotKey>,
    /// Its labels; they are not carried over by a commit.
    pub labels: Labels,
}

/// Turns an active snapshot into a committed one.
#[derive(Clone, Debug)]
pub struct CommitSnapshot {
    /// The committed snapshot's name.
    pub name: SnapshotKey,
    /// The active snapshot's key, which is gone afterwards.
    pub key: SnapshotKey,
    /// All the labels that the committed snapshot will have.
    pub labels: Labels,
    /// Rebases it onto this parent, where the snapshotter can.
    pub parent: Option<SnapshotKey>,
}

/// One snapshotter, as callers see it.
#[async_trait]
pub trait Snapshotter: Send + Sync {
    /// Makes an active snapshot and gives the mounts to write to it.
    ///
    /// # Errors
    /// `AlreadyExists` if the key is taken, or if the label `containerd.io/snapshot.ref` names a committed snapshot;
    /// `NotFound` for the parent; `InvalidArgument` if the parent is not committed.
    async fn prepare(&self, cx: &Context, new: NewSnapshot) -> Result<Vec<Mount>>;

    /// Makes a view and gives the mounts to read it.
    ///
    /// # Errors
    /// As [`Snapshotter::prepare`].
    async fn view(&self, cx: &Context, new: NewSnapshot) -> Result<Vec<Mount>>;

    /// The mounts of an active snapshot or a view.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` for a committed one.
    async fn mounts(&self, cx: &Context, key: &SnapshotKey) -> Result<Vec<Mount>>;

    /// Commits an active snapshot.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists` if the name is taken; `FailedPrecondition` if the key is not active.
    async fn commit(&self, cx: &Context, how: CommitSnapshot) -> Result<()>;

    /// Removes a snapshot.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` if it has children.
    async fn remove(&self, cx: &Context, key: &SnapshotKey) -> Result<()>;

    /// What is known about a snapshot.
    ///
    /// # Errors
    /// `NotFound`.
    async fn stat(&self, cx: &Context, key: &SnapshotKey) -> Result<SnapshotInfo>;

    /// Sets labels: the paths `labels` and `labels.<key>`, or all labels without mask.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for another path.
    async fn update(
        &self,
        cx: &Context,
        key: &SnapshotKey,
        labels: Labels,
        mask: &FieldMask,
    ) -> Result<SnapshotInfo>;

    /// The snapshots that any of `filters` matches, in byte order of their names.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter that does not parse.
    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<SnapshotInfo>>;

    /// What a snapshot takes on disk, without its parents.
    ///
    /// # Errors
    /// `NotFound`.
    async fn usage(&self, cx: &Context, key: &SnapshotKey) -> Result<SnapshotUsage>;

    /// Removes what no record names.
    ///
    /// # Errors
    /// `Unimplemented` where the snapshotter has no such step.
    async fn cleanup(&self, cx: &Context) -> Result<()>;
}

/// The directory of one snapshot, within one driver: unique for ever, never reused.
pub type SnapshotId = u64;

/// What a driver is asked to mount.
#[derive(Clone, Debug)]
pub struct DriverSnapshot {
    /// Its directory.
    pub id: SnapshotId,
    /// What it is.
    pub kind: SnapshotKind,
    /// The directories of its parents, nearest first.
    pub parents: Vec<SnapshotId>,
    /// Its labels, for drivers that heed some.
    pub labels: Labels,
}

/// What is wrong inside a snapshot's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryFault {
    /// What, with the path.
    pub what: String,
    /// Whether [`SnapshotDriver::mend`] makes it good without loss.
    pub mendable: bool,
}

/// A built-in snapshotter: makes and removes directories by id. It keeps no table: which names there are is known to
/// the one bookkeeping module beside the metadata. Methods block and are called on the blocking pool.
pub trait SnapshotDriver: Send + Sync {
    /// The snapshotter's name, for example `overlayfs`.
    fn name(&self) -> &'static str;

    /// What it can do besides, for example `rebase`.
    fn capabilities(&self) -> Vec<String>;

    /// Its directory.
    fn root(&self) -> &std::path::Path;

    /// Makes the directory of a new snapshot (kind view or active).
    ///
    /// # Errors
    /// `ResourceExhausted` if the disk is full; nothing is left behind then.
    fn create(&self, new: &DriverSnapshot) -> Result<()>;

    /// The mounts of a view or an active snapshot.
    ///
    /// # Errors
    /// Those of the file system.
    fn mounts(&self, of: &DriverSnapshot) -> Result<Vec<Mount>>;

    /// Called before an active snapshot is recorded as committed with these parents, for whatever must be fixed up on disk
    /// (a rebase onto parents other than those it was prepared with).
    ///
    /// # Errors
    /// `Unimplemented` if it cannot rebase.
    fn commit(&self, active: &DriverSnapshot, new_parents: &[SnapshotId]) -> Result<()>;

    /// Takes the directory out of the way, quickly and so that [`SnapshotDriver::create`] never meets it; deleting its
    /// content may follow in [`SnapshotDriver::purge`]. A directory that is not there is no error.
    ///
    /// # Errors
    /// Those of the file system.
    fn retire(&self, id: SnapshotId) -> Result<()>;

    /// Deletes the content of what was retired. Slow.
    ///
    /// # Errors
    /// Those of the file system; it goes on with the rest first.
    fn purge(&self) -> Result<()>;

    /// What a snapshot takes on disk.
    ///
    /// # Errors
    /// Those of the file system.
    fn usage(&self, id: SnapshotId) -> Result<SnapshotUsage>;

    /// Every directory there is, for the search of orphans.
    ///
    /// # Errors
    /// Those of the file system.
    fn ids(&self) -> Result<Vec<SnapshotId>>;

    /// What is wrong inside the directory of a snapshot, whose parents may be left out. Nothing by default.
    ///
    /// # Errors
    /// Those of the file system.
    fn inspect(&self, of: &DriverSnapshot) -> Result<Vec<DirectoryFault>> {
        let _ = of;
        Ok(Vec::new())
    }

    /// Makes good what is mendable.
    ///
    /// # Errors
    /// Those of the file system.
    fn mend(&self, of: &DriverSnapshot) -> Result<()> {
        let _ = of;
        Ok(())
    }

    /// Makes a snapshot's data durable.
    ///
    /// # Errors
    /// Those of the file system.
    fn sync(&self, id: SnapshotId) -> Result<()>;
}
