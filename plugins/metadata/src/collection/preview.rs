//! What the next collection would take away, found by the collection's own mark and the sweep's own rules.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{StreamExt, TryStreamExt, stream};
use gantry_core::maintenance::{Doom, Doomed, ObjectKind, ObjectName};
use gantry_core::{Context, Digest, IngestRef, ItemStream, Result};
use gantry_store::{Reading, params};

use super::explain::name_of;
use super::mark::{Marker, Node, NodeKind};
use super::sweep::{self, Removed};
use crate::columns::length_at;
use crate::database::Inner;

/// So many rows are looked at in one read.
const PAGE: usize = 256;

/// What the mark did not reach; whether it would be a root, had it not expired.
type Dead = HashMap<Node, bool>;

/// A dead row with what is known of it without looking at files.
struct DeadRow {
    object: ObjectName,
    why: Doom,
    removed: Removed,
    /// As recorded.
    size_bytes: Option<u64>,
    /// Whether nobody else uses the same file.
    frees: bool,
}

impl Inner {
    /// What a collection that began now would remove: in `namespace`, or in all.
    pub(crate) async fn preview(self: &Arc<Self>, namespace: Option<String>) -> Result<ItemStream<Doomed>> {
        let alone = self.questions.lock().await;
        let read = |db: &Reading<'_>| {
            let mut marker = Marker::new(SystemTime::now());
            marker.mark_roots(db)?;
            let order = sweep::candidates(db, &marker)?;
            let dead: Dead = order.iter().map(|node| (*node, marker.has_expired(*node))).collect();
            Ok((order, dead))
        };
        let (order, dead) = self.store.read(read).await?;
        drop(alone);
        let dead = Arc::new(dead);
        let pages: Vec<Vec<Node>> = order.chunks(PAGE).map(<[Node]>::to_vec).collect();
        let (inner, of_rows) = (Arc::clone(self), namespace.clone());
        let of_dead = Arc::clone(&dead);
        let rows = stream::iter(pages).then(move |page| {
            let (inner, dead, namespace) = (Arc::clone(&inner), Arc::clone(&of_dead), of_rows.clone());
            async move { inner.doomed_rows(page, dead, namespace).await }
        });
        // Files whose records are gone already belong to nobody.
        let (inner, known_dead) = (Arc::clone(self), Arc::clone(&dead));
        let files = stream::once(async move {
            if namespace.is_none() { inner.doomed_files(known_dead).await } else { Ok(Vec::new()) }
        });
        let all = rows.chain(files).map_ok(|page| stream::iter(page.into_iter().map(Ok))).try_flatten();
        Ok(all.boxed())
    }

    async fn doomed_rows(
        &self,
        page: Vec<Node>,
        dead: Arc<Dead>,
        namespace: Option<String>,
    ) -> Result<Vec<Doomed>> {
        let snapshotters: Vec<String> = self.drivers.keys().cloned().collect();
        let read = move |db: &Reading<'_>| {
            let mut rows = Vec::new();
            for node in page {
                rows.extend(dead_row(db, node, &dead, &snapshotters, namespace.as_deref())?);
            }
            Ok(rows)
        };
        let mut doomed = Vec::new();
        for row in self.store.read(read).await? {
            let size_bytes = match (&row.removed, row.size_bytes) {
                (_, Some(known)) => Some(known),
                (Removed::Ingest { backend_ref, .. }, None) => self.ingest_size(backend_ref).await,
                (Removed::Snapshot { snapshotter, directory, .. }, None) => {
                    self.directory_size(snapshotter, *directory).await
                }
                _ => None,
            };
            let freed_bytes = size_bytes.filter(|_| row.frees).unwrap_or(0);
            doomed.push(Doomed { object: row.object, why: row.why, size_bytes, freed_bytes });
        }
        Ok(doomed)
    }

    async fn ingest_size(&self, backend_ref: &str) -> Option<u64> {
        let reference = IngestRef::parse(backend_ref).ok()?;
        Some(self.content.status(&Context::background(), &reference).await.ok()?.offset_bytes)
    }

    async fn directory_size(&self, snapshotter: &str, directory: u64) -> Option<u64> {
        let driver = Arc::clone(self.drivers.get(snapshotter)?);
        Some(self.blocking(move || driver.usage(directory)).await.ok()?.size_bytes)
    }

    async fn blob_size(&self, digest: &str) -> Option<u64> {
        let digest = Digest::parse(digest).ok()?;
        Some(self.content.info(&Context::background(), &digest).await.ok()?.size_bytes)
    }

    /// Files and directories without record that the next collection removes.
    async fn doomed_files(&self, dead: Arc<Dead>) -> Result<Vec<Doomed>> {
        let known = self.garbage.known();
        let (mut blobs, mut ingests) = (BTreeSet::new(), BTreeSet::new());
        if known.all_content {
            self.find_content_without_record(&mut blobs, &mut ingests).await?;
        }
        // With a write goes the file that it alone kept.
        let going = Arc::clone(&dead);
        let kept_by_dead = move |db: &Reading<'_>| {
            let sql = "SELECT id, expected FROM ingests WHERE expected IS NOT NULL";
            let all = db.all(sql, [], |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?)))?;
            let dead = all.into_iter().filter(|(id, _)| is_dead(&going, NodeKind::Ingest, *id));
            Ok(dead.map(|(_, digest)| digest).collect::<Vec<_>>())
        };
        let named = known.blobs.into_iter().chain(self.store.read(kept_by_dead).await?).collect();
        blobs.extend(self.without_record("blobs", "digest", named).await?);
        let named = known.ingests.into_iter().collect();
        ingests.extend(self.without_record("ingests", "backend_ref", named).await?);
        let mut doomed = Vec::new();
        let mut add = |kind, snapshotter: String, name: String, size: Option<u64>| {
            // What is not there any more takes no room.
            let Some(size) = size else { return };
            doomed.push(Doomed {
                object: ObjectName { kind, namespace: String::new(), snapshotter, name },
                why: Doom::NoRecord,
                size_bytes: Some(size),
                freed_bytes: size,
            });
        };
        for digest in blobs {
            if !self.is_expected_by_others(&digest, &dead).await? {
                let size = self.blob_size(&digest).await;
                add(ObjectKind::Content, String::new(), digest, size);
            }
        }
        for backend_ref in ingests {
            let size = self.ingest_size(&backend_ref).await;
            add(ObjectKind::Ingest, String::new(), backend_ref, size);
        }
        for (snapshotter, directory) in known.directories {
            let size = self.directory_size(&snapshotter, directory).await;
            add(ObjectKind::Snapshot, snapshotter, directory.to_string(), size);
        }
        Ok(doomed)
    }

    /// Whether a write in progress that stays may become this blob without any data.
    async fn is_expected_by_others(&self, digest: &str, dead: &Arc<Dead>) -> Result<bool> {
        let (wanted, dead) = (digest.to_owned(), Arc::clone(dead));
        let read = move |db: &Reading<'_>| {
            let sql = "SELECT id FROM ingests WHERE expected = ?1";
            let ids: Vec<i64> = db.all(sql, params![wanted], |row| row.get(0))?;
            Ok(ids.into_iter().any(|id| !is_dead(&dead, NodeKind::Ingest, id)))
        };
        self.store.read(read).await
    }

    /// Whether a write in progress may become this blob without any data.
    pub(crate) async fn is_expected(&self, digest: &str) -> Result<bool> {
        let wanted = digest.to_owned();
        let read = move |db: &Reading<'_>| {
            db.exists("SELECT 1 FROM ingests WHERE expected = ?1 LIMIT 1", params![wanted])
        };
        self.store.read(read).await
    }
}

fn is_dead(dead: &Dead, kind: NodeKind, id: i64) -> bool {
    dead.contains_key(&Node { kind, id })
}

fn dead_row(
    db: &Reading<'_>,
    node: Node,
    dead: &Dead,
    snapshotters: &[String],
    namespace: Option<&str>,
) -> Result<Option<DeadRow>> {
    let Some(object) = name_of(db, node)? else { return Ok(None) };
    if namespace.is_some_and(|namespace| namespace != object.namespace) {
        return Ok(None);
    }
    let Some(removed) = sweep::removal(db, node, snapshotters)? else { return Ok(None) };
    let mortal = matches!(node.kind, NodeKind::Lease | NodeKind::Image);
    let expired = mortal && dead.get(&node).copied().unwrap_or(false);
    let why = if expired || node.kind == NodeKind::Ingest { Doom::Expired } else { Doom::Unreferenced };
    let (size_bytes, frees) = match node.kind {
        NodeKind::Blob => {
            let size =
                db.one("SELECT size FROM blobs WHERE id = ?1", params![node.id], |row| length_at(row, 0))?;
            (size, is_last_of_digest(db, node, dead, namespace)?)
        }
        NodeKind::Snapshot => {
            let sql = "SELECT used_bytes FROM snapshots WHERE id = ?1 AND used_bytes IS NOT NULL";
            (db.one(sql, params![node.id], |row| length_at(row, 0))?, true)
        }
        _ => (None, true),
    };
    Ok(Some(DeadRow { object, why, removed, size_bytes, frees }))
}

/// Whether the blob's file goes too, and this is the one of its records that is to tell so.
fn is_last_of_digest(db: &Reading<'_>, node: Node, dead: &Dead, namespace: Option<&str>) -> Result<bool> {
    let gone = |kind, ids: Vec<i64>| ids.into_iter().all(|id| is_dead(dead, kind, id));
    let sql = "SELECT id FROM blobs WHERE digest = (SELECT digest FROM blobs WHERE id = ?1) ORDER BY id";
    let records: Vec<i64> = db.all(sql, params![node.id], |row| row.get(0))?;
    if namespace.is_none() && records.first() != Some(&node.id) {
        return Ok(false);
    }
    let sql = "SELECT id FROM ingests WHERE expected = (SELECT digest FROM blobs WHERE id = ?1)";
    let ingests = db.all(sql, params![node.id], |row| row.get(0))?;
    Ok(gone(NodeKind::Blob, records) && gone(NodeKind::Ingest, ingests))
}
