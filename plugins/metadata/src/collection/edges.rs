//! The edges of a mark: what keeps what, by columns, lists of leases and labels.

use gantry_core::wire_names::LABEL_GC_FLAT;
use gantry_core::{Labels, Result};
use gantry_store::{Reading, params};

use super::mark::{BACK_REFERENCES, CONDITIONS, Depth, Marker, Node, NodeKind};
use super::references::{Meaning, Target, UsedAt, meaning};
use crate::labels::{self, Owner};

/// How an object was found from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// It is the image's target.
    Target,
    /// It is the container's snapshot.
    RootFilesystem,
    /// It is the snapshot's parent.
    Parent,
    /// The lease lists it.
    LeaseResource,
    /// The ingest is expected to become it.
    Expected,
    /// This label refers to it.
    Label(String),
    /// This label of its own points back.
    BackReference(String),
    /// This label of its own has a condition that holds.
    Condition(String),
}

/// An object that another one keeps.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) node: Node,
    pub(super) depth: Depth,
    pub(super) via: Via,
}

impl Found {
    fn full(kind: NodeKind, id: i64, via: Via) -> Found {
        Found { node: Node { kind, id }, depth: Depth::Full, via }
    }
}

impl Marker {
    /// Finds what `node` keeps.
    pub(super) fn expand(
        &self,
        db: &Reading<'_>,
        node: Node,
        depth: Depth,
        found: &mut Vec<Found>,
    ) -> Result<()> {
        match node.kind {
            NodeKind::Lease => return expand_lease(db, node, found),
            NodeKind::Ingest => return expand_ingest(db, node, found),
            NodeKind::Snapshot => {
                let sql = "SELECT parent FROM snapshots WHERE id = ?1 AND parent IS NOT NULL";
                let parent = db.one(sql, params![node.id], |row| row.get(0))?;
                let kept = |id| Found { depth, ..Found::full(NodeKind::Snapshot, id, Via::Parent) };
                found.extend(parent.map(kept));
            }
            NodeKind::Image => {
                let sql = "SELECT b.id FROM images i JOIN blobs b ON b.namespace = i.namespace AND b.digest = i.digest \
                           WHERE i.id = ?1";
                let target = db.one(sql, params![node.id], |row| row.get(0))?;
                let kept = |id| Found { depth, ..Found::full(NodeKind::Blob, id, Via::Target) };
                found.extend(target.map(kept));
            }
            NodeKind::Container => {
                let sql = "SELECT s.id FROM containers c JOIN snapshots s ON s.snapshotter = c.snapshotter \
                           AND s.namespace = c.namespace AND s.key = c.snapshot_key WHERE c.id = ?1";
                let root = db.one(sql, params![node.id], |row| row.get(0))?;
                found.extend(root.map(|id| Found::full(NodeKind::Snapshot, id, Via::RootFilesystem)));
            }
            NodeKind::Blob | NodeKind::Sandbox => {}
        }
        if depth == Depth::Flat {
            return Ok(());
        }
        let references: Vec<(String, Vec<Target>)> = meanings(db, node)?
            .into_iter()
            .filter_map(|(key, meaning)| match meaning {
                Meaning::References(targets) => Some((key, targets)),
                _ => None,
            })
            .collect();
        if references.is_empty() && !self.any_backwards {
            return Ok(());
        }
        let Some(namespace) = namespace_of(db, node)? else { return Ok(()) };
        find_all(db, &namespace, references, found)?;
        if self.any_backwards { self.expand_backwards(db, node, &namespace, found) } else { Ok(()) }
    }

    /// Finds those that live as long as `node` does.
    fn expand_backwards(
        &self,
        db: &Reading<'_>,
        node: Node,
        namespace: &str,
        found: &mut Vec<Found>,
    ) -> Result<()> {
        let Some(name) = target_of(db, node)? else { return Ok(()) };
        let key = match &name {
            Target::Content(key)
            | Target::Image(key)
            | Target::Container(key)
            | Target::Snapshot { key, .. } => key,
        };
        let mut owners = Vec::new();
        db.each(BACK_REFERENCES, params![key], |row| {
            let label = row.get::<String>(2)?;
            if meaning(&label, key) == Meaning::BackReference(name.clone()) {
                owners.push((row.get(0)?, row.get(1)?, Via::BackReference(label)));
            }
            Ok(())
        })?;
        if node.kind == NodeKind::Snapshot {
            let conditions = db.all(CONDITIONS, [], |row| {
                let label = row.get::<String>(2)?;
                let means = meaning(&label, &row.get::<String>(3)?);
                Ok((row.get::<i64>(0)?, row.get::<i64>(1)?, label, means))
            })?;
            for (kind, owner, label, means) in conditions {
                // Source: containerd: content and images may have conditions.
                let conditional = [Owner::Image as i64, Owner::Blob as i64].contains(&kind);
                if let Meaning::Condition { snapshot, used } = means
                    && conditional
                    && snapshot == name
                    && self.was_used(db, node, &used)?
                {
                    owners.push((kind, owner, Via::Condition(label)));
                }
            }
        }
        for (kind, id, via) in owners {
            let Some(kind) = NodeKind::of_owner(kind) else { continue };
            let owner = Found::full(kind, id, via);
            if namespace_of(db, owner.node)?.as_deref() == Some(namespace) {
                found.push(owner);
            }
        }
        Ok(())
    }

    fn was_used(&self, db: &Reading<'_>, snapshot: Node, conditions: &[UsedAt]) -> Result<bool> {
        let meanings = meanings(db, snapshot)?;
        let mut used = meanings.iter().filter_map(|(_, meaning)| match meaning {
            Meaning::UsedAt(at) => Some(*at),
            _ => None,
        });
        Ok(used.any(|at| conditions.iter().any(|condition| condition.holds(at, self.now()))))
    }
}

/// What the labels of an object mean, with their keys.
pub(super) fn meanings(db: &Reading<'_>, node: Node) -> Result<Vec<(String, Meaning)>> {
    let Some(owner) = node.kind.owner() else { return Ok(Vec::new()) };
    let sql = "SELECT key, value FROM labels WHERE kind = ?1 AND owner = ?2 \
               AND key >= 'containerd.io/gc.' AND key < 'containerd.io/gc/'";
    db.all(sql, params![owner as i64, node.id], |row| {
        let key = row.get::<String>(0)?;
        let means = meaning(&key, &row.get::<String>(1)?);
        Ok((key, means))
    })
}

/// Finds what labels refer to.
fn find_all(
    db: &Reading<'_>,
    namespace: &str,
    references: Vec<(String, Vec<Target>)>,
    found: &mut Vec<Found>,
) -> Result<()> {
    for (key, targets) in references {
        for target in targets {
            if let Some(node) = find(db, namespace, &target)? {
                found.push(Found { node, depth: Depth::Full, via: Via::Label(key.clone()) });
            }
        }
    }
    Ok(())
}

pub(super) fn namespace_of(db: &Reading<'_>, node: Node) -> Result<Option<String>> {
    db.one(&format!("SELECT namespace FROM {} WHERE id = ?1", node.kind.table()), params![node.id], |row| {
        row.get(0)
    })
}

/// The name by which labels speak of an object.
fn target_of(db: &Reading<'_>, node: Node) -> Result<Option<Target>> {
    match node.kind {
        NodeKind::Blob => db.one("SELECT digest FROM blobs WHERE id = ?1", params![node.id], |row| {
            Ok(Target::Content(row.get(0)?))
        }),
        NodeKind::Image => db.one("SELECT name FROM images WHERE id = ?1", params![node.id], |row| {
            Ok(Target::Image(row.get(0)?))
        }),
        NodeKind::Container => db.one("SELECT name FROM containers WHERE id = ?1", params![node.id], |row| {
            Ok(Target::Container(row.get(0)?))
        }),
        NodeKind::Snapshot => {
            db.one("SELECT snapshotter, key FROM snapshots WHERE id = ?1", params![node.id], |row| {
                Ok(Target::Snapshot { snapshotter: row.get(0)?, key: row.get(1)? })
            })
        }
        NodeKind::Lease | NodeKind::Sandbox | NodeKind::Ingest => Ok(None),
    }
}

/// The object of that name, if there is one.
pub(super) fn find(db: &Reading<'_>, namespace: &str, target: &Target) -> Result<Option<Node>> {
    let (kind, id) = match target {
        Target::Content(digest) => {
            let sql = "SELECT id FROM blobs WHERE namespace = ?1 AND digest = ?2";
            (NodeKind::Blob, db.one(sql, params![namespace, digest], |row| row.get(0))?)
        }
        Target::Image(name) => {
            let sql = "SELECT id FROM images WHERE namespace = ?1 AND name = ?2";
            (NodeKind::Image, db.one(sql, params![namespace, name], |row| row.get(0))?)
        }
        Target::Container(name) => {
            let sql = "SELECT id FROM containers WHERE namespace = ?1 AND name = ?2";
            (NodeKind::Container, db.one(sql, params![namespace, name], |row| row.get(0))?)
        }
        Target::Snapshot { snapshotter, key } => {
            let sql = "SELECT id FROM snapshots WHERE snapshotter = ?1 AND namespace = ?2 AND key = ?3";
            (NodeKind::Snapshot, db.one(sql, params![snapshotter, namespace, key], |row| row.get(0))?)
        }
    };
    Ok(id.map(|id| Node { kind, id }))
}

fn expand_ingest(db: &Reading<'_>, node: Node, found: &mut Vec<Found>) -> Result<()> {
    let sql = "SELECT b.id FROM ingests i JOIN blobs b ON b.namespace = i.namespace AND b.digest = i.expected \
               WHERE i.id = ?1";
    let expected = db.one(sql, params![node.id], |row| row.get(0))?;
    found.extend(expected.map(|id| Found::full(NodeKind::Blob, id, Via::Expected)));
    Ok(())
}

fn expand_lease(db: &Reading<'_>, node: Node, found: &mut Vec<Found>) -> Result<()> {
    let Some(namespace) = namespace_of(db, node)? else { return Ok(()) };
    let labels: Labels = labels::load(db, Owner::Lease, node.id)?;
    let depth = if labels.contains_key(LABEL_GC_FLAT) { Depth::Flat } else { Depth::Full };
    let references = labels.into_iter().filter_map(|(key, value)| match meaning(&key, &value) {
        Meaning::References(targets) => Some((key, targets)),
        _ => None,
    });
    find_all(db, &namespace, references.collect(), found)?;
    let sql = "SELECT kind, name FROM lease_resources WHERE lease = ?1";
    let resources: Vec<(String, String)> =
        db.all(sql, params![node.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (kind, name) in resources {
        let resource = match kind.as_str() {
            "content" => find(db, &namespace, &Target::Content(name))?,
            "images" => find(db, &namespace, &Target::Image(name))?,
            "ingests" => {
                let sql = "SELECT id FROM ingests WHERE namespace = ?1 AND ref = ?2";
                let id = db.one(sql, params![namespace, name], |row| row.get(0))?;
                id.map(|id| Node { kind: NodeKind::Ingest, id })
            }
            other => match other.strip_prefix("snapshots/") {
                Some(snapshotter) => find(
                    db,
                    &namespace,
                    &Target::Snapshot { snapshotter: snapshotter.to_owned(), key: name },
                )?,
                None => None,
            },
        };
        found.extend(resource.map(|node| Found { node, depth, via: Via::LeaseResource }));
    }
    Ok(())
}
