//! What the writer did while a collection is under way: the references that its mark may have missed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::mark::{Node, NodeKind};

/// More changes than this during one collection end it; it begins anew.
const MAX_CHANGES: usize = 200_000;

/// A row that was inserted or updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    /// This object, its labels included.
    Object(Node),
    /// A row of `lease_resources`, by id.
    LeaseResource(i64),
}

/// Notes changes between start and stop. The writer tells it about every row, also about rows that are rolled back later, which
/// keeps something a little longer at worst.
#[derive(Default)]
pub(crate) struct Recorder {
    on: AtomicBool,
    changes: Mutex<Vec<Change>>,
}

impl Recorder {
    /// Begins to note. Called on the writer's thread, so that whatever it ran before is committed, and visible to a read, once the
    /// call is answered.
    pub(crate) fn start(&self) {
        self.changes().clear();
        self.on.store(true, Ordering::SeqCst);
    }

    /// Ends noting and forgets.
    pub(crate) fn stop(&self) {
        self.on.store(false, Ordering::SeqCst);
        *self.changes() = Vec::new();
    }

    /// Told by the writer about a row.
    pub(crate) fn row_changed(&self, table: &str, row: i64) {
        if !self.on.load(Ordering::SeqCst) {
            return;
        }
        let object = |kind| Change::Object(Node { kind, id: row });
        let change = match table {
            "containers" => object(NodeKind::Container),
            "images" => object(NodeKind::Image),
            "blobs" => object(NodeKind::Blob),
            "snapshots" => object(NodeKind::Snapshot),
            "leases" => object(NodeKind::Lease),
            "sandboxes" => object(NodeKind::Sandbox),
            "ingests" => object(NodeKind::Ingest),
            "lease_resources" => Change::LeaseResource(row),
            _ => return,
        };
        let mut changes = self.changes();
        if changes.len() <= MAX_CHANGES && changes.last() != Some(&change) {
            changes.push(change);
        }
    }

    /// What was noted since `seen` changes; nothing at all if there were too many to keep.
    pub(crate) fn since(&self, seen: usize) -> Option<Vec<Change>> {
        let changes = self.changes();
        (changes.len() <= MAX_CHANGES).then(|| changes.get(seen..).unwrap_or_default().to_vec())
    }

    fn changes(&self) -> std::sync::MutexGuard<'_, Vec<Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
