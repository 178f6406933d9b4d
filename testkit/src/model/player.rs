//! Does each step twice, on the real thing and on the model, and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::TryStreamExt;
use gantry_core::content::{CommitContent, ContentWriter, OpenWriter};
use gantry_core::field_mask::FieldMask;
use gantry_core::images::DeleteImage;
use gantry_core::namespaces::NamespaceRecord;
use gantry_core::snapshots::{CommitSnapshot, NewSnapshot, SnapshotKind};
use gantry_core::{
    Context, Digest, ErrorKind, IngestRef, ItemStream, Labels, LeaseId, Namespace, Result, SnapshotKey,
};

use super::labels::{Answer, labels, paths};
use super::records::{self, DATA, lease_id, reference, snapshot_key, without_back_references};
use super::steps::{LabelChoice, Name, Step, Verb};
use super::world::{Caller, World};
use super::{Stores, Subject};

/// How long a ref may stay locked after its writer has left, over a socket.
const UNLOCKED: Duration = Duration::from_secs(20);

/// Plays the steps on a new subject.
pub(super) async fn play<S: Subject>(steps: &[Step]) {
    let subject = S::open().await;
    let stores = subject.stores();
    let world = World { snapshotter: stores.snapshotter.clone(), remote: S::REMOTE, ..World::default() };
    let mut player = Player { subject, stores, world, writers: BTreeMap::new() };
    for (number, step) in steps.iter().enumerate() {
        let what = format!("step {number}, {step:?}");
        player.step(step, &what).await;
    }
    player.compare("at the end").await;
}

struct Player<S> {
    subject: S,
    stores: Stores,
    world: World,
    writers: BTreeMap<(String, String), Box<dyn ContentWriter>>,
}

fn kind<T>(answer: Result<T>) -> Answer {
    answer.map(drop).map_err(|error| error.kind())
}

#[track_caller]
fn same(what: &str, real: Answer, model: Answer) {
    assert_eq!(real, model, "{what}: the first is real, the second the model's");
}

fn key(name: Name) -> SnapshotKey {
    SnapshotKey::parse(snapshot_key(name)).expect("a key")
}

fn ingest(name: Name) -> IngestRef {
    IngestRef::parse(reference(name)).expect("a ref")
}

async fn all<T>(what: &str, list: Result<ItemStream<T>>) -> Vec<T> {
    let list = list.unwrap_or_else(|error| panic!("{what}: {error}"));
    list.try_collect().await.unwrap_or_else(|error| panic!("{what}: {error}"))
}

impl<S: Subject> Player<S> {
    fn labels(&self, choice: &LabelChoice) -> Labels {
        labels(choice, &self.world.snapshotter)
    }

    fn paths(&self, choice: &[u8], besides: &[&str]) -> Vec<String> {
        paths(&choice.to_vec(), besides, &self.world.snapshotter)
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each operation")]
    async fn step(&mut self, step: &Step, what: &str) {
        let space = records::space(step.space);
        let mut cx = Context::new(Namespace::parse(space).expect("a namespace"));
        let caller = Caller { space: space.to_owned(), lease: step.lease.map(lease_id) };
        if let Some(lease) = &caller.lease {
            cx = cx.with_lease(LeaseId::parse(lease.as_str()).expect("a lease"));
        }
        let (stores, snapshotter) = (self.stores.clone(), self.world.snapshotter.clone());
        match &step.verb {
            Verb::CreateNamespace(choice) => {
                let labels = without_back_references(self.labels(choice));
                let new = NamespaceRecord {
                    name: Namespace::parse(space).expect("a namespace"),
                    labels: labels.clone(),
                };
                let real = kind(stores.namespaces.create(&cx, new).await);
                same(what, real, self.world.create_namespace(space, &labels));
            }
            Verb::UpdateNamespace(choice, mask) => {
                let (labels, paths) = (without_back_references(self.labels(choice)), self.paths(mask, &[]));
                let changed = NamespaceRecord {
                    name: Namespace::parse(space).expect("a namespace"),
                    labels: labels.clone(),
                };
                let real = kind(stores.namespaces.update(&cx, changed, &FieldMask::new(paths.clone())).await);
                same(what, real, self.world.update_namespace(space, &labels, &paths));
            }
            Verb::DeleteNamespace => {
                self.leave_writers(Some(space));
                let real =
                    kind(stores.namespaces.delete(&cx, &Namespace::parse(space).expect("a namespace")).await);
                same(what, real, self.world.delete_namespace(space));
            }
            Verb::CreateContainer(choice) => {
                let mut new = records::container(choice, &snapshotter);
                new.labels = without_back_references(new.labels);
                let real = kind(stores.containers.create(&cx, new.clone()).await);
                same(what, real, self.world.create_container(&caller, &new));
            }
            Verb::UpdateContainer(choice, mask) => {
                let paths = self.paths(
                    mask,
                    &["spec", "extensions", "extensions.e", "image", "snapshotkey", "snapshot_key"],
                );
                let mut given = records::container(choice, &snapshotter);
                given.labels = without_back_references(given.labels);
                let mask = FieldMask::new(paths.clone());
                let real = kind(stores.containers.update(&cx, given.clone(), &mask).await);
                same(what, real, self.world.update_container(&caller, &given, &paths));
            }
            Verb::DeleteContainer(name) => {
                let id = records::container_id(*name);
                let real = kind(stores.containers.delete(&cx, &id).await);
                same(what, real, self.world.delete_container(&caller, &id));
            }
            Verb::CreateImage(choice) => {
                let mut new = records::image(choice, &snapshotter);
                new.labels = without_back_references(new.labels);
                let real = kind(stores.images.create(&cx, new.clone(), None).await);
                same(what, real, self.world.create_image(&caller, &new));
            }
            Verb::UpdateImage(choice, mask) => {
                let paths =
                    self.paths(mask, &["target", "annotations", "annotations.k", "annotations.l", "name"]);
                let mut given = records::image(choice, &snapshotter);
                given.labels = without_back_references(given.labels);
                let mask = FieldMask::new(paths.clone());
                let real = kind(stores.images.update(&cx, given.clone().into(), &mask, None).await);
                same(what, real, self.world.update_image(&caller, &given, &paths));
            }
            Verb::DeleteImage { name, if_target, sync } => {
                let (name, if_target) = (records::image_name(*name), if_target.map(records::digest));
                if *sync {
                    self.leave_writers(None);
                }
                let how = DeleteImage { sync: *sync, if_target: if_target.clone() };
                let real = kind(stores.images.delete(&cx, &name, how).await);
                let model = self.world.delete_image(&caller, &name, if_target.as_ref());
                same(what, real, model);
                if *sync && model.is_ok() {
                    self.world.collect();
                    self.compare(what).await;
                }
            }
            Verb::OpenWriter { reference: name, expected, total } => {
                self.open_writer(&cx, &caller, *name, expected.map(records::digest), u64::from(*total), what)
                    .await;
            }
            Verb::Write { reference: name, data } => {
                let Some(writer) = self.writers.get_mut(&(caller.space.clone(), reference(*name))) else {
                    return;
                };
                let data = DATA[usize::from(*data) % DATA.len()].as_bytes();
                let real = kind(writer.write(Bytes::from_static(data)).await);
                same(what, real, Ok(()));
                self.world.write(&caller, &reference(*name), data, blob_of);
                self.written(&caller, *name, what).await;
            }
            Verb::Truncate(name) => {
                let Some(writer) = self.writers.get_mut(&(caller.space.clone(), reference(*name))) else {
                    return;
                };
                let real = kind(writer.truncate(0).await);
                same(what, real, Ok(()));
                self.world.truncate(&caller, &reference(*name));
                self.written(&caller, *name, what).await;
            }
            Verb::Commit { reference: name, expected, total, labels } => {
                let Some(mut writer) = self.writers.remove(&(caller.space.clone(), reference(*name))) else {
                    return;
                };
                let (labels, expected) = (self.labels(labels), expected.map(records::digest));
                let total_bytes = u64::from(*total);
                let how = CommitContent { total_bytes, expected: expected.clone(), labels: labels.clone() };
                let real = kind(writer.commit(how).await);
                drop(writer);
                let model =
                    self.world.commit(&caller, &reference(*name), total_bytes, expected.as_ref(), &labels);
                same(what, real, model);
            }
            Verb::DropWriter(name) => self.leave_writer(&caller, *name),
            Verb::Abort(name) => {
                // What becomes of a writer whose ingest was aborted is the store's behind.
                self.leave_writer(&caller, *name);
                let real = kind(stores.content.abort(&cx, &ingest(*name)).await);
                same(what, real, self.world.abort(&caller, &reference(*name)));
            }
            Verb::UpdateContent { digest, labels, mask } => {
                let (digest, labels, paths) =
                    (records::digest(*digest), self.labels(labels), self.paths(mask, &["size"]));
                let mask = FieldMask::new(paths.clone());
                let real = kind(stores.content.update(&cx, &digest, labels.clone(), &mask).await);
                same(what, real, self.world.update_content(&caller, &digest, &labels, &paths));
            }
            Verb::DeleteContent(name) => {
                let digest = records::digest(*name);
                let real = kind(stores.content.delete(&cx, &digest).await);
                same(what, real, self.world.delete_content(&caller, &digest));
            }
            Verb::CreateLease { id, labels } => {
                let labels = without_back_references(self.labels(labels));
                let lease = LeaseId::parse(lease_id(*id)).expect("a lease");
                let real = kind(stores.leases.create(&cx, Some(lease), labels.clone()).await);
                same(what, real, self.world.create_lease(&caller, &lease_id(*id), &labels));
            }
            Verb::DeleteLease { id, sync } => {
                if *sync {
                    self.leave_writers(None);
                }
                let lease = LeaseId::parse(lease_id(*id)).expect("a lease");
                let real = kind(stores.leases.delete(&cx, &lease, *sync).await);
                let model = self.world.delete_lease(&caller, &lease_id(*id));
                same(what, real, model);
                if *sync && model.is_ok() {
                    self.world.collect();
                    self.compare(what).await;
                }
            }
            Verb::AddResource { id, resource } | Verb::DeleteResource { id, resource } => {
                let add = matches!(step.verb, Verb::AddResource { .. });
                let resource = records::resource(resource, &snapshotter);
                let lease = LeaseId::parse(lease_id(*id)).expect("a lease");
                let real = if add {
                    stores.leases.add_resource(&cx, &lease, resource.clone()).await
                } else {
                    stores.leases.delete_resource(&cx, &lease, resource.clone()).await
                };
                let model = self.world.change_resource(&caller, &lease_id(*id), &resource, add);
                same(what, kind(real), model);
            }
            Verb::MakeSnapshot { view, key: name, parent, labels } => {
                let labels = self.labels(labels);
                let new = NewSnapshot { key: key(*name), parent: parent.map(key), labels: labels.clone() };
                let (real, made) = if *view {
                    (stores.snapshots.view(&cx, new).await, SnapshotKind::View)
                } else {
                    (stores.snapshots.prepare(&cx, new).await, SnapshotKind::Active)
                };
                let parent = parent.map(snapshot_key);
                let model =
                    self.world.make_snapshot(&caller, made, &snapshot_key(*name), parent.as_deref(), &labels);
                same(what, kind(real), model);
            }
            Verb::CommitSnapshot { name, key: active, labels, rebase } => {
                let (labels, rebase) = (self.labels(labels), rebase.filter(|_| S::REBASES));
                let how = CommitSnapshot {
                    name: key(*name),
                    key: key(*active),
                    labels: labels.clone(),
                    parent: rebase.map(key),
                };
                let real = kind(stores.snapshots.commit(&cx, how).await);
                let (name, active, rebase) =
                    (snapshot_key(*name), snapshot_key(*active), rebase.map(snapshot_key));
                same(
                    what,
                    real,
                    self.world.commit_snapshot(&caller, &name, &active, &labels, rebase.as_deref()),
                );
            }
            Verb::UpdateSnapshot { key: name, labels, mask } => {
                let (labels, paths) = (self.labels(labels), self.paths(mask, &["parent", "kind"]));
                let mask = FieldMask::new(paths.clone());
                let real = kind(stores.snapshots.update(&cx, &key(*name), labels.clone(), &mask).await);
                same(what, real, self.world.update_snapshot(&caller, &snapshot_key(*name), &labels, &paths));
            }
            Verb::RemoveSnapshot(name) => {
                let real = kind(stores.snapshots.remove(&cx, &key(*name)).await);
                same(what, real, self.world.remove_snapshot(&caller, &snapshot_key(*name)));
            }
            Verb::CreateSandbox { id, runtime, labels, extension } => {
                let mut new = records::sandbox(*id, *runtime, labels, *extension, &snapshotter);
                new.labels = without_back_references(new.labels);
                let real = kind(stores.sandboxes.create(&cx, new.clone()).await);
                same(what, real, self.world.create_sandbox(&caller, &new));
            }
            Verb::UpdateSandbox { id, runtime, labels, extension, mask } => {
                let paths = self.paths(mask, &["spec", "extensions", "extensions.e", "runtime", "sandboxer"]);
                let mut given = records::sandbox(*id, *runtime, labels, *extension, &snapshotter);
                given.labels = without_back_references(given.labels);
                let mask = FieldMask::new(paths.clone());
                let real = kind(stores.sandboxes.update(&cx, given.clone(), &mask).await);
                same(what, real, self.world.update_sandbox(&caller, &given, &paths));
            }
            Verb::DeleteSandbox(name) => {
                let id = records::sandbox_id(*name);
                let real = kind(stores.sandboxes.delete(&cx, &id).await);
                same(what, real, self.world.delete_sandbox(&caller, &id));
            }
            Verb::Look { name, filter } => self.look(&cx, &caller, *name, *filter, what).await,
            Verb::Collect => {
                self.leave_writers(None);
                self.collect(&cx, what).await;
                self.world.collect();
                self.compare(what).await;
            }
            Verb::Reopen => {
                self.leave_writers(None);
                self.subject.reopen().await;
                self.stores = self.subject.stores();
                self.compare(what).await;
            }
        }
    }

    /// Collects by the one way that every subject has: a lease is deleted, and its deletion waits.
    async fn collect(&mut self, cx: &Context, what: &str) {
        let lease = LeaseId::parse("to collect").expect("a lease");
        let made = kind(self.stores.leases.create(cx, Some(lease.clone()), Labels::new()).await);
        same(what, made, Ok(()));
        same(what, kind(self.stores.leases.delete(cx, &lease, true).await), Ok(()));
        // The first write into it made the namespace.
        let space = cx.namespace().expect("a namespace").to_string();
        self.world.spaces.entry(space).or_default();
    }

    async fn open_writer(
        &mut self,
        cx: &Context,
        caller: &Caller,
        name: Name,
        expected: Option<Digest>,
        total_bytes: u64,
        what: &str,
    ) {
        let place = (caller.space.clone(), reference(name));
        // Two writers without data of their own do not know of each other.
        if self.world.writers.get(&place).is_some_and(|writer| writer.shared.is_some()) {
            self.leave_writer(caller, name);
        }
        let model = self.world.open_writer(caller, &place.1, expected.as_ref(), total_bytes);
        let open = OpenWriter { reference: ingest(name), total_bytes, expected };
        let asked = Instant::now();
        let writer = loop {
            match self.stores.content.writer(cx, open.clone()).await {
                // The other side of a socket learns in its own time that a writer has left.
                Err(error)
                    if S::REMOTE
                        && error.kind() == ErrorKind::Unavailable
                        && model != Err(ErrorKind::Unavailable)
                        && asked.elapsed() < UNLOCKED =>
                {
                    tokio::task::yield_now().await;
                }
                answer => break answer,
            }
        };
        match writer {
            Ok(writer) => {
                same(what, Ok(()), model);
                self.writers.insert(place, writer);
                self.written(caller, name, what).await;
            }
            Err(error) => same(what, Err(error.kind()), model),
        }
    }

    /// Compares what a writer says of itself.
    async fn written(&mut self, caller: &Caller, name: Name, what: &str) {
        let place = (caller.space.clone(), reference(name));
        let writer = self.writers.get_mut(&place).expect("an open writer");
        let status = writer.status().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let digest = writer.digest().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let model = self.world.written(caller, &place.1);
        assert_eq!((status.offset_bytes, digest), model, "{what}: what was written");
    }

    fn leave_writer(&mut self, caller: &Caller, name: Name) {
        let place = (caller.space.clone(), reference(name));
        let real = self.writers.remove(&place).is_some();
        assert_eq!(real, self.world.drop_writer(caller, &place.1));
    }

    /// Drops the writers of a namespace, or all.
    fn leave_writers(&mut self, space: Option<&str>) {
        self.writers.retain(|(of, _), _| space.is_some_and(|space| of != space));
        self.world.writers.retain(|(of, _), _| space.is_some_and(|space| of != space));
    }

    /// Compares single records and filtered lists.
    async fn look(&self, cx: &Context, caller: &Caller, name: Name, filter: u8, what: &str) {
        let empty = super::world::Space::default();
        let space = self.world.spaces.get(&caller.space).unwrap_or(&empty);
        let found = |there: bool| if there { Ok(()) } else { Err(ErrorKind::NotFound) };
        let id = records::container_id(name);
        same(
            what,
            kind(self.stores.containers.get(cx, &id).await),
            found(space.containers.contains_key(&id)),
        );
        let id = records::image_name(name);
        same(what, kind(self.stores.images.get(cx, &id).await), found(space.images.contains_key(&id)));
        let id = records::sandbox_id(name);
        same(what, kind(self.stores.sandboxes.get(cx, &id).await), found(space.sandboxes.contains_key(&id)));
        let digest = records::digest(name);
        let there = found(space.blobs.contains_key(&digest));
        same(what, kind(self.stores.content.info(cx, &digest).await), there);
        let read = match self.stores.content.reader(cx, &digest).await {
            Ok(reader) => reader.read_at(0, 10).await,
            Err(error) => Err(error),
        };
        if let Ok(data) = &read {
            assert_eq!(records::digest_of(data), digest, "{what}: what a blob holds");
        }
        same(what, kind(read), there);
        let snapshot = space.snapshots.get(&snapshot_key(name));
        same(what, kind(self.stores.snapshots.stat(cx, &key(name)).await), found(snapshot.is_some()));
        let mounts = match snapshot.map(|snapshot| snapshot.kind) {
            None => Err(ErrorKind::NotFound),
            Some(SnapshotKind::Committed) => Err(ErrorKind::FailedPrecondition),
            Some(_) => Ok(()),
        };
        same(what, kind(self.stores.snapshots.mounts(cx, &key(name)).await), mounts);
        let lease = LeaseId::parse(lease_id(name)).expect("a lease");
        let there = found(space.leases.contains_key(&lease_id(name)));
        same(what, kind(self.stores.leases.resources(cx, &lease).await), there);
        self.look_at_lists(cx, space, filter, what).await;
    }

    async fn look_at_lists(&self, cx: &Context, space: &super::world::Space, filter: u8, what: &str) {
        let chosen = |labels: &Labels| match filter {
            0 => labels.contains_key("x"),
            1 => labels.get("x").is_some_and(|value| value == "1"),
            2 => labels.get("x").is_none_or(|value| value != "1"),
            3 => labels.contains_key("y.z") || labels.contains_key("x"),
            4 => labels.contains_key("containerd.io/gc.root") && labels.contains_key("x"),
            5 => labels.get("long").is_some_and(|value| value.contains("vv")),
            _ => true,
        };
        let filters: Vec<String> = match filter {
            0 => vec!["labels.x"],
            1 => vec!["labels.x==1"],
            2 => vec!["labels.x!=1"],
            3 => vec!["labels.y.z", "labels.\"x\""],
            4 => vec!["labels.\"containerd.io/gc.root\",labels.x"],
            5 => vec!["labels.long~=/v+/"],
            _ => vec![],
        }
        .into_iter()
        .map(str::to_owned)
        .collect();
        fn keys<'a, K: ToString + 'a, V: 'a>(
            map: &'a BTreeMap<K, V>,
            labels: impl Fn(&V) -> &Labels,
            chosen: &impl Fn(&Labels) -> bool,
        ) -> Vec<String> {
            map.iter().filter(|(_, record)| chosen(labels(record))).map(|(key, _)| key.to_string()).collect()
        }
        let real = all(what, self.stores.containers.list(cx, &filters).await).await;
        let real: Vec<_> = real.into_iter().map(|container| container.id.into_string()).collect();
        assert_eq!(
            real,
            keys(&space.containers, |record| &record.labels, &chosen),
            "{what}: containers {filters:?}"
        );
        let real = all(what, self.stores.images.list(cx, &filters).await).await;
        let real: Vec<_> = real.into_iter().map(|image| image.name).collect();
        assert_eq!(real, keys(&space.images, |record| &record.labels, &chosen), "{what}: images {filters:?}");
        let real = all(what, self.stores.content.list(cx, &filters).await).await;
        let real: Vec<_> = real.into_iter().map(|info| info.digest.to_string()).collect();
        assert_eq!(real, keys(&space.blobs, |record| &record.labels, &chosen), "{what}: blobs {filters:?}");
        let real = all(what, self.stores.snapshots.list(cx, &filters).await).await;
        let real: Vec<_> = real.into_iter().map(|info| info.name.to_string()).collect();
        assert_eq!(
            real,
            keys(&space.snapshots, |record| &record.labels, &chosen),
            "{what}: snapshots {filters:?}"
        );
        let real =
            self.stores.leases.list(cx, &filters).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let real: Vec<_> = real.into_iter().map(|lease| lease.id.to_string()).collect();
        assert_eq!(real, keys(&space.leases, |record| &record.labels, &chosen), "{what}: leases {filters:?}");
        let real =
            self.stores.sandboxes.list(cx, &filters).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let real: Vec<_> = real.into_iter().map(|sandbox| sandbox.id.to_string()).collect();
        assert_eq!(
            real,
            keys(&space.sandboxes, |record| &record.labels, &chosen),
            "{what}: sandboxes {filters:?}"
        );
    }

    /// Compares everything that is stored.
    async fn compare(&self, when: &str) {
        let cx = Context::background();
        let real = self.stores.namespaces.list(&cx).await.unwrap_or_else(|error| panic!("{when}: {error}"));
        let real: Vec<_> = real.into_iter().map(|record| (record.name.to_string(), record.labels)).collect();
        let model: Vec<_> =
            self.world.spaces.iter().map(|(name, space)| (name.clone(), space.labels.clone())).collect();
        assert_eq!(real, model, "{when}: namespaces");
        for (name, space) in &self.world.spaces {
            self.compare_space(name, space, &format!("{when}: namespace {name}")).await;
        }
        if let Some(behind) = &self.stores.behind {
            let files = all(when, behind.list(&cx, &[]).await).await;
            let files: BTreeMap<_, _> =
                files.into_iter().map(|info| (info.digest, info.size_bytes)).collect();
            // What no record names may go, or be left, until the next collection.
            let unseen =
                |digest: &&Digest| !self.world.spaces.values().any(|space| space.blobs.contains_key(*digest));
            let lost: Vec<_> = self
                .world
                .files
                .keys()
                .filter(|digest| !unseen(digest) && !files.contains_key(*digest))
                .collect();
            assert!(lost.is_empty(), "{when}: records without data: {lost:?}");
            let left: Vec<_> =
                files.keys().filter(|digest| !self.world.files.contains_key(*digest)).collect();
            assert!(left.is_empty(), "{when}: data that nothing keeps: {left:?}");
        }
    }

    async fn compare_space(&self, name: &str, space: &super::world::Space, when: &str) {
        let cx = Context::new(Namespace::parse(name).expect("a namespace"));
        let mut containers = all(when, self.stores.containers.list(&cx, &[]).await).await;
        for container in &mut containers {
            (container.created_at, container.updated_at) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        }
        assert_eq!(containers, space.containers.values().cloned().collect::<Vec<_>>(), "{when}: containers");
        let mut images = all(when, self.stores.images.list(&cx, &[]).await).await;
        for image in &mut images {
            (image.created_at, image.updated_at) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        }
        assert_eq!(images, space.images.values().cloned().collect::<Vec<_>>(), "{when}: images");
        let blobs = all(when, self.stores.content.list(&cx, &[]).await).await;
        let blobs: Vec<_> =
            blobs.into_iter().map(|info| (info.digest, info.size_bytes, info.labels)).collect();
        let model: Vec<_> = space
            .blobs
            .iter()
            .map(|(digest, blob)| (digest.clone(), blob.size, blob.labels.clone()))
            .collect();
        assert_eq!(blobs, model, "{when}: blobs");
        let snapshots = all(when, self.stores.snapshots.list(&cx, &[]).await).await;
        let snapshots: Vec<_> = snapshots
            .into_iter()
            .map(|info| {
                (info.name.to_string(), info.kind, info.parent.map(|parent| parent.to_string()), info.labels)
            })
            .collect();
        let model: Vec<_> = space
            .snapshots
            .iter()
            .map(|(key, snapshot)| {
                (key.clone(), snapshot.kind, snapshot.parent.clone(), snapshot.labels.clone())
            })
            .collect();
        assert_eq!(snapshots, model, "{when}: snapshots");
        let sandboxes = self.stores.sandboxes.list(&cx, &[]).await;
        let mut sandboxes = sandboxes.unwrap_or_else(|error| panic!("{when}: {error}"));
        for sandbox in &mut sandboxes {
            (sandbox.created_at, sandbox.updated_at) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        }
        assert_eq!(sandboxes, space.sandboxes.values().cloned().collect::<Vec<_>>(), "{when}: sandboxes");
        let leases =
            self.stores.leases.list(&cx, &[]).await.unwrap_or_else(|error| panic!("{when}: {error}"));
        let leases: BTreeMap<_, _> =
            leases.into_iter().map(|lease| (lease.id.into_string(), lease.labels)).collect();
        let model: BTreeMap<_, _> =
            space.leases.iter().map(|(id, lease)| (id.clone(), lease.labels.clone())).collect();
        assert_eq!(leases, model, "{when}: leases");
        for (id, lease) in &space.leases {
            let resources =
                self.stores.leases.resources(&cx, &LeaseId::parse(id.as_str()).expect("a lease")).await;
            let resources: BTreeSet<_> =
                resources.unwrap_or_else(|error| panic!("{when}: {error}")).into_iter().collect();
            assert_eq!(resources, lease.resources, "{when}: what lease {id:?} keeps");
        }
        let ingests =
            self.stores.content.statuses(&cx, &[]).await.unwrap_or_else(|error| panic!("{when}: {error}"));
        let ingests: BTreeMap<_, _> =
            ingests.into_iter().map(|status| (status.reference.to_string(), status.offset_bytes)).collect();
        let model: BTreeMap<_, _> = space
            .ingests
            .iter()
            .filter_map(|(name, ingest)| Some((name.clone(), ingest.data.as_ref()?.len() as u64)))
            .collect();
        assert_eq!(ingests, model, "{when}: writes in progress");
    }
}

/// What a blob of the choice holds.
fn blob_of(digest: &Digest) -> Vec<u8> {
    let known = (0..=u8::MAX).find(|name| records::digest(*name) == *digest);
    known.map(records::content).expect("blobs that are expected are of the choice")
}
