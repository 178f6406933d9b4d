//! Read-only reader of bbolt files, the databases of containerd and its snapshotters.
//!
//! A [`Database`] is opened with a shared lock, so that neither a living containerd's file is read nor can one start while it is
//! read. [`Database::root`] looks through the whole tree first: whatever a damaged or hostile file holds, the work is bounded by
//! its length, every offset is checked, and what is wrong is said with file and page. The file is read piece by piece, never
//! mapped: one that is cut short while it is read is an error, not a signal.
//!
//! What the buckets mean is left to the caller. The first type to read is [`Database`].
#![forbid(unsafe_code)]

mod bucket;
mod database;
mod lock;
mod meta;
mod page;
mod verify;

pub use bucket::{Bucket, Entries, Item};
pub use database::{Database, Locked};
