//! The mark: what is alive, found from the roots over references.
//!
//! It begins on a snapshot of the database and is brought up to date by the writer before each sweep: an object that was changed
//! since is kept, and what it refers to now is marked too. Nothing that was marked is unmarked, so what dies while the
//! collection runs is left to the next one.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use gantry_core::wire_names::LABEL_GC_FLAT;
use gantry_core::{Labels, Result};
use gantry_store::{Reading, params};

use super::changes::Change;
use super::references::{Meaning, Target, UsedAt, meaning};
use crate::labels::{self, Owner};

// The conditions in these statements are those of the partial indexes, to the letter: else SQLite would read every label.

/// Labels that make their owner a root, or end it.
pub(super) const ROOT_LABELS: &str = "SELECT kind, owner, key, value FROM labels WHERE (key = 'containerd.io/gc.expire' OR \
     (key >= 'containerd.io/gc.root' AND key < 'containerd.io/gc.roou'))";

/// Labels that may point back at the object named so.
pub(super) const BACK_REFERENCES: &str = "SELECT kind, owner, key FROM labels WHERE value = ?1 \
     AND (key >= 'containerd.io/gc.bref.' AND key < 'containerd.io/gc.bref/')";

/// Labels with conditions on a snapshot, and when snapshots were used.
pub(super) const CONDITIONS: &str = "SELECT kind, owner, key, value FROM labels \
     WHERE (key >= 'containerd.io/gc.cond.' AND key < 'containerd.io/gc.cond/')";

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum NodeKind {
    Container,
    Image,
    Blob,
    Snapshot,
    Lease,
    Sandbox,
    Ingest,
}

impl NodeKind {
    pub(crate) fn table(self) -> &'static str {
        match self {
            NodeKind::Container => "containers",
            NodeKind::Image => "images",
            NodeKind::Blob => "blobs",
            NodeKind::Snapshot => "snapshots",
            NodeKind::Lease => "leases",
            NodeKind::Sandbox => "sandboxes",
            NodeKind::Ingest => "ingests",
        }
    }

    fn owner(self) -> Option<Owner> {
        Some(match self {
            NodeKind::Container => Owner::Container,
            NodeKind::Image => Owner::Image,
            NodeKind::Blob => Owner::Blob,
            NodeKind::Snapshot => Owner::Snapshot,
            NodeKind::Lease => Owner::Lease,
            NodeKind::Sandbox => Owner::Sandbox,
            NodeKind::Ingest => return None,
        })
    }

    pub(super) fn of_owner(number: i64) -> Option<NodeKind> {
        Some(match Owner::from_number(number)? {
            Owner::Container => NodeKind::Container,
            Owner::Image => NodeKind::Image,
            Owner::Blob => NodeKind::Blob,
            Owner::Snapshot => NodeKind::Snapshot,
            Owner::Lease => NodeKind::Lease,
            Owner::Sandbox => NodeKind::Sandbox,
            Owner::Namespace | Owner::Mount => return None,
        })
    }
}

/// One object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    pub(crate) id: i64,
}

/// How much of an object is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Depth {
    /// The object, and the parents of a snapshot: what a flat lease keeps.
    Flat,
    /// Whatever it refers to as well.
    Full,
}

/// What is known to be alive.
pub(crate) struct Marker {
    now: SystemTime,
    alive: HashMap<Node, Depth>,
    /// Whether anything points back or has a condition; mostly nothing does, and need not be looked for.
    any_backwards: bool,
    /// How many of the recorder's changes were looked at.
    seen: usize,
}

impl Marker {
    pub(crate) fn new(now: SystemTime) -> Self {
        Marker { now, alive: HashMap::new(), any_backwards: false, seen: 0 }
    }

    /// Whether `node` is kept.
    pub(crate) fn is_alive(&self, node: Node) -> bool {
        self.alive.contains_key(&node)
    }

    /// How many changes were looked at.
    pub(crate) fn seen(&self) -> usize {
        self.seen
    }

    /// Marks every root, and what is reached from it.
    pub(crate) fn mark_roots(&mut self, db: &Reading<'_>) -> Result<()> {
        self.any_backwards = any_backwards(db)?;
        let mut expired = HashSet::new();
        let mut labelled = HashSet::new();
        db.each(ROOT_LABELS, [], |row| {
            let Some(kind) = NodeKind::of_owner(row.get(0)?) else { return Ok(()) };
            let node = Node { kind, id: row.get(1)? };
            match meaning(&row.get::<String>(2)?, &row.get::<String>(3)?) {
                Meaning::Expires(at) if at < self.now => drop(expired.insert(node)),
                Meaning::Expires(_) | Meaning::Root => drop(labelled.insert(node)),
                _ => {}
            }
            Ok(())
        })?;
        for kind in [NodeKind::Lease, NodeKind::Image, NodeKind::Container, NodeKind::Sandbox] {
            for id in ids(db, kind)? {
                let node = Node { kind, id };
                let mortal = matches!(kind, NodeKind::Lease | NodeKind::Image);
                if !(mortal && expired.contains(&node)) {
                    self.reach(db, node, Depth::Full)?;
                }
            }
        }
        for node in labelled {
            if matches!(node.kind, NodeKind::Blob | NodeKind::Snapshot) {
                self.reach(db, node, Depth::Full)?;
            }
        }
        let sql = "SELECT id FROM ingests WHERE expires > ?1";
        let open: Vec<i64> = db.all(sql, params![self.seconds()], |row| row.get(0))?;
        for id in open {
            self.reach(db, Node { kind: NodeKind::Ingest, id }, Depth::Full)?;
        }
        Ok(())
    }

    /// Looks at what was changed since the last look, in the state that the writer sees now.
    pub(crate) fn catch_up(&mut self, db: &Reading<'_>, changes: &[Change]) -> Result<()> {
        let mut changed = HashSet::new();
        for change in changes {
            match change {
                Change::Object(node) => drop(changed.insert(*node)),
                Change::LeaseResource(id) => {
                    let sql = "SELECT lease FROM lease_resources WHERE id = ?1";
                    let lease = db.one(sql, params![id], |row| row.get(0))?;
                    changed.extend(lease.map(|id| Node { kind: NodeKind::Lease, id }));
                }
            }
        }
        self.any_backwards |= any_backwards(db)?;
        for node in changed {
            // Forgotten first, so that it is expanded again. Whatever changed is kept this time, wanted or not: a snapshot that was
            // committed meanwhile may now have the name that somebody refers to.
            self.alive.remove(&node);
            self.reach(db, node, Depth::Full)?;
        }
        self.seen += changes.len();
        Ok(())
    }

    fn seconds(&self) -> i64 {
        self.now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
    }

    fn was_used(&self, db: &Reading<'_>, snapshot: Node, conditions: &[UsedAt]) -> Result<bool> {
        let meanings = self.meanings(db, snapshot)?;
        let mut used = meanings.iter().filter_map(|meaning| match meaning {
            Meaning::UsedAt(at) => Some(*at),
            _ => None,
        });
        Ok(used.any(|at| conditions.iter().any(|condition| condition.holds(at, self.now))))
    }

    fn meanings(&self, db: &Reading<'_>, node: Node) -> Result<Vec<Meaning>> {
        let Some(owner) = node.kind.owner() else { return Ok(Vec::new()) };
        let sql = "SELECT key, value FROM labels WHERE kind = ?1 AND owner = ?2 \
                   AND key >= 'containerd.io/gc.' AND key < 'containerd.io/gc/'";
        db.all(sql, params![owner as i64, node.id], |row| {
            Ok(meaning(&row.get::<String>(0)?, &row.get::<String>(1)?))
        })
    }

    /// Marks `node` and everything reached from it.
    fn reach(&mut self, db: &Reading<'_>, node: Node, depth: Depth) -> Result<()> {
        let mut waiting = vec![(node, depth)];
        while let Some((node, depth)) = waiting.pop() {
            if self.alive.get(&node).is_some_and(|known| *known >= depth) {
                continue;
            }
            self.alive.insert(node, depth);
            self.expand(db, node, depth, &mut waiting)?;
        }
        Ok(())
    }

    fn expand(
        &self,
        db: &Reading<'_>,
        node: Node,
        depth: Depth,
        found: &mut Vec<(Node, Depth)>,
    ) -> Result<()> {
        match node.kind {
            NodeKind::Lease => return expand_lease(db, node, found),
            NodeKind::Ingest => return expand_ingest(db, node, found),
            NodeKind::Snapshot => {
                let sql = "SELECT parent FROM snapshots WHERE id = ?1 AND parent IS NOT NULL";
                let parent = db.one(sql, params![node.id], |row| row.get(0))?;
                found.extend(parent.map(|id| (Node { kind: NodeKind::Snapshot, id }, depth)));
            }
            NodeKind::Image => {
                let sql = "SELECT b.id FROM images i JOIN blobs b ON b.namespace = i.namespace AND b.digest = i.digest \
                           WHERE i.id = ?1";
                let target = db.one(sql, params![node.id], |row| row.get(0))?;
                found.extend(target.map(|id| (Node { kind: NodeKind::Blob, id }, depth)));
            }
            NodeKind::Container => {
                let sql = "SELECT s.id FROM containers c JOIN snapshots s ON s.snapshotter = c.snapshotter \
                           AND s.namespace = c.namespace AND s.key = c.snapshot_key WHERE c.id = ?1";
                let root = db.one(sql, params![node.id], |row| row.get(0))?;
                found.extend(root.map(|id| (Node { kind: NodeKind::Snapshot, id }, Depth::Full)));
            }
            NodeKind::Blob | NodeKind::Sandbox => {}
        }
        if depth == Depth::Flat {
            return Ok(());
        }
        let references: Vec<Target> = self
            .meanings(db, node)?
            .into_iter()
            .flat_map(|meaning| match meaning {
                Meaning::References(targets) => targets,
                _ => Vec::new(),
            })
            .collect();
        if references.is_empty() && !self.any_backwards {
            return Ok(());
        }
        let Some(namespace) = namespace_of(db, node)? else { return Ok(()) };
        for target in references {
            found.extend(find(db, &namespace, &target)?.map(|node| (node, Depth::Full)));
        }
        if self.any_backwards { self.expand_backwards(db, node, &namespace, found) } else { Ok(()) }
    }

    /// Finds those that live as long as `node` does.
    fn expand_backwards(
        &self,
        db: &Reading<'_>,
        node: Node,
        namespace: &str,
        found: &mut Vec<(Node, Depth)>,
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
            if meaning(&row.get::<String>(2)?, key) == Meaning::BackReference(name.clone()) {
                owners.push((row.get(0)?, row.get(1)?));
            }
            Ok(())
        })?;
        if node.kind == NodeKind::Snapshot {
            let conditions = db.all(CONDITIONS, [], |row| {
                let means = meaning(&row.get::<String>(2)?, &row.get::<String>(3)?);
                Ok((row.get::<i64>(0)?, row.get::<i64>(1)?, means))
            })?;
            for (kind, owner, means) in conditions {
                // Source: containerd: content and images may have conditions.
                let conditional = [Owner::Image as i64, Owner::Blob as i64].contains(&kind);
                if let Meaning::Condition { snapshot, used } = means
                    && conditional
                    && snapshot == name
                    && self.was_used(db, node, &used)?
                {
                    owners.push((kind, owner));
                }
            }
        }
        for (kind, id) in owners {
            let Some(kind) = NodeKind::of_owner(kind) else { continue };
            let owner = Node { kind, id };
            if namespace_of(db, owner)?.as_deref() == Some(namespace) {
                found.push((owner, Depth::Full));
            }
        }
        Ok(())
    }
}

/// Whether any label points back at an object, or has a condition on one.
fn any_backwards(db: &Reading<'_>) -> Result<bool> {
    let back = "SELECT 1 FROM labels WHERE (key >= 'containerd.io/gc.bref.' AND key < 'containerd.io/gc.bref/') LIMIT 1";
    let conditions = "SELECT 1 FROM labels WHERE (key >= 'containerd.io/gc.cond.' AND key < 'containerd.io/gc.cond/') LIMIT 1";
    Ok(db.exists(back, [])? || db.exists(conditions, [])?)
}

/// Every object of a kind.
pub(crate) fn ids(db: &Reading<'_>, kind: NodeKind) -> Result<Vec<i64>> {
    db.all(&format!("SELECT id FROM {}", kind.table()), [], |row| row.get(0))
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

fn expand_ingest(db: &Reading<'_>, node: Node, found: &mut Vec<(Node, Depth)>) -> Result<()> {
    let sql = "SELECT b.id FROM ingests i JOIN blobs b ON b.namespace = i.namespace AND b.digest = i.expected \
               WHERE i.id = ?1";
    let expected = db.one(sql, params![node.id], |row| row.get(0))?;
    found.extend(expected.map(|id| (Node { kind: NodeKind::Blob, id }, Depth::Full)));
    Ok(())
}

fn expand_lease(db: &Reading<'_>, node: Node, found: &mut Vec<(Node, Depth)>) -> Result<()> {
    let Some(namespace) = namespace_of(db, node)? else { return Ok(()) };
    let labels: Labels = labels::load(db, Owner::Lease, node.id)?;
    let depth = if labels.contains_key(LABEL_GC_FLAT) { Depth::Flat } else { Depth::Full };
    for (key, value) in &labels {
        if let Meaning::References(targets) = meaning(key, value) {
            for target in targets {
                found.extend(find(db, &namespace, &target)?.map(|node| (node, Depth::Full)));
            }
        }
    }
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
        found.extend(resource.map(|node| (node, depth)));
    }
    Ok(())
}
