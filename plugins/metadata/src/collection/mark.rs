//! The mark: what is alive, found from the roots over references.
//!
//! It begins on a snapshot of the database and is brought up to date by the writer before each sweep: an object that was changed
//! since is kept, and what it refers to now is marked too. Nothing that was marked is unmarked, so what dies while the
//! collection runs is left to the next one.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use gantry_core::Result;
use gantry_store::{Reading, params};

use super::changes::Change;
use super::references::{Meaning, meaning};
use super::trace::Trace;
use crate::labels::Owner;

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

    pub(super) fn owner(self) -> Option<Owner> {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Depth {
    /// The object, and the parents of a snapshot: what a flat lease keeps.
    Flat,
    /// Whatever it refers to as well.
    Full,
}

/// What is known to be alive.
pub(crate) struct Marker {
    now: SystemTime,
    alive: HashMap<Node, Depth>,
    /// What would be a root, had it not expired.
    expired: HashSet<Node>,
    /// Remembers who keeps what, for those who ask.
    trace: Option<Trace>,
    /// Whether anything points back or has a condition; mostly nothing does, and need not be looked for.
    pub(super) any_backwards: bool,
    /// How many of the recorder's changes were looked at.
    seen: usize,
}

impl Marker {
    pub(crate) fn new(now: SystemTime) -> Self {
        Marker {
            now,
            alive: HashMap::new(),
            expired: HashSet::new(),
            trace: None,
            any_backwards: false,
            seen: 0,
        }
    }

    /// A marker that remembers who keeps what.
    pub(crate) fn tracing(now: SystemTime) -> Self {
        Marker { trace: Some(Trace::default()), ..Self::new(now) }
    }

    /// What was remembered, by a marker that does.
    pub(super) fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// When the mark is made.
    pub(super) fn now(&self) -> SystemTime {
        self.now
    }

    /// Whether `node` would be a root, had it not expired.
    pub(super) fn has_expired(&self, node: Node) -> bool {
        self.expired.contains(&node)
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
        for root in self.roots(db)? {
            if let Some(trace) = &mut self.trace {
                trace.root(root);
            }
            self.reach(db, root, Depth::Full)?;
        }
        if let Some(trace) = &mut self.trace {
            trace.seal();
        }
        Ok(())
    }

    /// Every object that is kept by itself.
    fn roots(&mut self, db: &Reading<'_>) -> Result<Vec<Node>> {
        let mut labelled = HashSet::new();
        let expired = &mut self.expired;
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
        let mut roots = Vec::new();
        for kind in [NodeKind::Lease, NodeKind::Image, NodeKind::Container, NodeKind::Sandbox] {
            let mortal = matches!(kind, NodeKind::Lease | NodeKind::Image);
            let all = ids(db, kind)?.into_iter().map(|id| Node { kind, id });
            roots.extend(all.filter(|node| !(mortal && self.expired.contains(node))));
        }
        roots.extend(
            labelled.into_iter().filter(|node| matches!(node.kind, NodeKind::Blob | NodeKind::Snapshot)),
        );
        let sql = "SELECT id FROM ingests WHERE expires > ?1";
        let open: Vec<i64> = db.all(sql, params![self.seconds()], |row| row.get(0))?;
        roots.extend(open.into_iter().map(|id| Node { kind: NodeKind::Ingest, id }));
        Ok(roots)
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

    /// Marks `node` and everything reached from it.
    fn reach(&mut self, db: &Reading<'_>, node: Node, depth: Depth) -> Result<()> {
        let mut waiting = vec![(node, depth)];
        let mut found = Vec::new();
        while let Some((node, depth)) = waiting.pop() {
            if self.alive.get(&node).is_some_and(|known| *known >= depth) {
                continue;
            }
            self.alive.insert(node, depth);
            self.expand(db, node, depth, &mut found)?;
            if let Some(trace) = &mut self.trace {
                trace.note(node, &found)?;
            }
            waiting.extend(found.drain(..).map(|found| (found.node, found.depth)));
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
