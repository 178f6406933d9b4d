//! The sweep: rows that the mark did not reach are deleted, some to a transaction, each looked at again before.

use std::time::{Duration, Instant};

use gantry_core::{Error, Result};
use gantry_store::{Reading, Writing, params};

use super::changes::Recorder;
use super::mark::{Marker, Node, NodeKind, ids};
use crate::snapshot_records::number_at;

/// How many rows a transaction deletes at most, so that other writes need not wait long.
pub(crate) const MAX_BATCH: usize = 500;
/// How long a transaction deletes at most, for the same reason: a slow disk, or rows with much below them.
pub(crate) const MAX_TIME: Duration = Duration::from_millis(10);

/// What was deleted, with what is still to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    Lease,
    Image {
        namespace: String,
        name: String,
    },
    Blob {
        digest: String,
    },
    /// `expected` is a blob whose file it kept.
    Ingest {
        backend_ref: String,
        expected: Option<String>,
    },
    Snapshot {
        snapshotter: String,
        namespace: String,
        key: String,
        directory: u64,
    },
}

/// What one transaction did.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    pub(crate) removed: Vec<Removed>,
    /// Snapshots that still have children.
    pub(crate) later: Vec<Node>,
    /// How many nodes of the batch it got to: all, unless its time was over.
    pub(crate) seen: usize,
}

/// Every object that the mark did not reach: those that referred to others before those others.
pub(crate) fn candidates(db: &Reading<'_>, marker: &Marker) -> Result<Vec<Node>> {
    let mut found = Vec::new();
    for kind in [NodeKind::Lease, NodeKind::Image, NodeKind::Ingest, NodeKind::Blob, NodeKind::Snapshot] {
        let all = match kind {
            // Neighbours in the indexes by digest: those then have few pages to change in each transaction.
            NodeKind::Blob => db.all("SELECT id FROM blobs ORDER BY digest", [], |row| row.get(0))?,
            _ => ids(db, kind)?,
        };
        let dead = all.into_iter().map(|id| Node { kind, id }).filter(|node| !marker.is_alive(*node));
        let first = found.len();
        found.extend(dead);
        // Children mostly have higher ids than their parents.
        found[first..].reverse();
    }
    Ok(found)
}

/// Deletes those of `batch` that are still dead, until about `time` is over. Runs on the writer's thread. `snapshotters` are those whose directories can be
/// removed: records of others stay.
pub(crate) fn sweep(
    db: &Writing<'_>,
    marker: &mut Marker,
    recorder: &Recorder,
    batch: &[Node],
    snapshotters: &[String],
    time: Duration,
) -> Result<Swept> {
    let begun = Instant::now();
    let changes = recorder
        .since(marker.seen())
        .ok_or_else(|| Error::unavailable("too many changes during a collection: it begins anew"))?;
    marker.catch_up(db, &changes)?;
    let mut swept = Swept::default();
    for node in batch {
        // The first one always goes.
        if swept.seen > 0 && begun.elapsed() >= time {
            break;
        }
        swept.seen += 1;
        if marker.is_alive(*node) {
            continue;
        }
        if node.kind == NodeKind::Snapshot && has_children(db, node.id)? {
            swept.later.push(*node);
            continue;
        }
        let Some(removed) = removal(db, *node, snapshotters)? else { continue };
        db.execute(&format!("DELETE FROM {} WHERE id = ?1", node.kind.table()), params![node.id])?;
        swept.removed.push(removed);
    }
    Ok(swept)
}

/// What removing a dead row means; nothing if it is gone already, or stays because its directory cannot be removed.
pub(crate) fn removal(db: &Reading<'_>, node: Node, snapshotters: &[String]) -> Result<Option<Removed>> {
    let described = describe(db, node)?;
    Ok(described.filter(|removed| match removed {
        Removed::Snapshot { snapshotter, .. } => snapshotters.contains(snapshotter),
        _ => true,
    }))
}

fn has_children(db: &Reading<'_>, id: i64) -> Result<bool> {
    db.exists("SELECT 1 FROM snapshots WHERE parent = ?1 LIMIT 1", params![id])
}

fn describe(db: &Reading<'_>, node: Node) -> Result<Option<Removed>> {
    let id = params![node.id];
    match node.kind {
        NodeKind::Lease => db.one("SELECT 1 FROM leases WHERE id = ?1", id, |_| Ok(Removed::Lease)),
        NodeKind::Image => db.one("SELECT namespace, name FROM images WHERE id = ?1", id, |row| {
            Ok(Removed::Image { namespace: row.get(0)?, name: row.get(1)? })
        }),
        NodeKind::Blob => db.one("SELECT digest FROM blobs WHERE id = ?1", id, |row| {
            Ok(Removed::Blob { digest: row.get(0)? })
        }),
        NodeKind::Ingest => db.one("SELECT backend_ref, expected FROM ingests WHERE id = ?1", id, |row| {
            Ok(Removed::Ingest { backend_ref: row.get(0)?, expected: row.get(1)? })
        }),
        NodeKind::Snapshot => {
            db.one("SELECT snapshotter, namespace, key, directory FROM snapshots WHERE id = ?1", id, |row| {
                Ok(Removed::Snapshot {
                    snapshotter: row.get(0)?,
                    namespace: row.get(1)?,
                    key: row.get(2)?,
                    directory: number_at(row, 3)?,
                })
            })
        }
        NodeKind::Container | NodeKind::Sandbox => Ok(None),
    }
}
