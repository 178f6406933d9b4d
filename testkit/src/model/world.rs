//! The model: what is stored, and what each operation does to it.

use std::collections::{BTreeMap, BTreeSet};

use gantry_core::containers::Container;
use gantry_core::images::Image;
use gantry_core::leases::LeaseResource;
use gantry_core::sandboxes::Sandbox;
use gantry_core::snapshots::SnapshotKind;
use gantry_core::{Digest, ErrorKind, Labels};

use super::labels::{Answer, set, storable, updated};
use super::records::digest_of;
use ErrorKind::{
    AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable, Unimplemented, Unknown,
};

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Blob {
    pub(super) size: u64,
    pub(super) labels: Labels,
}

/// A write in progress.
#[derive(Clone, Debug, Default)]
pub(super) struct Ingest {
    /// What was written; nothing while there is no file for it.
    pub(super) data: Option<Vec<u8>>,
    /// A blob that it may become without data.
    pub(super) expected: Option<Digest>,
    /// Whether it is kept without a lease.
    pub(super) unleased: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Lease {
    pub(super) labels: Labels,
    pub(super) resources: BTreeSet<LeaseResource>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Snapshot {
    pub(super) kind: SnapshotKind,
    pub(super) parent: Option<String>,
    pub(super) labels: Labels,
}

/// One namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    pub(super) labels: Labels,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) images: BTreeMap<String, Image>,
    pub(super) blobs: BTreeMap<Digest, Blob>,
    pub(super) ingests: BTreeMap<String, Ingest>,
    pub(super) leases: BTreeMap<String, Lease>,
    pub(super) snapshots: BTreeMap<String, Snapshot>,
    pub(super) sandboxes: BTreeMap<String, Sandbox>,
}

/// An open writer.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    /// It has no file of its own yet: it is at the end of a blob that another namespace brought.
    pub(super) shared: Option<(Digest, u64)>,
    pub(super) lease: Option<String>,
    pub(super) total: u64,
    pub(super) expected: Option<Digest>,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) spaces: BTreeMap<String, Space>,
    /// Blobs that there are files of, with their lengths: some of no namespace until the next collection.
    pub(super) files: BTreeMap<Digest, u64>,
    /// By namespace and ref.
    pub(super) writers: BTreeMap<(String, String), Writer>,
    pub(super) snapshotter: String,
    pub(super) remote: bool,
}

/// A call's surroundings.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) space: String,
    pub(super) lease: Option<String>,
}

fn content(digest: &Digest) -> LeaseResource {
    LeaseResource { id: digest.to_string(), kind: "content".to_owned() }
}

fn ingests(reference: &str) -> LeaseResource {
    LeaseResource { id: reference.to_owned(), kind: "ingests".to_owned() }
}

fn images(name: &str) -> LeaseResource {
    LeaseResource { id: name.to_owned(), kind: "images".to_owned() }
}

impl World {
    fn space(&self, caller: &Caller) -> Option<&Space> {
        self.spaces.get(&caller.space)
    }

    /// The namespace, made if this is the first write into it.
    fn made(&mut self, caller: &Caller) -> &mut Space {
        self.spaces.entry(caller.space.clone()).or_default()
    }

    fn snapshots(&self, key: &str) -> LeaseResource {
        LeaseResource { id: key.to_owned(), kind: format!("snapshots/{}", self.snapshotter) }
    }

    /// Whether the call's lease, if it names one, exists.
    fn lease_exists(&self, caller: &Caller) -> Answer {
        let Some(id) = &caller.lease else { return Ok(()) };
        let found = self.space(caller).is_some_and(|space| space.leases.contains_key(id));
        if found { Ok(()) } else { Err(NotFound) }
    }

    /// Lets the call's lease, which exists, keep something.
    fn keep(&mut self, caller: &Caller, resource: LeaseResource) {
        if let Some(lease) = self.lease(caller) {
            lease.resources.insert(resource);
        }
    }

    fn release(&mut self, caller: &Caller, resource: &LeaseResource) {
        if let Some(lease) = self.lease(caller) {
            lease.resources.remove(resource);
        }
    }

    fn lease(&mut self, caller: &Caller) -> Option<&mut Lease> {
        self.spaces.get_mut(&caller.space)?.leases.get_mut(caller.lease.as_ref()?)
    }

    // Namespaces.

    pub(super) fn create_namespace(&mut self, name: &str, labels: &Labels) -> Answer {
        let labels = storable(labels, false)?;
        if self.spaces.contains_key(name) {
            return Err(AlreadyExists);
        }
        self.spaces.insert(name.to_owned(), Space { labels, ..Space::default() });
        Ok(())
    }

    /// Source: semantics, "Namespaces": only `labels.<key>` or no mask; one that does not exist is made; a label that is too long is
    /// UNKNOWN.
    pub(super) fn update_namespace(&mut self, name: &str, given: &Labels, paths: &[String]) -> Answer {
        if paths.iter().any(|path| !path.starts_with("labels.")) {
            return Err(InvalidArgument);
        }
        let stored = self.spaces.get(name).map(|space| space.labels.clone()).unwrap_or_default();
        let labels = updated(&stored, given, paths).map_err(|_| Unknown)?;
        self.spaces.entry(name.to_owned()).or_default().labels = labels;
        Ok(())
    }

    pub(super) fn delete_namespace(&mut self, name: &str) -> Answer {
        let space = self.spaces.get(name).ok_or(NotFound)?;
        let heavy = !space.containers.is_empty()
            || !space.images.is_empty()
            || !space.blobs.is_empty()
            || !space.snapshots.is_empty();
        if heavy {
            return Err(FailedPrecondition);
        }
        self.spaces.remove(name);
        Ok(())
    }

    // Containers.

    pub(super) fn create_container(&mut self, caller: &Caller, new: &Container) -> Answer {
        let new = container_storable(new.clone())?;
        let id = new.id.to_string();
        if self.space(caller).is_some_and(|space| space.containers.contains_key(&id)) {
            return Err(AlreadyExists);
        }
        self.made(caller).containers.insert(id, new);
        Ok(())
    }

    pub(super) fn update_container(
        &mut self,
        caller: &Caller,
        given: &Container,
        paths: &[String],
    ) -> Answer {
        let found = self.space(caller).and_then(|space| space.containers.get(given.id.as_str()));
        let mut after = found.ok_or(NotFound)?.clone();
        if paths.is_empty() {
            if after.snapshotter != given.snapshotter || after.runtime.name != given.runtime.name {
                return Err(InvalidArgument);
            }
            after = Container { runtime: after.runtime, sandbox: after.sandbox, ..given.clone() };
        }
        for path in paths {
            match path.split_once('.') {
                Some(("labels", key)) => set(&mut after.labels, key, &given.labels),
                Some(("extensions", key)) => set(&mut after.extensions, key, &given.extensions),
                None if path == "labels" => after.labels.clone_from(&given.labels),
                None if path == "extensions" => after.extensions.clone_from(&given.extensions),
                None if path == "spec" => after.spec.clone_from(&given.spec),
                None if path == "image" => after.image.clone_from(&given.image),
                None if path == "snapshotkey" => after.snapshot_key.clone_from(&given.snapshot_key),
                _ => return Err(InvalidArgument),
            }
        }
        let after = container_storable(after)?;
        self.made(caller).containers.insert(after.id.to_string(), after);
        Ok(())
    }

    pub(super) fn delete_container(&mut self, caller: &Caller, id: &str) -> Answer {
        let space = self.spaces.get_mut(&caller.space).ok_or(NotFound)?;
        space.containers.remove(id).map(drop).ok_or(NotFound)
    }

    // Images.

    pub(super) fn create_image(&mut self, caller: &Caller, new: &Image) -> Answer {
        let new = image_storable(new.clone())?;
        if self.space(caller).is_some_and(|space| space.images.contains_key(&new.name)) {
            return Err(AlreadyExists);
        }
        let kept = images(&new.name);
        self.made(caller).images.insert(new.name.clone(), new);
        // Source: semantics, "Leases": a lease that does not exist is passed over here.
        self.keep(caller, kept);
        Ok(())
    }

    pub(super) fn update_image(&mut self, caller: &Caller, given: &Image, paths: &[String]) -> Answer {
        let found = self.space(caller).and_then(|space| space.images.get(&given.name));
        let mut after = found.ok_or(NotFound)?.clone();
        // Source: semantics, "Images": the target is looked at whatever the mask says.
        if given.target.size_bytes <= 0 {
            return Err(InvalidArgument);
        }
        if paths.is_empty() {
            after.labels.clone_from(&given.labels);
            after.target = given.target.clone();
        }
        for path in paths {
            match path.split_once('.') {
                Some(("labels", key)) => set(&mut after.labels, key, &given.labels),
                Some(("annotations", key)) => {
                    set(&mut after.target.annotations, key, &given.target.annotations)
                }
                None if path == "labels" => after.labels.clone_from(&given.labels),
                None if path == "target" => after.target = given.target.clone(),
                None if path == "annotations" => {
                    after.target.annotations.clone_from(&given.target.annotations)
                }
                _ => return Err(InvalidArgument),
            }
        }
        let after = image_storable(after)?;
        self.made(caller).images.insert(after.name.clone(), after);
        Ok(())
    }

    pub(super) fn delete_image(&mut self, caller: &Caller, name: &str, if_target: Option<&Digest>) -> Answer {
        let found = self.space(caller).and_then(|space| space.images.get(name)).ok_or(NotFound)?;
        if if_target.is_some_and(|target| *target != found.target.digest) {
            return Err(NotFound);
        }
        self.made(caller).images.remove(name);
        self.release(caller, &images(name));
        Ok(())
    }

    // Leases.

    pub(super) fn create_lease(&mut self, caller: &Caller, id: &str, labels: &Labels) -> Answer {
        let labels = storable(labels, true)?;
        if self.space(caller).is_some_and(|space| space.leases.contains_key(id)) {
            return Err(AlreadyExists);
        }
        self.made(caller).leases.insert(id.to_owned(), Lease { labels, ..Lease::default() });
        Ok(())
    }

    pub(super) fn delete_lease(&mut self, caller: &Caller, id: &str) -> Answer {
        let space = self.spaces.get_mut(&caller.space).ok_or(NotFound)?;
        space.leases.remove(id).map(drop).ok_or(NotFound)
    }

    /// Source: semantics, "Leases": neither the thing nor its snapshotter need exist; types are checked by their form.
    pub(super) fn change_resource(
        &mut self,
        caller: &Caller,
        id: &str,
        resource: &LeaseResource,
        add: bool,
    ) -> Answer {
        let space = self.spaces.get_mut(&caller.space).ok_or(NotFound)?;
        let lease = space.leases.get_mut(id).ok_or(NotFound)?;
        let (first, rest) =
            resource.kind.split_once('/').map_or((resource.kind.as_str(), None), |(a, b)| (a, Some(b)));
        match (first, rest) {
            ("content", None) if Digest::parse(resource.id.as_str()).is_err() => return Err(InvalidArgument),
            ("content" | "ingests" | "images", None) => {}
            ("snapshots", Some("")) => return Err(Unknown),
            ("snapshots", Some(name)) if !name.contains('/') => {}
            ("content" | "ingests" | "images" | "snapshots", _) => return Err(InvalidArgument),
            _ => return Err(Unimplemented),
        }
        if add {
            lease.resources.insert(resource.clone());
        } else {
            lease.resources.remove(resource);
        }
        Ok(())
    }

    // Snapshots.

    pub(super) fn make_snapshot(
        &mut self,
        caller: &Caller,
        kind: SnapshotKind,
        key: &str,
        parent: Option<&str>,
        labels: &Labels,
    ) -> Answer {
        let labels = storable(labels, false)?;
        let none = BTreeMap::new();
        let known = self.space(caller).map_or(&none, |space| &space.snapshots);
        // Source: semantics, "Snapshots": how unpack skips what is there. The lease keeps that then.
        let target = labels.get("containerd.io/snapshot.ref").map(String::as_str);
        if let Some(taken) = [target, Some(key)].into_iter().flatten().find(|name| known.contains_key(*name))
        {
            let taken = self.snapshots(taken);
            self.lease_exists(caller)?;
            self.keep(caller, taken);
            return Err(AlreadyExists);
        }
        self.lease_exists(caller)?;
        if let Some(parent) = parent {
            let parent = known.get(parent).ok_or(NotFound)?;
            if parent.kind != SnapshotKind::Committed {
                return Err(InvalidArgument);
            }
        }
        let kept = self.snapshots(key);
        let parent = parent.map(str::to_owned);
        self.made(caller).snapshots.insert(key.to_owned(), Snapshot { kind, parent, labels });
        self.keep(caller, kept);
        Ok(())
    }

    pub(super) fn commit_snapshot(
        &mut self,
        caller: &Caller,
        name: &str,
        key: &str,
        labels: &Labels,
        rebase: Option<&str>,
    ) -> Answer {
        let labels = storable(labels, false)?;
        self.lease_exists(caller)?;
        let (kept, released) = (self.snapshots(name), self.snapshots(key));
        let none = BTreeMap::new();
        let known = self.space(caller).map_or(&none, |space| &space.snapshots);
        if known.contains_key(name) {
            self.keep(caller, kept);
            return Err(AlreadyExists);
        }
        let active = known.get(key).ok_or(NotFound)?;
        if active.kind != SnapshotKind::Active {
            return Err(FailedPrecondition);
        }
        let mut parent = active.parent.clone();
        if let (None, Some(rebase)) = (&parent, rebase) {
            let onto = known.get(rebase).ok_or(NotFound)?;
            if onto.kind != SnapshotKind::Committed {
                return Err(InvalidArgument);
            }
            parent = Some(rebase.to_owned());
        }
        let space = self.made(caller);
        space.snapshots.remove(key);
        space.snapshots.insert(name.to_owned(), Snapshot { kind: SnapshotKind::Committed, parent, labels });
        self.keep(caller, kept);
        self.release(caller, &released);
        Ok(())
    }

    pub(super) fn update_snapshot(
        &mut self,
        caller: &Caller,
        key: &str,
        given: &Labels,
        paths: &[String],
    ) -> Answer {
        let space = self.spaces.get_mut(&caller.space).ok_or(NotFound)?;
        let found = space.snapshots.get_mut(key).ok_or(NotFound)?;
        found.labels = updated(&found.labels, given, paths)?;
        Ok(())
    }

    pub(super) fn remove_snapshot(&mut self, caller: &Caller, key: &str) -> Answer {
        let space = self.spaces.get_mut(&caller.space).ok_or(NotFound)?;
        if !space.snapshots.contains_key(key) {
            return Err(NotFound);
        }
        if space.snapshots.values().any(|child| child.parent.as_deref() == Some(key)) {
            return Err(FailedPrecondition);
        }
        space.snapshots.remove(key);
        let released = self.snapshots(key);
        self.release(caller, &released);
        Ok(())
    }

    // Sandboxes.

    pub(super) fn create_sandbox(&mut self, caller: &Caller, new: &Sandbox) -> Answer {
        let new = sandbox_storable(new.clone())?;
        let id = new.id.to_string();
        if self.space(caller).is_some_and(|space| space.sandboxes.contains_key(&id)) {
            return Err(AlreadyExists);
        }
        self.made(caller).sandboxes.insert(id, new);
        Ok(())
    }

    pub(super) fn update_sandbox(&mut self, caller: &Caller, given: &Sandbox, paths: &[String]) -> Answer {
        let found = self.space(caller).and_then(|space| space.sandboxes.get(given.id.as_str()));
        let mut after = found.ok_or(NotFound)?.clone();
        if paths.is_empty() {
            if after.runtime.name != given.runtime.name {
                return Err(InvalidArgument);
            }
            after = Sandbox { sandboxer: after.sandboxer, ..given.clone() };
        }
        for path in paths {
            match path.split_once('.') {
                Some(("labels", key)) => set(&mut after.labels, key, &given.labels),
                Some(("extensions", key)) => set(&mut after.extensions, key, &given.extensions),
                None if path == "labels" => after.labels.clone_from(&given.labels),
                None if path == "extensions" => after.extensions.clone_from(&given.extensions),
                None if path == "runtime" => after.runtime = given.runtime.clone(),
                None if path == "spec" => after.spec.clone_from(&given.spec),
                _ => return Err(InvalidArgument),
            }
        }
        let after = sandbox_storable(after)?;
        self.made(caller).sandboxes.insert(after.id.to_string(), after);
        Ok(())
    }

    pub(super) fn delete_sandbox(&mut self, caller: &Caller, id: &str) -> Answer {
        let space = self.spaces.get_mut(&caller.space).ok_or(NotFound)?;
        space.sandboxes.remove(id).map(drop).ok_or(NotFound)
    }

    // Content.

    pub(super) fn open_writer(
        &mut self,
        caller: &Caller,
        reference: &str,
        expected: Option<&Digest>,
        total: u64,
    ) -> Answer {
        if let Some(digest) = expected
            && self.space(caller).is_some_and(|space| space.blobs.contains_key(digest))
        {
            // Source: semantics, "Content": the lease gets the blob all the same.
            self.lease_exists(caller)?;
            self.keep(caller, content(digest));
            return Err(AlreadyExists);
        }
        let shared = expected.and_then(|digest| {
            let size = *self.files.get(digest)?;
            (total == 0 || total == size).then(|| (digest.clone(), size))
        });
        self.lease_exists(caller)?;
        let key = (caller.space.clone(), reference.to_owned());
        let is_locked = self.writers.get(&key).is_some_and(|writer| writer.shared.is_none());
        let unleased = caller.lease.is_none();
        let ingest = self.made(caller).ingests.entry(reference.to_owned()).or_default();
        ingest.unleased |= unleased;
        if let Some((digest, _)) = &shared {
            ingest.expected = Some(digest.clone());
        }
        // What was written goes on where it stands.
        let shared = shared.filter(|_| ingest.data.is_none());
        if shared.is_none() && !is_locked {
            ingest.data.get_or_insert_default();
        }
        self.keep(caller, ingests(reference));
        if is_locked {
            return Err(Unavailable);
        }
        let writer = Writer { shared, lease: caller.lease.clone(), total, expected: expected.cloned() };
        self.writers.insert(key, writer);
        Ok(())
    }

    fn writer(&mut self, caller: &Caller, reference: &str) -> (&mut Writer, &mut Ingest) {
        let key = (caller.space.clone(), reference.to_owned());
        let writer = self.writers.get_mut(&key).expect("the player asks for open writers only");
        let space = self.spaces.get_mut(&caller.space).expect("a writer has a namespace");
        (writer, space.ingests.get_mut(reference).expect("a writer has an ingest"))
    }

    /// Writes; `blob` is what a shared blob holds.
    pub(super) fn write(
        &mut self,
        caller: &Caller,
        reference: &str,
        data: &[u8],
        blob: impl Fn(&Digest) -> Vec<u8>,
    ) {
        let (writer, ingest) = self.writer(caller, reference);
        if data.is_empty() {
            return;
        }
        if let Some((digest, _)) = writer.shared.take() {
            ingest.data = Some(blob(&digest));
        }
        ingest.data.get_or_insert_default().extend_from_slice(data);
    }

    pub(super) fn truncate(&mut self, caller: &Caller, reference: &str) {
        let remote = self.remote;
        let (writer, ingest) = self.writer(caller, reference);
        // Over the wire nothing is said where nothing is to be cut.
        if remote && matches!(writer.shared, Some((_, 0))) {
            return;
        }
        writer.shared = None;
        ingest.data = Some(Vec::new());
    }

    /// How much was written, and the digest of that.
    pub(super) fn written(&mut self, caller: &Caller, reference: &str) -> (u64, Digest) {
        let (writer, ingest) = self.writer(caller, reference);
        match &writer.shared {
            Some((digest, size)) => (*size, digest.clone()),
            None => {
                let data = ingest.data.as_deref().unwrap_or_default();
                (data.len() as u64, digest_of(data))
            }
        }
    }

    /// Commits; whatever the answer, the writer is of no further use.
    pub(super) fn commit(
        &mut self,
        caller: &Caller,
        reference: &str,
        total: u64,
        expected: Option<&Digest>,
        labels: &Labels,
    ) -> Answer {
        let (size, digest) = self.written(caller, reference);
        let key = (caller.space.clone(), reference.to_owned());
        let writer = self.writers.remove(&key).expect("the player asks for open writers only");
        let labels = storable(labels, false)?;
        // Source: semantics, "Content": what the first message said counts where the last says nothing; that is the protocol's.
        let total = if total == 0 && self.remote { writer.total } else { total };
        let expected = if self.remote { expected.or(writer.expected.as_ref()) } else { expected };
        if (total != 0 && total != size) || expected.is_some_and(|expected| *expected != digest) {
            return Err(FailedPrecondition);
        }
        self.files.insert(digest.clone(), size);
        let caller = Caller { space: caller.space.clone(), lease: writer.lease };
        let space = self.made(&caller);
        // The file has moved.
        space.ingests.get_mut(reference).expect("a writer has an ingest").data = None;
        self.lease_exists(&caller)?;
        self.release(&caller, &ingests(reference));
        self.keep(&caller, content(&digest));
        let space = self.made(&caller);
        space.ingests.remove(reference);
        if space.blobs.contains_key(&digest) {
            return Err(AlreadyExists);
        }
        space.blobs.insert(digest, Blob { size, labels });
        Ok(())
    }

    pub(super) fn drop_writer(&mut self, caller: &Caller, reference: &str) -> bool {
        self.writers.remove(&(caller.space.clone(), reference.to_owned())).is_some()
    }

    pub(super) fn abort(&mut self, caller: &Caller, reference: &str) -> Answer {
        let space = self.spaces.get_mut(&caller.space).ok_or(NotFound)?;
        space.ingests.remove(reference).ok_or(NotFound)?;
        self.release(caller, &ingests(reference));
        Ok(())
    }

    pub(super) fn update_content(
        &mut self,
        caller: &Caller,
        digest: &Digest,
        given: &Labels,
        paths: &[String],
    ) -> Answer {
        let space = self.spaces.get_mut(&caller.space).ok_or(NotFound)?;
        let found = space.blobs.get_mut(digest).ok_or(NotFound)?;
        found.labels = updated(&found.labels, given, paths)?;
        Ok(())
    }

    pub(super) fn delete_content(&mut self, caller: &Caller, digest: &Digest) -> Answer {
        let space = self.spaces.get_mut(&caller.space).ok_or(NotFound)?;
        space.blobs.remove(digest).ok_or(NotFound)?;
        self.release(caller, &content(digest));
        Ok(())
    }
}

fn container_storable(mut container: Container) -> Answer<Container> {
    container.labels = storable(&container.labels, false)?;
    let unnamed = !container.snapshot_key.is_empty() && container.snapshotter.is_empty();
    if container.runtime.name.is_empty() || unnamed { Err(InvalidArgument) } else { Ok(container) }
}

fn image_storable(mut image: Image) -> Answer<Image> {
    image.labels = storable(&image.labels, false)?;
    image.target.annotations.retain(|_, value| !value.is_empty());
    if image.target.size_bytes > 0 { Ok(image) } else { Err(InvalidArgument) }
}

fn sandbox_storable(mut sandbox: Sandbox) -> Answer<Sandbox> {
    sandbox.labels = storable(&sandbox.labels, true)?;
    Ok(sandbox)
}
