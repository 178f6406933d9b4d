//! Looking after a store: who keeps an object, what the next collection would free, and whether records and data agree.
//!
//! A collection keeps its *roots* (images, containers, sandboxes, leases, what a label says) and whatever is reached from them
//! over *edges*. [`Maintenance::explain`] follows the edges back: each [`Chain`] leads from the object over its holders to one
//! root. [`Maintenance::preview`] lists what nothing reaches. [`Maintenance::check`] compares records with files, and repairs
//! what can be repaired without loss; its findings are in [`check`].

pub mod check;

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use self::check::{CheckEvent, CheckOptions};
use crate::{Context, Error, ItemStream, Result};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A blob; its name is its digest.
    Content,
    /// An image.
    Image,
    /// A container's record.
    Container,
    /// A snapshot; its name is its key.
    Snapshot,
    /// A lease.
    Lease,
    /// A write in progress; its name is its ref.
    Ingest,
    /// A sandbox's record.
    Sandbox,
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [ObjectKind; 7] = [
        ObjectKind::Content,
        ObjectKind::Image,
        ObjectKind::Container,
        ObjectKind::Snapshot,
        ObjectKind::Lease,
        ObjectKind::Ingest,
        ObjectKind::Sandbox,
    ];

    /// Its word, for example `content`.
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectKind::Content => "content",
            ObjectKind::Image => "image",
            ObjectKind::Container => "container",
            ObjectKind::Snapshot => "snapshot",
            ObjectKind::Lease => "lease",
            ObjectKind::Ingest => "ingest",
            ObjectKind::Sandbox => "sandbox",
        }
    }

    /// The kind of this word.
    ///
    /// # Errors
    /// `InvalidArgument` for any other word.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Error::invalid_argument(format!("object kind {text:?}: one of {known}"))
        })
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// What it is.
    pub kind: ObjectKind,
    /// Whose it is; empty for a file or directory that no namespace has.
    pub namespace: String,
    /// The snapshotter of a snapshot; empty for anything else.
    pub snapshotter: String,
    /// Its name, key, ref or digest.
    pub name: String,
}

impl fmt::Display for ObjectName {
    /// `snapshot web (overlayfs)`, `image docker.io/library/busybox:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name may hold anything: a line stays a line.
        write!(f, "{} {}", self.kind, self.name.escape_debug())?;
        if self.snapshotter.is_empty() { Ok(()) } else { write!(f, " ({})", self.snapshotter.escape_debug()) }
    }
}

/// How a holder keeps what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The image's target.
    Target,
    /// The container's snapshot.
    RootFilesystem,
    /// The parent of the holder, a snapshot.
    Parent,
    /// The lease lists it.
    LeaseResource,
    /// The write is expected to become this blob.
    Expected,
    /// This label of the holder refers to it.
    Label(String),
    /// This label of what is held points back at the holder.
    BackReference(String),
    /// This label of what is held names the holder, a snapshot, with a condition that it fulfils.
    Condition(String),
}

/// Why a root is kept by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootReason {
    /// Every image is a root, until it expires.
    Image,
    /// Every container is a root.
    Container,
    /// Every sandbox is a root.
    Sandbox,
    /// Every lease is a root, until it expires; at this time, if it has one.
    Lease(Option<SystemTime>),
    /// It has this label, `containerd.io/gc.root`.
    Label(String),
    /// Its label `containerd.io/gc.expire` keeps it until then.
    Unexpired(SystemTime),
    /// A write in progress is kept until then.
    Ingest(Option<SystemTime>),
}

/// One step of a chain: an object, and how it keeps the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The holder.
    pub object: ObjectName,
    /// How it holds the object before it in the chain.
    pub edge: Edge,
}

/// A way from an object to a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The holders, nearest first; the last one is the root. None if the object itself is the root.
    pub holders: Vec<Holder>,
    /// How many holders in the middle of a very long chain are left out, behind the first half of those given.
    pub omitted: u64,
    /// Why the root is one.
    pub root: RootReason,
}

/// What the next collection does with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is kept: by itself or by others, see the chains.
    Kept,
    /// Nothing keeps it, and it goes.
    Collected,
    /// Nothing keeps it, but it stays for this reason.
    Stays(String),
}

/// Who keeps an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The object.
    pub object: ObjectName,
    /// What the next collection does with it.
    pub fate: Fate,
    /// Ways to roots, shortest first: at least one for each direct holder and each root, as far as there is room.
    pub chains: Vec<Chain>,
    /// How many more direct holders and roots there are.
    pub more: u64,
    /// When its own label `containerd.io/gc.expire` ended what it was a root by, if it did.
    pub expired: Option<SystemTime>,
}

/// Why something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doom {
    /// Nothing refers to it.
    Unreferenced,
    /// It has expired.
    Expired,
    /// A file or directory whose record is gone already.
    NoRecord,
}

impl Doom {
    /// Its word: `unreferenced`, `expired` or `no record`.
    pub fn as_str(self) -> &'static str {
        match self {
            Doom::Unreferenced => "unreferenced",
            Doom::Expired => "expired",
            Doom::NoRecord => "no record",
        }
    }
}

/// Something that the next collection would take away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// The object.
    pub object: ObjectName,
    /// Why it goes.
    pub why: Doom,
    /// What it takes on disk, in bytes; none if it takes nothing or that cannot be told.
    pub size_bytes: Option<u64>,
    /// What would be free afterwards, in bytes: nothing for a blob that is kept elsewhere or listed before. Adding these up
    /// gives the whole.
    pub freed_bytes: u64,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// How long it took to find and remove the records.
    pub elapsed: Duration,
    /// Expired leases that were removed.
    pub leases: u64,
    /// Expired images that were removed.
    pub images: u64,
    /// Blobs that were removed from a namespace.
    pub blobs: u64,
    /// Writes in progress that were removed.
    pub ingests: u64,
    /// Snapshots that were removed.
    pub snapshots: u64,
}

/// Looks after a store.
#[async_trait]
pub trait Maintenance: Send + Sync {
    /// Who keeps `object`, whose namespace is the context's. Says what a collection would do if it began now.
    ///
    /// # Errors
    /// `NotFound` if there is no such object; `InvalidArgument` for a snapshot without snapshotter; `ResourceExhausted` if there
    /// are more references than can be held in memory.
    async fn explain(&self, cx: &Context, object: &ObjectName) -> Result<Explanation>;

    /// What the next collection would take away: in the context's namespace, or in all without one.
    ///
    /// # Errors
    /// Those of the store.
    async fn preview(&self, cx: &Context) -> Result<ItemStream<Doomed>>;

    /// Collects garbage, and returns when that is done.
    ///
    /// # Errors
    /// Those of the store.
    async fn collect(&self, cx: &Context) -> Result<Collected>;

    /// Compares records and data, in all namespaces. The last item is the summary. Dropping the stream ends the check at the
    /// next safe point; repairs that are done stay done.
    ///
    /// # Errors
    /// `Unavailable` while another check is under way.
    async fn check(&self, cx: &Context, options: CheckOptions) -> Result<ItemStream<CheckEvent>>;
}
