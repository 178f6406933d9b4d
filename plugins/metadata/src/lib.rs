//! Namespaced transactional store of records; leases; garbage collection.
//!
//! [`Metadata`] opens the one database and hands out a store per noun, each an implementation of a trait of `gantry_core`:
//! [`MetadataNamespaces`], [`MetadataContainers`], [`MetadataImages`], [`MetadataLeases`], [`MetadataContent`] (a namespaced view
//! on a content store that knows no namespaces), [`MetadataSnapshotter`] (names for the directories of a
//! [`SnapshotDriver`](gantry_core::snapshots::SnapshotDriver)), [`MetadataSandboxes`] and [`MetadataMounts`]. It collects what nothing refers to any
//! more. Events are left to `plugins/services`, but for those about what a collection removed.
#![forbid(unsafe_code)]

mod check;
mod collection;
mod columns;
mod containers;
mod content;
mod content_writer;
mod database;
mod images;
mod ingests;
mod labels;
mod leases;
mod locks;
mod maintenance;
mod mounts;
mod namespaces;
mod paging;
mod rebuild;
mod recovery;
mod sandboxes;
mod scheduler;
mod schema;
mod snapshot_records;
mod snapshots;
pub mod takeover;

pub use collection::CollectionStats;
pub use containers::MetadataContainers;
pub use content::MetadataContent;
pub use database::{ContentSharing, Metadata, MetadataConfig, MetadataParts};
pub use gantry_store::{Boot, LastStop};
pub use images::MetadataImages;
pub use leases::MetadataLeases;
pub use maintenance::MetadataMaintenance;
pub use mounts::MetadataMounts;
pub use namespaces::MetadataNamespaces;
pub use recovery::{Recovery, SnapshotName};
pub use sandboxes::MetadataSandboxes;
pub use scheduler::CollectionConfig;
pub use snapshots::MetadataSnapshotter;
