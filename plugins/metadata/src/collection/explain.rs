//! Who keeps an object, by the very mark that a collection makes.

use gantry_core::maintenance::{Chain, Edge, Explanation, Fate, Holder, ObjectKind, ObjectName, RootReason};
use gantry_core::{Error, Result};
use gantry_store::{Reading, params};

use super::edges::{Found, Via, meanings};
use super::mark::{Depth, Marker, Node, NodeKind};
use super::references::Meaning;
use super::sweep;

/// So many chains are told at most.
const MAX_CHAINS: usize = 32;

/// A chain longer than twice this is told without its middle.
const HALF_CHAIN: usize = 32;

impl NodeKind {
    fn of_object(kind: ObjectKind) -> NodeKind {
        match kind {
            ObjectKind::Content => NodeKind::Blob,
            ObjectKind::Image => NodeKind::Image,
            ObjectKind::Container => NodeKind::Container,
            ObjectKind::Snapshot => NodeKind::Snapshot,
            ObjectKind::Lease => NodeKind::Lease,
            ObjectKind::Ingest => NodeKind::Ingest,
            ObjectKind::Sandbox => NodeKind::Sandbox,
        }
    }

    fn object(self) -> ObjectKind {
        match self {
            NodeKind::Blob => ObjectKind::Content,
            NodeKind::Image => ObjectKind::Image,
            NodeKind::Container => ObjectKind::Container,
            NodeKind::Snapshot => ObjectKind::Snapshot,
            NodeKind::Lease => ObjectKind::Lease,
            NodeKind::Ingest => ObjectKind::Ingest,
            NodeKind::Sandbox => ObjectKind::Sandbox,
        }
    }

    /// The column that names an object within its namespace.
    fn name_column(self) -> &'static str {
        match self {
            NodeKind::Blob => "digest",
            NodeKind::Snapshot => "key",
            NodeKind::Ingest => "ref",
            _ => "name",
        }
    }
}

/// The name of a row, if it is there.
pub(crate) fn name_of(db: &Reading<'_>, node: Node) -> Result<Option<ObjectName>> {
    let snapshotter = if node.kind == NodeKind::Snapshot { "snapshotter" } else { "''" };
    let (name, table) = (node.kind.name_column(), node.kind.table());
    let sql = format!("SELECT namespace, {snapshotter}, {name} FROM {table} WHERE id = ?1");
    db.one(&sql, params![node.id], |row| {
        let (namespace, snapshotter, name) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(ObjectName { kind: node.kind.object(), namespace, snapshotter, name })
    })
}

fn find_named(db: &Reading<'_>, object: &ObjectName) -> Result<Node> {
    let kind = NodeKind::of_object(object.kind);
    let (name, table) = (kind.name_column(), kind.table());
    let sql = format!("SELECT id FROM {table} WHERE namespace = ?1 AND {name} = ?2");
    let id = if kind == NodeKind::Snapshot {
        if object.snapshotter.is_empty() {
            return Err(Error::invalid_argument(format!("{object}: which snapshotter's is missing")));
        }
        let sql = format!("{sql} AND snapshotter = ?3");
        db.one(&sql, params![object.namespace, object.name, object.snapshotter], |row| row.get(0))?
    } else {
        db.one(&sql, params![object.namespace, object.name], |row| row.get(0))?
    };
    let id = id.ok_or_else(|| Error::not_found(object.to_string()))?;
    Ok(Node { kind, id })
}

/// Explains one object. `marker` has marked every root, and remembers.
pub(crate) fn explain(
    db: &Reading<'_>,
    marker: &Marker,
    object: &ObjectName,
    snapshotters: &[String],
) -> Result<Explanation> {
    let node = find_named(db, object)?;
    let mut explanation =
        Explanation { object: object.clone(), fate: Fate::Kept, chains: Vec::new(), more: 0, expired: None };
    if marker.has_expired(node) {
        explanation.expired = expiry(db, node)?;
    }
    if !marker.is_alive(node) {
        explanation.fate = fate_of_dead(db, node, snapshotters)?;
        return Ok(explanation);
    }
    let ways = marker.trace().map(|trace| trace.ways(node, MAX_CHAINS)).unwrap_or_default();
    explanation.more = ways.more;
    for way in ways.shown {
        explanation.chains.extend(chain(db, marker, node, &way)?);
    }
    Ok(explanation)
}

/// Images that need any of these objects, `most` at most. `marker` has marked every root, and remembers.
pub(crate) fn images_that_need(
    db: &Reading<'_>,
    marker: &Marker,
    objects: &[Node],
    most: usize,
) -> Result<Vec<ObjectName>> {
    let Some(trace) = marker.trace() else { return Ok(Vec::new()) };
    let images = trace.keepers(objects, |node| node.kind == NodeKind::Image, most);
    let names: Vec<Option<ObjectName>> =
        images.into_iter().map(|image| name_of(db, image)).collect::<Result<_>>()?;
    Ok(names.into_iter().flatten().collect())
}

fn fate_of_dead(db: &Reading<'_>, node: Node, snapshotters: &[String]) -> Result<Fate> {
    if sweep::removal(db, node, snapshotters)?.is_some() {
        return Ok(Fate::Collected);
    }
    Ok(Fate::Stays(match node.kind {
        NodeKind::Snapshot => "its snapshotter is not loaded, so its directory cannot be removed".to_owned(),
        _ => "collections do not remove such records".to_owned(),
    }))
}

/// The chain over `way`; nothing if a part of it cannot be named any more.
fn chain(db: &Reading<'_>, marker: &Marker, object: Node, way: &[Node]) -> Result<Option<Chain>> {
    let omitted = way.len().saturating_sub(2 * HALF_CHAIN);
    let mut holders = Vec::new();
    let mut held = object;
    for (index, holder) in way.iter().enumerate() {
        let hidden = omitted > 0 && (HALF_CHAIN..HALF_CHAIN + omitted).contains(&index);
        if !hidden {
            let Some(edge) = edge(db, marker, *holder, held)? else { return Ok(None) };
            let Some(name) = name_of(db, *holder)? else { return Ok(None) };
            holders.push(Holder { object: name, edge });
        }
        held = *holder;
    }
    let root = root_reason(db, marker, held)?;
    Ok(root.map(|root| Chain { holders, omitted: omitted as u64, root }))
}

/// How `holder` keeps `held`.
fn edge(db: &Reading<'_>, marker: &Marker, holder: Node, held: Node) -> Result<Option<Edge>> {
    let mut found: Vec<Found> = Vec::new();
    marker.expand(db, holder, Depth::Full, &mut found)?;
    let via = found.into_iter().find(|found| found.node == held).map(|found| found.via);
    Ok(via.map(|via| match via {
        Via::Target => Edge::Target,
        Via::RootFilesystem => Edge::RootFilesystem,
        Via::Parent => Edge::Parent,
        Via::LeaseResource => Edge::LeaseResource,
        Via::Expected => Edge::Expected,
        Via::Label(key) => Edge::Label(key),
        Via::BackReference(key) => Edge::BackReference(key),
        Via::Condition(key) => Edge::Condition(key),
    }))
}

fn expiry(db: &Reading<'_>, node: Node) -> Result<Option<std::time::SystemTime>> {
    let found = meanings(db, node)?.into_iter().find_map(|(_, meaning)| match meaning {
        Meaning::Expires(at) => Some(at),
        _ => None,
    });
    Ok(found)
}

fn root_reason(db: &Reading<'_>, marker: &Marker, root: Node) -> Result<Option<RootReason>> {
    Ok(match root.kind {
        NodeKind::Image => Some(RootReason::Image),
        NodeKind::Container => Some(RootReason::Container),
        NodeKind::Sandbox => Some(RootReason::Sandbox),
        NodeKind::Lease => Some(RootReason::Lease(expiry(db, root)?)),
        NodeKind::Ingest => {
            let sql = "SELECT expires FROM ingests WHERE id = ?1";
            let seconds = db.one(sql, params![root.id], |row| row.get::<Option<i64>>(0))?.flatten();
            let at = seconds.and_then(|seconds| gantry_core::time::from_parts(seconds, 0));
            Some(RootReason::Ingest(at))
        }
        NodeKind::Blob | NodeKind::Snapshot => {
            let mut until = None;
            for (key, meaning) in meanings(db, root)? {
                match meaning {
                    Meaning::Root => return Ok(Some(RootReason::Label(key))),
                    Meaning::Expires(at) if at >= marker.now() => until = Some(RootReason::Unexpired(at)),
                    _ => {}
                }
            }
            until
        }
    })
}
