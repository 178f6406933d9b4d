//! What a mark remembers for those who ask: who keeps what, small enough for a large store, and followed backwards.

use std::collections::{HashMap, HashSet, VecDeque};

use gantry_core::{Error, Result};

use super::edges::{Found, Via};
use super::mark::{Depth, Node};

/// So many references are remembered at most, of 12 bytes each; a question about a larger store is not answered.
const MAX_STEPS: usize = 8_000_000;

/// How deep a holder keeps what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passes {
    /// As deep as it is kept itself.
    OwnDepth,
    /// Fully, if it is kept fully.
    Full,
    /// The object and its parents only.
    Flat,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    held: u32,
    holder: u32,
    passes: Passes,
}

/// Who keeps what.
#[derive(Debug, Default)]
pub(super) struct Trace {
    places: HashMap<Node, u32>,
    nodes: Vec<Node>,
    steps: Vec<Step>,
    /// Whether the steps are sorted by what is held.
    sealed: bool,
    roots: HashSet<u32>,
}

/// An object that must be kept to this depth.
type Need = (u32, Depth);

/// A way from an object back to a root: its holders, nearest first.
pub(super) type Way = Vec<Node>;

/// The ways from an object to those that keep it.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) shown: Vec<Way>,
    /// How many roots have no way shown.
    pub(super) more: u64,
}

impl Trace {
    fn place(&mut self, node: Node) -> u32 {
        let next = self.nodes.len() as u32;
        let place = *self.places.entry(node).or_insert(next);
        if place == next {
            self.nodes.push(node);
        }
        place
    }

    /// Notes a root.
    pub(super) fn root(&mut self, node: Node) {
        let place = self.place(node);
        self.roots.insert(place);
    }

    /// Notes what `holder` keeps.
    ///
    /// # Errors
    /// `ResourceExhausted` if there is too much to remember.
    pub(super) fn note(&mut self, holder: Node, found: &[Found]) -> Result<()> {
        let holder = self.place(holder);
        for kept in found {
            let passes = match (&kept.via, kept.depth) {
                (Via::Parent | Via::Target, _) => Passes::OwnDepth,
                (_, Depth::Full) => Passes::Full,
                (_, Depth::Flat) => Passes::Flat,
            };
            let held = self.place(kept.node);
            self.steps.push(Step { held, holder, passes });
        }
        if self.steps.len() > MAX_STEPS {
            let text = format!("the store holds more than {MAX_STEPS} references: too many to follow");
            return Err(Error::resource_exhausted(text));
        }
        Ok(())
    }

    /// Sorts what was noted: from now on it can be asked.
    pub(super) fn seal(&mut self) {
        self.steps.sort_unstable_by_key(|step| step.held);
        self.sealed = true;
    }

    fn back(&self) -> Back<'_> {
        debug_assert!(self.sealed, "a trace is sealed before it is asked");
        Back { steps: &self.steps }
    }

    /// The ways from `object` to its roots, the shortest first: one to each root, then one over each direct holder that those pass
    /// by, `most` at most.
    pub(super) fn ways(&self, object: Node, most: usize) -> Ways {
        let Some(start) = self.places.get(&object).copied() else { return Ways::default() };
        let back = self.back();
        // Whoever is kept at all counts, so the object itself may be kept flatly.
        let tree = back.tree((start, Depth::Flat), None);
        let mut ways = Ways::default();
        let mut seen_roots = HashSet::new();
        let mut first_hops = HashSet::new();
        for need in &tree.order {
            if !self.roots.contains(&need.0) || !seen_roots.insert(need.0) {
                continue;
            }
            if ways.shown.len() >= most {
                ways.more += 1;
                continue;
            }
            let way = tree.way(*need);
            first_hops.extend(way.first().map(|need| need.0));
            ways.shown.push(self.named(&way));
        }
        for need in back.holders((start, Depth::Flat)) {
            if ways.shown.len() >= most {
                break;
            }
            if need.0 == start || !first_hops.insert(need.0) {
                continue;
            }
            // A holder that is kept only over the object itself does not keep it.
            let tree = back.tree(need, Some(start));
            if let Some(root) = tree.order.iter().find(|need| self.roots.contains(&need.0)) {
                let mut way = tree.way(*root);
                way.insert(0, need);
                ways.shown.push(self.named(&way));
            }
        }
        ways.shown.sort_by_key(Vec::len);
        ways
    }

    /// Those that keep any of `objects`, over whatever others, and that are `wanted`; `most` at most.
    pub(super) fn keepers(&self, objects: &[Node], wanted: impl Fn(Node) -> bool, most: usize) -> Vec<Node> {
        let back = self.back();
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for start in objects.iter().filter_map(|object| self.places.get(object)) {
            for (place, _) in back.tree((*start, Depth::Flat), None).order {
                let node = self.nodes[place as usize];
                if wanted(node) && seen.insert(place) {
                    found.push(node);
                }
                if found.len() >= most {
                    return found;
                }
            }
        }
        found
    }

    fn named(&self, way: &[Need]) -> Way {
        way.iter().map(|need| self.nodes[need.0 as usize]).collect()
    }
}

/// The steps, sorted by what is held.
struct Back<'t> {
    steps: &'t [Step],
}

/// What is reached backwards, in order of distance, each with what it holds on the way.
struct Tree {
    start: Need,
    order: Vec<Need>,
    holds: HashMap<Need, Need>,
}

impl Back<'_> {
    /// What must be kept, and how deep, for `need` to be.
    fn holders(&self, need: Need) -> impl Iterator<Item = Need> {
        let (place, depth) = need;
        let first = self.steps.partition_point(|step| step.held < place);
        self.steps[first..].iter().take_while(move |step| step.held == place).filter_map(move |step| {
            match (step.passes, depth) {
                (Passes::OwnDepth, depth) => Some((step.holder, depth)),
                (Passes::Full, _) | (Passes::Flat, Depth::Flat) => Some((step.holder, Depth::Full)),
                (Passes::Flat, Depth::Full) => None,
            }
        })
    }

    fn tree(&self, start: Need, without: Option<u32>) -> Tree {
        let mut tree = Tree { start, order: Vec::new(), holds: HashMap::new() };
        let mut waiting = VecDeque::from([start]);
        let mut seen = HashSet::from([start]);
        while let Some(need) = waiting.pop_front() {
            tree.order.push(need);
            for holder in self.holders(need) {
                if Some(holder.0) != without && seen.insert(holder) {
                    tree.holds.insert(holder, need);
                    waiting.push_back(holder);
                }
            }
        }
        tree
    }
}

impl Tree {
    /// From the start, which is left out, to `end`.
    fn way(&self, end: Need) -> Vec<Need> {
        let mut way = Vec::new();
        let mut at = end;
        while at != self.start {
            way.push(at);
            match self.holds.get(&at) {
                Some(next) => at = *next,
                None => break,
            }
        }
        way.reverse();
        way
    }
}

#[cfg(test)]
mod tests {
    use super::super::mark::NodeKind;
    use super::*;

    fn node(kind: NodeKind, id: i64) -> Node {
        Node { kind, id }
    }

    fn kept(kind: NodeKind, id: i64, depth: Depth, via: Via) -> Found {
        Found { node: node(kind, id), depth, via }
    }

    const LEASE: NodeKind = NodeKind::Lease;
    const BLOB: NodeKind = NodeKind::Blob;

    #[test]
    fn a_flat_lease_holds_no_references_of_what_it_lists() {
        let mut trace = Trace::default();
        // Lease 1 lists blob 1 flatly, lease 2 fully; blob 1 refers to blob 2.
        trace.root(node(LEASE, 1));
        trace.note(node(LEASE, 1), &[kept(BLOB, 1, Depth::Flat, Via::LeaseResource)]).unwrap();
        trace.root(node(LEASE, 2));
        trace.note(node(LEASE, 2), &[kept(BLOB, 1, Depth::Full, Via::LeaseResource)]).unwrap();
        trace.note(node(BLOB, 1), &[kept(BLOB, 2, Depth::Full, Via::Label("l".into()))]).unwrap();
        trace.seal();
        let ways = trace.ways(node(BLOB, 2), 10);
        assert_eq!(ways.shown, [vec![node(BLOB, 1), node(LEASE, 2)]]);
        let ways = trace.ways(node(BLOB, 1), 10);
        assert_eq!(ways.shown, [vec![node(LEASE, 1)], vec![node(LEASE, 2)]]);
    }

    #[test]
    fn holders_that_live_only_by_the_object_are_none_and_every_other_is_shown() {
        let mut trace = Trace::default();
        let label = || Via::Label("l".into());
        // Root 9 keeps 1, 2 and 3; all of them keep 5; 5 and 6 keep each other.
        trace.root(node(LEASE, 9));
        let listed = [1, 2, 3].map(|id| kept(BLOB, id, Depth::Full, Via::LeaseResource));
        trace.note(node(LEASE, 9), &listed).unwrap();
        for id in [1, 2, 3, 6] {
            trace.note(node(BLOB, id), &[kept(BLOB, 5, Depth::Full, label())]).unwrap();
        }
        trace.note(node(BLOB, 5), &[kept(BLOB, 6, Depth::Full, label())]).unwrap();
        trace.seal();
        let mut shown = trace.ways(node(BLOB, 5), 10).shown;
        shown.sort();
        assert_eq!(shown, [1, 2, 3].map(|id| vec![node(BLOB, id), node(LEASE, 9)]));
        assert_eq!(trace.ways(node(BLOB, 5), 2).shown.len(), 2);
    }

    #[test]
    fn roots_beyond_the_limit_are_counted() {
        let mut trace = Trace::default();
        for id in 0..100 {
            trace.root(node(LEASE, id));
            trace.note(node(LEASE, id), &[kept(BLOB, 1, Depth::Full, Via::LeaseResource)]).unwrap();
        }
        trace.seal();
        let ways = trace.ways(node(BLOB, 1), 8);
        assert_eq!((ways.shown.len(), ways.more), (8, 92));
    }
}
