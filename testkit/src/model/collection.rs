//! What a collection leaves, by definition: the smallest sets that hold the roots and what those in them refer to.
//!
//! Source: features E29 to E35 and E57; semantics, "Leases and garbage collection".

use std::collections::BTreeSet;

use gantry_core::Labels;

use super::world::{Space, World};

const PAST: &str = "2000-01-01T00:00:00Z";
const FUTURE: &str = "2999-01-01T00:00:00Z";

/// An object of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    Container(String),
    Image(String),
    Blob(String),
    Snapshot(String),
    Lease(String),
    Sandbox(String),
    Ingest(String),
}

/// An object, and whether what its labels refer to is kept too.
type Kept = (Object, bool);

impl World {
    /// Removes what nothing keeps, in every namespace, and the files that nobody has.
    pub(super) fn collect(&mut self) {
        let snapshotter = self.snapshotter.clone();
        for space in self.spaces.values_mut() {
            let kept: BTreeSet<Object> =
                space.all_kept(&snapshotter).into_iter().map(|(object, _)| object).collect();
            space.leases.retain(|id, _| kept.contains(&Object::Lease(id.clone())));
            space.images.retain(|name, _| kept.contains(&Object::Image(name.clone())));
            space.blobs.retain(|digest, _| kept.contains(&Object::Blob(digest.to_string())));
            space.snapshots.retain(|key, _| kept.contains(&Object::Snapshot(key.clone())));
            space.ingests.retain(|name, _| kept.contains(&Object::Ingest(name.clone())));
        }
        let spaces = &self.spaces;
        self.files.retain(|digest, _| {
            spaces.values().any(|space| {
                space.blobs.contains_key(digest)
                    || space.ingests.values().any(|ingest| ingest.expected.as_ref() == Some(digest))
            })
        });
    }
}

fn expires(labels: &Labels, when: &str) -> bool {
    labels.get("containerd.io/gc.expire").is_some_and(|value| value == when)
}

fn is_root(labels: &Labels) -> bool {
    labels.keys().any(|key| key.starts_with("containerd.io/gc.root"))
}

/// What follows `containerd.io/gc.<kind>.<noun>` in a key: nothing, or `.x`, or `/x`.
fn names(key: &str, kind: &str, noun: &str) -> bool {
    let rest = key.strip_prefix("containerd.io/gc.").and_then(|key| key.strip_prefix(kind));
    let rest = rest.and_then(|rest| rest.strip_prefix('.')).and_then(|rest| rest.strip_prefix(noun));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
}

/// The objects that labels of a kind (`ref`, `bref`) name.
fn named(labels: &Labels, kind: &str, snapshotter: &str) -> Vec<Object> {
    let snapshot = format!("snapshot.{snapshotter}");
    let object = |(key, value): (&String, &String)| {
        let value = value.clone();
        if names(key, kind, "content") {
            return Some(Object::Blob(value));
        }
        if names(key, kind, "image") {
            return Some(Object::Image(value));
        }
        if kind == "bref" && names(key, kind, "container") {
            return Some(Object::Container(value));
        }
        names(key, kind, &snapshot).then_some(Object::Snapshot(value))
    };
    labels.iter().filter_map(object).collect()
}

impl Space {
    fn labels_of(&self, object: &Object) -> Option<&Labels> {
        Some(match object {
            Object::Container(id) => &self.containers.get(id)?.labels,
            Object::Image(name) => &self.images.get(name)?.labels,
            Object::Blob(digest) => &self.blobs.iter().find(|(known, _)| known.as_str() == digest)?.1.labels,
            Object::Snapshot(key) => &self.snapshots.get(key)?.labels,
            Object::Lease(id) => &self.leases.get(id)?.labels,
            Object::Sandbox(id) => &self.sandboxes.get(id)?.labels,
            Object::Ingest(_) => return None,
        })
    }

    fn exists(&self, object: &Object) -> bool {
        match object {
            Object::Ingest(name) => self.ingests.contains_key(name),
            other => self.labels_of(other).is_some(),
        }
    }

    fn roots(&self) -> Vec<Kept> {
        let mut roots = Vec::new();
        roots.extend(self.containers.keys().cloned().map(Object::Container));
        roots.extend(self.sandboxes.keys().cloned().map(Object::Sandbox));
        let alive = self.leases.iter().filter(|(_, lease)| !expires(&lease.labels, PAST));
        roots.extend(alive.map(|(id, _)| Object::Lease(id.clone())));
        let alive = self.images.iter().filter(|(_, image)| !expires(&image.labels, PAST));
        roots.extend(alive.map(|(name, _)| Object::Image(name.clone())));
        let lasts = |labels: &Labels| is_root(labels) || expires(labels, FUTURE);
        let alive = self.blobs.iter().filter(|(_, blob)| lasts(&blob.labels));
        roots.extend(alive.map(|(digest, _)| Object::Blob(digest.to_string())));
        let alive = self.snapshots.iter().filter(|(_, snapshot)| lasts(&snapshot.labels));
        roots.extend(alive.map(|(key, _)| Object::Snapshot(key.clone())));
        let alive = self.ingests.iter().filter(|(_, ingest)| ingest.unleased);
        roots.extend(alive.map(|(name, _)| Object::Ingest(name.clone())));
        roots.into_iter().map(|object| (object, true)).collect()
    }

    fn all_kept(&self, snapshotter: &str) -> BTreeSet<Kept> {
        let mut kept: BTreeSet<Kept> = self.roots().into_iter().collect();
        loop {
            let more: BTreeSet<Kept> = kept
                .iter()
                .flat_map(|(object, whole)| self.kept_by(object, *whole, snapshotter))
                .filter(|(object, _)| self.exists(object))
                .collect();
            let before = kept.len();
            kept.extend(more);
            if kept.len() == before {
                return kept;
            }
        }
    }

    /// What one object keeps.
    fn kept_by(&self, object: &Object, whole: bool, snapshotter: &str) -> Vec<Kept> {
        let mut found = Vec::new();
        match object {
            Object::Image(name) => {
                found.extend(
                    self.images.get(name).map(|image| (Object::Blob(image.target.digest.to_string()), whole)),
                );
            }
            Object::Snapshot(key) => {
                let parent = self.snapshots.get(key).and_then(|snapshot| snapshot.parent.clone());
                found.extend(parent.map(|parent| (Object::Snapshot(parent), whole)));
            }
            Object::Container(id) => {
                let container =
                    self.containers.get(id).filter(|container| container.snapshotter == snapshotter);
                found.extend(
                    container.map(|container| (Object::Snapshot(container.snapshot_key.clone()), true)),
                );
            }
            Object::Lease(id) => {
                let Some(lease) = self.leases.get(id) else { return found };
                let whole = !lease.labels.contains_key("containerd.io/gc.flat");
                let snapshots = format!("snapshots/{snapshotter}");
                found.extend(lease.resources.iter().filter_map(|resource| {
                    let id = resource.id.clone();
                    let object = match resource.kind.as_str() {
                        "content" => Object::Blob(id),
                        "ingests" => Object::Ingest(id),
                        "images" => Object::Image(id),
                        kind if kind == snapshots => Object::Snapshot(id),
                        _ => return None,
                    };
                    Some((object, whole))
                }));
            }
            Object::Ingest(name) => {
                let expected = self.ingests.get(name).and_then(|ingest| ingest.expected.clone());
                found.extend(expected.map(|digest| (Object::Blob(digest.to_string()), true)));
            }
            Object::Blob(_) | Object::Sandbox(_) => {}
        }
        if whole {
            let labels = self.labels_of(object);
            found.extend(
                labels
                    .into_iter()
                    .flat_map(|labels| named(labels, "ref", snapshotter))
                    .map(|object| (object, true)),
            );
            let blobs =
                self.blobs.iter().map(|(digest, blob)| (Object::Blob(digest.to_string()), &blob.labels));
            let snapshots = self
                .snapshots
                .iter()
                .map(|(key, snapshot)| (Object::Snapshot(key.clone()), &snapshot.labels));
            let back = blobs
                .chain(snapshots)
                .filter(|(_, labels)| named(labels, "bref", snapshotter).contains(object));
            found.extend(back.map(|(owner, _)| (owner, true)));
        }
        found
    }
}
