//! The names of every noun, and records made of choices.

use std::collections::BTreeMap;
use std::time::SystemTime;

use gantry_core::containers::{Container, ContainerRuntime};
use gantry_core::images::Image;
use gantry_core::leases::LeaseResource;
use gantry_core::sandboxes::Sandbox;
use gantry_core::{Any, ContainerId, Descriptor, Digest, Labels, SandboxId};
use sha2::{Digest as _, Sha256};

use super::labels::labels;
use super::steps::{ContainerChoice, ImageChoice, LabelChoice, Name, Resource};

/// What a write appends.
pub(super) const DATA: [&str; 3] = ["", "a", "b"];

/// What blobs hold: those that writes come to in few steps.
const BLOBS: [&str; 5] = ["", "a", "b", "aa", "ab"];

pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::sha256(Sha256::digest(bytes))
}

pub(super) fn digest(name: Name) -> Digest {
    digest_of(BLOBS[usize::from(name) % BLOBS.len()].as_bytes())
}

/// What the blob of that name holds.
pub(super) fn content(name: Name) -> Vec<u8> {
    BLOBS[usize::from(name) % BLOBS.len()].as_bytes().to_vec()
}

pub(super) fn space(name: Name) -> &'static str {
    ["one", "two"][usize::from(name) % 2]
}

pub(super) fn container_id(name: Name) -> String {
    ["c1", "c.2", "C-3"][usize::from(name) % 3].to_owned()
}

pub(super) fn image_name(name: Name) -> String {
    ["docker.io/library/a:1", "b", "with space"][usize::from(name) % 3].to_owned()
}

pub(super) fn snapshot_key(name: Name) -> String {
    ["s1", "sha256:2", "s/3", "s 4", "S5"][usize::from(name) % 5].to_owned()
}

pub(super) fn reference(name: Name) -> String {
    ["r1", "layer-sha256:r2", "r 3"][usize::from(name) % 3].to_owned()
}

pub(super) fn lease_id(name: Name) -> String {
    ["l1", "l 2"][usize::from(name) % 2].to_owned()
}

pub(super) fn sandbox_id(name: Name) -> String {
    ["p1", "p.2", "P-3"][usize::from(name) % 3].to_owned()
}

fn extensions(wanted: bool) -> BTreeMap<String, Any> {
    if wanted { BTreeMap::from([("e".to_owned(), Any::new("extension", "1"))]) } else { BTreeMap::new() }
}

pub(super) fn container(choice: &ContainerChoice, snapshotter: &str) -> Container {
    let id = ContainerId::parse(container_id(choice.id)).expect("a valid id");
    Container {
        labels: labels(&choice.labels, snapshotter),
        image: image_name(choice.id),
        spec: choice.spec.then(|| Any::new("spec", "{}")),
        snapshotter: if choice.snapshotter { snapshotter.to_owned() } else { String::new() },
        snapshot_key: choice.snapshot.map(snapshot_key).unwrap_or_default(),
        extensions: extensions(choice.extension),
        ..Container::new(id, ["", "io.containerd.runc.v2", "other.v1"][usize::from(choice.runtime) % 3])
    }
}

pub(super) fn image(choice: &ImageChoice, snapshotter: &str) -> Image {
    let mut target = Descriptor::new("application/any", digest(choice.digest), i64::from(choice.size));
    let pairs = [("k", "1"), ("k", "2"), ("l", "")];
    target.annotations = choice
        .annotations
        .iter()
        .map(|number| pairs[usize::from(*number) % 3])
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    Image {
        name: image_name(choice.name),
        labels: labels(&choice.labels, snapshotter),
        target,
        created_at: SystemTime::UNIX_EPOCH,
        updated_at: SystemTime::UNIX_EPOCH,
    }
}

pub(super) fn sandbox(
    id: Name,
    runtime: u8,
    choice: &LabelChoice,
    extension: bool,
    snapshotter: &str,
) -> Sandbox {
    let name = ["", "io.containerd.runc.v2", "other.v1"][usize::from(runtime) % 3].to_owned();
    Sandbox {
        id: SandboxId::parse(sandbox_id(id)).expect("a valid id"),
        labels: labels(choice, snapshotter),
        runtime: ContainerRuntime { name, options: None },
        spec: extension.then(|| Any::new("spec", "{}")),
        sandboxer: "podsandbox".to_owned(),
        created_at: SystemTime::UNIX_EPOCH,
        updated_at: SystemTime::UNIX_EPOCH,
        extensions: extensions(extension),
    }
}

pub(super) fn resource(choice: &Resource, snapshotter: &str) -> LeaseResource {
    let content = || digest(choice.name).to_string();
    let (kind, id) = match choice.kind {
        0 => ("content".to_owned(), content()),
        1 => ("ingests".to_owned(), reference(choice.name)),
        2 => ("images".to_owned(), image_name(choice.name)),
        3 => (format!("snapshots/{snapshotter}"), snapshot_key(choice.name)),
        4 => ("content".to_owned(), "no digest".to_owned()),
        5 => ("content/x".to_owned(), content()),
        6 => ("snapshots".to_owned(), snapshot_key(choice.name)),
        7 => ("snapshots/a/b".to_owned(), snapshot_key(choice.name)),
        8 => ("snapshots/".to_owned(), snapshot_key(choice.name)),
        _ => ("containers".to_owned(), container_id(choice.name)),
    };
    LeaseResource { id, kind }
}

/// Labels without those that only mean something on blobs and snapshots.
pub(super) fn without_back_references(mut labels: Labels) -> Labels {
    labels.retain(|key, _| !key.starts_with("containerd.io/gc.bref."));
    labels
}
