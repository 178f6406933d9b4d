use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use gantry_core::containers::{Container, ContainerStore};
use gantry_core::content::{ContentStore, OpenWriter};
use gantry_core::images::{Image, ImageStore};
use gantry_core::leases::{LeaseManager, LeaseResource};
use gantry_core::maintenance::{
    Doom, Doomed, Edge, Explanation, Fate, Maintenance, ObjectKind, ObjectName, RootReason,
};
use gantry_core::snapshots::{NewSnapshot, SnapshotDriver, Snapshotter};
use gantry_core::{ContainerId, Context, Digest, ErrorKind, IngestRef, Labels, LeaseId};

use crate::images::image;
use crate::snapshots::{commit, committed, new};
use crate::support::{World, all, cx, labels, leased};

const REF: &str = "containerd.io/gc.ref.content";
const REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.plain";
const ROOT: &str = "containerd.io/gc.root";
const EXPIRE: &str = "containerd.io/gc.expire";
const PAST: &str = "2020-01-01T00:00:00Z";
const FUTURE: &str = "2100-01-01T00:00:00Z";

fn n() -> Context {
    cx("n")
}

fn object(kind: ObjectKind, name: impl ToString) -> ObjectName {
    let snapshotter = if kind == ObjectKind::Snapshot { "plain".to_owned() } else { String::new() };
    ObjectName { kind, namespace: "n".to_owned(), snapshotter, name: name.to_string() }
}

async fn explain(world: &World, kind: ObjectKind, name: impl ToString) -> Explanation {
    world.metadata.maintenance().explain(&n(), &object(kind, name)).await.unwrap()
}

/// Chains as `kind name edge, ...: root`.
fn told(explanation: &Explanation) -> Vec<String> {
    let chain = |chain: &gantry_core::maintenance::Chain| {
        let holders: Vec<String> = chain
            .holders
            .iter()
            .map(|holder| {
                let name = holder.object.name.trim_start_matches("sha256:");
                format!("{} {} {:?}", holder.object.kind, &name[..name.len().min(8)], holder.edge)
            })
            .collect();
        format!("{}: {:?}", holders.join(", "), chain.root)
    };
    explanation.chains.iter().map(chain).collect()
}

async fn put_image(world: &World, name: &str, target: &Digest, with: &[(&str, &str)]) {
    let mut new: Image = image(name);
    new.target.digest = target.clone();
    new.labels = labels(with);
    world.metadata.images().create(&n(), new, None).await.unwrap();
}

async fn put_container(world: &World, id: &str, snapshot: &str) {
    let mut container = Container::new(ContainerId::parse(id).unwrap(), "runtime");
    container.snapshotter = "plain".into();
    container.snapshot_key = snapshot.into();
    world.metadata.containers().create(&n(), container).await.unwrap();
}

async fn put_lease(world: &World, id: &str, with: &[(&str, &str)], keeps: &[(&str, &str)]) {
    let id = LeaseId::parse(id).unwrap();
    world.metadata.leases().create(&n(), Some(id.clone()), labels(with)).await.unwrap();
    for (kind, name) in keeps {
        let resource = LeaseResource { id: (*name).to_owned(), kind: (*kind).to_owned() };
        world.metadata.leases().add_resource(&n(), &id, resource).await.unwrap();
    }
}

#[tokio::test]
async fn a_layer_is_explained_up_to_its_image_and_lease_and_a_loose_blob_goes() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let layer = world.blob(&n(), b"layer", Labels::new()).await;
    let manifest =
        world.blob(&n(), b"manifest", labels(&[("containerd.io/gc.ref.content.l.0", layer.as_str())])).await;
    put_image(&world, "i", &manifest, &[]).await;
    put_lease(&world, "l", &[(EXPIRE, FUTURE)], &[("content", layer.as_str())]).await;
    let loose = world.blob(&n(), b"loose", Labels::new()).await;

    let explained = explain(&world, ObjectKind::Content, &layer).await;
    assert_eq!(explained.fate, Fate::Kept);
    let at = gantry_core::time::from_parts(4_102_444_800, 0).unwrap();
    let manifest = &manifest.hex()[..8];
    assert_eq!(
        told(&explained),
        [
            format!("lease l LeaseResource: {:?}", RootReason::Lease(Some(at))),
            format!(
                "content {manifest} {:?}, image i Target: Image",
                Edge::Label("containerd.io/gc.ref.content.l.0".to_owned())
            ),
        ]
    );
    let image = explain(&world, ObjectKind::Image, "i").await;
    assert_eq!(told(&image), [": Image"]);
    let loose = explain(&world, ObjectKind::Content, &loose).await;
    assert_eq!((loose.fate, loose.chains.len()), (Fate::Collected, 0));
    let missing = object(ObjectKind::Image, "none");
    let error = world.metadata.maintenance().explain(&n(), &missing).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, "image none: not found"));
    let elsewhere = world.metadata.maintenance().explain(&cx("m"), &object(ObjectKind::Image, "i")).await;
    assert_eq!(elsewhere.unwrap_err().kind(), ErrorKind::NotFound);
    let mut nobodys = object(ObjectKind::Snapshot, "k");
    nobodys.snapshotter.clear();
    let error = world.metadata.maintenance().explain(&n(), &nobodys).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_base_layer_is_explained_by_the_container_that_stands_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    committed(&snapshotter, &n(), "base", None).await;
    snapshotter.prepare(&n(), new("top", Some("base"))).await.unwrap();
    snapshotter.commit(&n(), commit("mid", "top")).await.unwrap();
    snapshotter.prepare(&n(), new("root", Some("mid"))).await.unwrap();
    put_container(&world, "c", "root").await;
    let explained = explain(&world, ObjectKind::Snapshot, "base").await;
    assert_eq!(
        told(&explained),
        ["snapshot mid Parent, snapshot root Parent, container c RootFilesystem: Container"]
    );
    let rooted = NewSnapshot { labels: labels(&[(ROOT, "x")]), ..new("pin", Some("base")) };
    snapshotter.prepare(&n(), rooted).await.unwrap();
    let explained = explain(&world, ObjectKind::Snapshot, "base").await;
    assert_eq!(told(&explained)[0], format!("snapshot pin Parent: {:?}", RootReason::Label(ROOT.to_owned())));
    assert_eq!(explained.chains.len(), 2);
}

#[tokio::test]
async fn every_other_kind_of_holder_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    // A back reference, and a condition that holds.
    let bref = "containerd.io/gc.bref.image";
    let back = world.blob(&n(), b"back", labels(&[(bref, "i")])).await;
    let target = world.blob(&n(), b"target", Labels::new()).await;
    put_image(&world, "i", &target, &[]).await;
    let explained = explain(&world, ObjectKind::Content, &back).await;
    assert_eq!(told(&explained), [format!("image i {:?}: Image", Edge::BackReference(bref.to_owned()))]);
    let now = SystemTime::now();
    let used = time::OffsetDateTime::from(now - Duration::from_secs(60));
    let used = used.format(&time::format_description::well_known::Rfc3339).unwrap();
    let with = labels(&[(ROOT, "x"), ("containerd.io/gc.cond.value-usedat", &used)]);
    snapshotter.prepare(&n(), NewSnapshot { labels: with, ..new("used", None) }).await.unwrap();
    let cond = "containerd.io/gc.cond.snapshot.plain";
    let conditional = world.blob(&n(), b"conditional", labels(&[(cond, "usedat<1h|used")])).await;
    let explained = explain(&world, ObjectKind::Content, &conditional).await;
    let edge = Edge::Condition(cond.to_owned());
    let root = RootReason::Label(ROOT.to_owned());
    assert_eq!(told(&explained), [format!("snapshot used {edge:?}: {root:?}")]);
    // Until a time to come.
    let until = world.blob(&n(), b"until", labels(&[(EXPIRE, FUTURE)])).await;
    let explained = explain(&world, ObjectKind::Content, &until).await;
    assert!(matches!(explained.chains[0].root, RootReason::Unexpired(_)), "{explained:?}");
    // An expired image goes, unless a lease keeps it; it is told that it expired.
    put_image(&world, "old", &target, &[(EXPIRE, PAST)]).await;
    let explained = explain(&world, ObjectKind::Image, "old").await;
    assert_eq!((explained.fate, explained.chains.len()), (Fate::Collected, 0));
    assert!(explained.expired.is_some());
    put_lease(&world, "l", &[], &[("images", "old")]).await;
    let explained = explain(&world, ObjectKind::Image, "old").await;
    assert_eq!((explained.fate, explained.chains.len()), (Fate::Kept, 1));
    assert!(explained.expired.is_some());
    // A write in progress by itself, and one by its lease.
    let open = |cx: Context, name: &str| {
        let content = world.metadata.content();
        let reference = IngestRef::parse(name).unwrap();
        async move {
            let open = OpenWriter { reference, total_bytes: 0, expected: None };
            let mut writer = content.writer(&cx, open).await.unwrap();
            writer.write(Bytes::from_static(b"x")).await.unwrap();
        }
    };
    open(n(), "free").await;
    open(leased("n", "l"), "held").await;
    let explained = explain(&world, ObjectKind::Ingest, "free").await;
    assert!(matches!(explained.chains[0].root, RootReason::Ingest(Some(_))), "{explained:?}");
    let explained = explain(&world, ObjectKind::Ingest, "held").await;
    assert_eq!(told(&explained), ["lease l LeaseResource: Lease(None)"]);
}

#[tokio::test]
async fn more_holders_than_are_told_are_counted_and_a_long_chain_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let blob = world.blob(&n(), b"shared", Labels::new()).await;
    for number in 0..100 {
        put_image(&world, &format!("i{number}"), &blob, &[]).await;
    }
    let explained = explain(&world, ObjectKind::Content, &blob).await;
    assert_eq!((explained.chains.len(), explained.more), (32, 68));
    // Each blob refers to the one before.
    let mut last = world.blob(&n(), b"0", Labels::new()).await;
    let first = last.clone();
    for number in 1..=200 {
        last = world.blob(&n(), number.to_string().as_bytes(), labels(&[(REF, last.as_str())])).await;
    }
    put_image(&world, "end", &last, &[]).await;
    let explained = explain(&world, ObjectKind::Content, &first).await;
    let [chain] = explained.chains.as_slice() else { panic!("one chain: {explained:?}") };
    assert_eq!((chain.holders.len(), chain.omitted), (64, 201 - 64));
    assert_eq!(chain.holders.last().unwrap().object.name, "end");
}

#[tokio::test]
async fn what_was_deleted_and_waits_for_the_collection_is_in_the_preview() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    world.metadata.collect().await.unwrap();
    let blob = world.blob(&n(), b"twelve bytes", Labels::new()).await;
    world.blob(&cx("m"), b"twelve bytes", labels(&[(ROOT, "x")])).await;
    let preview = async |cx: &Context| all(world.metadata.maintenance().preview(cx).await.unwrap()).await;
    // Another namespace keeps the file.
    let [doomed] = preview(&n()).await.try_into().unwrap();
    assert_eq!((doomed.why, doomed.size_bytes, doomed.freed_bytes), (Doom::Unreferenced, Some(12), 0));
    assert!(preview(&cx("m")).await.is_empty());
    world.metadata.content().delete(&n(), &blob).await.unwrap();
    assert!(preview(&Context::background()).await.is_empty());
    world.metadata.content().delete(&cx("m"), &blob).await.unwrap();
    let [doomed] = preview(&Context::background()).await.try_into().unwrap();
    assert_eq!((doomed.why, doomed.freed_bytes), (Doom::NoRecord, 12));
    assert_eq!((doomed.object.name.as_str(), doomed.object.namespace.as_str()), (blob.as_str(), ""));
    assert!(preview(&n()).await.is_empty());
    world.metadata.collect().await.unwrap();
    assert!(preview(&Context::background()).await.is_empty());
}

#[tokio::test]
async fn a_file_that_only_an_ended_write_kept_is_in_the_preview() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    world.metadata.collect().await.unwrap();
    let blob = world.blob(&cx("m"), b"twelve bytes", Labels::new()).await;
    put_lease(&world, "l", &[], &[]).await;
    let reference = IngestRef::parse("r").unwrap();
    let open = OpenWriter { reference, total_bytes: 0, expected: Some(blob.clone()) };
    drop(world.metadata.content().writer(&leased("n", "l"), open).await.unwrap());
    world.metadata.content().delete(&cx("m"), &blob).await.unwrap();
    let preview = async || {
        let all: Vec<Doomed> =
            all(world.metadata.maintenance().preview(&Context::background()).await.unwrap()).await;
        all.into_iter().map(|doomed| (doomed.object.kind, doomed.freed_bytes)).collect::<Vec<_>>()
    };
    assert_eq!(preview().await, []);
    world.metadata.leases().delete(&n(), &LeaseId::parse("l").unwrap(), false).await.unwrap();
    assert_eq!(preview().await, [(ObjectKind::Ingest, 0), (ObjectKind::Content, 12)]);
    assert!(world.content.blob_path(&blob).exists());
    world.metadata.collect().await.unwrap();
    assert!(!world.content.blob_path(&blob).exists());
    assert_eq!(preview().await, []);
}

/// Numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        // Source: Knuth's MMIX generator.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.below(from.len())) }
    }
}

/// Fills a store with objects of every kind that refer to one another at random.
async fn populate(world: &World, dice: &mut Dice) {
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    for namespace in ["n", "m"] {
        let cx = cx(namespace);
        let (mut blobs, mut chains, mut images): (Vec<Digest>, Vec<String>, Vec<String>) = Default::default();
        for number in 0..10 {
            let key = format!("s{number}");
            let parent = if dice.below(2) == 0 { dice.pick(&chains).cloned() } else { None };
            let with = if dice.below(6) == 0 { labels(&[(ROOT, "x")]) } else { Labels::new() };
            let prepared = NewSnapshot { labels: with, ..new(&key, parent.as_deref()) };
            snapshotter.prepare(&cx, prepared).await.unwrap();
            if dice.below(3) > 0 {
                let name = format!("c{number}");
                snapshotter.commit(&cx, commit(&name, &key)).await.unwrap();
                chains.push(name);
            }
        }
        for number in 0..14 {
            let mut with = Labels::new();
            for label in 0..dice.below(3) {
                if let Some(to) = dice.pick(&blobs) {
                    with.insert(format!("{REF}.{label}"), to.to_string());
                }
            }
            if dice.below(4) == 0
                && let Some(to) = dice.pick(&chains)
            {
                with.insert(REF_SNAPSHOT.to_owned(), to.clone());
            }
            match dice.below(12) {
                0 => drop(with.insert(ROOT.to_owned(), "x".to_owned())),
                1 => drop(with.insert(EXPIRE.to_owned(), PAST.to_owned())),
                2 => drop(with.insert(EXPIRE.to_owned(), FUTURE.to_owned())),
                3 => {
                    drop(with.insert("containerd.io/gc.bref.image".to_owned(), format!("i{}", dice.below(4))))
                }
                _ => {}
            }
            // The same bytes in both namespaces, mostly.
            let data = format!("blob {number} {}", if dice.below(4) == 0 { namespace } else { "" });
            blobs.push(world.blob(&cx, data.as_bytes(), with).await);
        }
        for number in 0..4 {
            let Some(target) = dice.pick(&blobs) else { continue };
            let mut new: Image = image(&format!("i{number}"));
            new.target.digest = target.clone();
            new.labels = match dice.below(3) {
                0 => labels(&[(EXPIRE, PAST)]),
                _ => Labels::new(),
            };
            world.metadata.images().create(&cx, new, None).await.unwrap();
            images.push(format!("i{number}"));
        }
        for number in 0..4 {
            let mut with = Labels::new();
            if dice.below(2) == 0 {
                with.insert("containerd.io/gc.flat".to_owned(), "x".to_owned());
            }
            if dice.below(3) == 0 {
                with.insert(EXPIRE.to_owned(), PAST.to_owned());
            }
            let id = LeaseId::parse(format!("l{number}")).unwrap();
            let leases = world.metadata.leases();
            leases.create(&cx, Some(id.clone()), with).await.unwrap();
            for _ in 0..dice.below(4) {
                let resource = match dice.below(3) {
                    0 => ("content", dice.pick(&blobs).map(ToString::to_string)),
                    1 => ("snapshots/plain", dice.pick(&chains).cloned()),
                    _ => ("images", dice.pick(&images).cloned()),
                };
                let (kind, Some(name)) = resource else { continue };
                let resource = LeaseResource { id: name, kind: kind.to_owned() };
                leases.add_resource(&cx, &id, resource).await.unwrap();
            }
        }
        if let Some(number) = (dice.below(2) == 0).then(|| dice.below(10)) {
            let mut container = Container::new(ContainerId::parse("c").unwrap(), "runtime");
            container.snapshotter = "plain".into();
            container.snapshot_key = format!("s{number}");
            world.metadata.containers().create(&cx, container).await.unwrap();
        }
        for number in 0..2 {
            let lease = format!("l{}", dice.below(4));
            let reference = IngestRef::parse(format!("r{number}")).unwrap();
            let open = OpenWriter { reference, total_bytes: 0, expected: None };
            let held = leased(namespace, &lease);
            let mut writer = world.metadata.content().writer(&held, open).await.unwrap();
            writer.write(Bytes::from_static(b"half a blob")).await.unwrap();
        }
    }
}

/// Everything that there is, by namespace, kind and name.
async fn everything(world: &World) -> BTreeSet<ObjectName> {
    let mut found = BTreeSet::new();
    for namespace in ["n", "m"] {
        let cx = cx(namespace);
        let mut add = |kind, name: String| {
            let snapshotter = if kind == ObjectKind::Snapshot { "plain".to_owned() } else { String::new() };
            found.insert(ObjectName { kind, namespace: namespace.to_owned(), snapshotter, name });
        };
        let metadata = &world.metadata;
        for blob in all(metadata.content().list(&cx, &[]).await.unwrap()).await {
            add(ObjectKind::Content, blob.digest.into_string());
        }
        for image in all(metadata.images().list(&cx, &[]).await.unwrap()).await {
            add(ObjectKind::Image, image.name);
        }
        for container in all(metadata.containers().list(&cx, &[]).await.unwrap()).await {
            add(ObjectKind::Container, container.id.into_string());
        }
        let snapshotter = metadata.snapshotter("plain").unwrap();
        for info in all(snapshotter.list(&cx, &[]).await.unwrap()).await {
            add(ObjectKind::Snapshot, info.name.into_string());
        }
        for lease in metadata.leases().list(&cx, &[]).await.unwrap() {
            add(ObjectKind::Lease, lease.id.into_string());
        }
        for ingest in metadata.content().statuses(&cx, &[]).await.unwrap() {
            add(ObjectKind::Ingest, ingest.reference.into_string());
        }
    }
    found
}

/// Files of blobs and writes, with their sizes.
fn content_bytes(root: &std::path::Path) -> u64 {
    let mut total = 0;
    for entry in std::fs::read_dir(root.join("content/blobs")).unwrap() {
        total += entry.unwrap().metadata().unwrap().len();
    }
    for entry in std::fs::read_dir(root.join("content/ingest")).unwrap() {
        total += std::fs::metadata(entry.unwrap().path().join("data")).unwrap().len();
    }
    total
}

#[tokio::test]
async fn the_preview_and_every_explanation_agree_with_the_collection_that_follows() {
    for seed in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let world = World::open(dir.path()).await;
        let mut dice = Dice(seed);
        populate(&world, &mut dice).await;
        let before = everything(&world).await;
        let maintenance = world.metadata.maintenance();
        let doomed: Vec<Doomed> = all(maintenance.preview(&Context::background()).await.unwrap()).await;
        let mut fates = BTreeMap::new();
        for object in &before {
            let explained = maintenance.explain(&cx(&object.namespace), object).await.unwrap();
            assert_eq!(
                explained.fate == Fate::Kept,
                !explained.chains.is_empty(),
                "seed {seed}: {explained:?}"
            );
            fates.insert(object.clone(), explained.fate);
        }
        let (bytes, directories) = (content_bytes(dir.path()), world.driver.ids().unwrap().len());
        let stats = world.metadata.collect().await.unwrap();
        let after = everything(&world).await;
        let gone: BTreeSet<ObjectName> = before.difference(&after).cloned().collect();
        let told: BTreeSet<ObjectName> = doomed.iter().map(|doomed| doomed.object.clone()).collect();
        assert_eq!(told, gone, "seed {seed}");
        assert_eq!(told.len(), doomed.len(), "seed {seed}: each once");
        for (object, fate) in fates {
            assert_eq!(fate == Fate::Kept, after.contains(&object), "seed {seed}: {object} {fate:?}");
        }
        let of_content = |doomed: &&Doomed| doomed.object.kind != ObjectKind::Snapshot;
        let freed: u64 = doomed.iter().filter(of_content).map(|doomed| doomed.freed_bytes).sum();
        assert_eq!(bytes - content_bytes(dir.path()), freed, "seed {seed}");
        let snapshots = doomed.iter().filter(|doomed| doomed.object.kind == ObjectKind::Snapshot).count();
        assert_eq!(directories - world.driver.ids().unwrap().len(), snapshots, "seed {seed}");
        assert_eq!(stats.snapshots, snapshots as u64, "seed {seed}");
        assert!(all(maintenance.preview(&Context::background()).await.unwrap()).await.is_empty());
        // Of one namespace: what a collection would free there.
        assert!(!gone.is_empty(), "seed {seed}: something went");
    }
}

#[tokio::test]
async fn a_question_about_a_large_store_does_not_hold_up_writers() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let lease = LeaseId::parse("l").unwrap();
    world.metadata.leases().create(&n(), Some(lease.clone()), Labels::new()).await.unwrap();
    let mut makers = tokio::task::JoinSet::new();
    for number in 0..2000 {
        let (leases, lease) = (world.metadata.leases(), lease.clone());
        makers.spawn(async move {
            let resource = LeaseResource { id: format!("i{number}"), kind: "images".to_owned() };
            leases.add_resource(&n(), &lease, resource).await.unwrap();
        });
    }
    makers.join_all().await;
    let target = world.blob(&n(), b"t", Labels::new()).await;
    put_image(&world, "i7", &target, &[]).await;
    let (explained, ()) = tokio::join!(explain(&world, ObjectKind::Content, &target), async {
        put_image(&world, "beside", &target, &[]).await;
    });
    assert!(told(&explained).contains(&"image i7 Target: Image".to_owned()), "{explained:?}");
}
