use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use gantry_core::containers::{Container, ContainerStore};
use gantry_core::content::{CommitContent, ContentStore, OpenWriter};
use gantry_core::events::Event;
use gantry_core::field_mask::FieldMask;
use gantry_core::images::{DeleteImage, Image, ImageStore};
use gantry_core::leases::{LeaseManager, LeaseResource};
use gantry_core::snapshots::{CommitSnapshot, NewSnapshot, SnapshotDriver, Snapshotter};
use gantry_core::{ContainerId, Context, Digest, IngestRef, Labels, LeaseId};
use gantry_metadata::{CollectionConfig, MetadataConfig, MetadataSnapshotter};

use crate::images::image;
use crate::snapshots::{commit, committed, new};
use crate::support::{World, all, cx, key, labels, leased};

const REF: &str = "containerd.io/gc.ref.content";
const ROOT: &str = "containerd.io/gc.root";
const EXPIRE: &str = "containerd.io/gc.expire";
const PAST: &str = "2020-01-01T00:00:00Z";
const FUTURE: &str = "2100-01-01T00:00:00+01:00";

async fn world() -> (tempfile::TempDir, World, MetadataSnapshotter) {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    (dir, world, snapshotter)
}

fn n() -> Context {
    cx("n")
}

async fn lease(world: &World, id: &str, with: &[(&str, &str)]) -> LeaseId {
    let id = LeaseId::parse(id).unwrap();
    world.metadata.leases().create(&n(), Some(id.clone()), labels(with)).await.unwrap();
    id
}

async fn keep(world: &World, lease: &LeaseId, kind: &str, id: &str) {
    let resource = LeaseResource { id: id.to_owned(), kind: kind.to_owned() };
    world.metadata.leases().add_resource(&n(), lease, resource).await.unwrap();
}

async fn put_image(world: &World, name: &str, target: &Digest, with: &[(&str, &str)]) {
    let mut new: Image = image(name);
    new.target.digest = target.clone();
    new.labels = labels(with);
    world.metadata.images().create(&n(), new, None).await.unwrap();
}

async fn collect(world: &World) {
    world.metadata.collect().await.unwrap();
}

async fn snapshots(snapshotter: &MetadataSnapshotter) -> Vec<String> {
    let infos = all(snapshotter.list(&n(), &[]).await.unwrap()).await;
    infos.into_iter().map(|info| info.name.into_string()).collect()
}

#[tokio::test]
async fn an_image_keeps_what_its_target_refers_to_and_nothing_else_stays() {
    let (_dir, world, snapshotter) = world().await;
    committed(&snapshotter, &n(), "layer", None).await;
    committed(&snapshotter, &n(), "loose", None).await;
    let layer = world.blob(&n(), b"layer", Labels::new()).await;
    let snapshot = ("containerd.io/gc.ref.snapshot.plain", "layer");
    let config = world.blob(&n(), b"config", labels(&[snapshot])).await;
    let refs = [
        ("containerd.io/gc.ref.content.l.0", layer.as_str()),
        ("containerd.io/gc.ref.content/config", config.as_str()),
        ("containerd.io/gc.ref.contentx", "sha256:"),
    ];
    let manifest = world.blob(&n(), b"manifest", labels(&refs)).await;
    let loose = world.blob(&n(), b"loose", Labels::new()).await;
    put_image(&world, "i", &manifest, &[]).await;
    let stats = world.metadata.collect().await.unwrap();
    assert_eq!((stats.blobs, stats.snapshots), (1, 1));
    for digest in [&layer, &config, &manifest] {
        assert!(world.has_blob(&n(), digest).await);
        assert!(world.content.blob_path(digest).exists());
    }
    assert!(!world.has_blob(&n(), &loose).await);
    assert!(!world.content.blob_path(&loose).exists());
    assert_eq!(snapshots(&snapshotter).await, ["layer"]);
    assert_eq!(world.driver.ids().unwrap().len(), 1);
    // With the image, all of it goes; a synchronous delete returns afterwards.
    let how = DeleteImage { sync: true, if_target: None };
    world.metadata.images().delete(&n(), "i", how).await.unwrap();
    for digest in [&layer, &config, &manifest] {
        assert!(!world.content.blob_path(digest).exists());
    }
    assert!(snapshots(&snapshotter).await.is_empty());
}

#[tokio::test]
async fn a_container_keeps_its_snapshot_with_all_parents() {
    let (_dir, world, snapshotter) = world().await;
    committed(&snapshotter, &n(), "base", None).await;
    snapshotter.prepare(&n(), new("k", Some("base"))).await.unwrap();
    let blob = world.blob(&n(), b"by label", Labels::new()).await;
    let mut container = Container::new(ContainerId::parse("c").unwrap(), "runtime");
    container.snapshotter = "plain".into();
    container.snapshot_key = "k".into();
    container.labels = labels(&[(REF, blob.as_str())]);
    world.metadata.containers().create(&n(), container).await.unwrap();
    collect(&world).await;
    assert_eq!(snapshots(&snapshotter).await, ["base", "k"]);
    assert!(world.has_blob(&n(), &blob).await);
    world.metadata.containers().delete(&n(), "c").await.unwrap();
    collect(&world).await;
    assert!(snapshots(&snapshotter).await.is_empty());
    assert!(!world.has_blob(&n(), &blob).await);
}

#[tokio::test]
async fn root_labels_count_with_any_value_and_by_prefix() {
    let (_dir, world, snapshotter) = world().await;
    let mut kept = Vec::new();
    for label in [ROOT, "containerd.io/gc.roots", "containerd.io/gc.root.x"] {
        kept.push(world.blob(&n(), label.as_bytes(), labels(&[(label, PAST)])).await);
    }
    let until = world.blob(&n(), b"until", labels(&[(EXPIRE, FUTURE)])).await;
    kept.push(until);
    let mut lost = Vec::new();
    lost.push(world.blob(&n(), b"empty", labels(&[(ROOT, "")])).await);
    lost.push(world.blob(&n(), b"expired", labels(&[(EXPIRE, PAST)])).await);
    lost.push(world.blob(&n(), b"nonsense", labels(&[(EXPIRE, "tomorrow")])).await);
    committed(&snapshotter, &n(), "parent", None).await;
    let prepared = NewSnapshot { labels: labels(&[(ROOT, "x")]), ..new("k", Some("parent")) };
    snapshotter.prepare(&n(), prepared).await.unwrap();
    collect(&world).await;
    for digest in &kept {
        assert!(world.has_blob(&n(), digest).await, "{digest}");
    }
    for digest in &lost {
        assert!(!world.has_blob(&n(), digest).await, "{digest}");
    }
    assert_eq!(snapshots(&snapshotter).await, ["k", "parent"]);
}

#[tokio::test]
async fn references_stay_within_their_namespace() {
    let (_dir, world, _snapshotter) = world().await;
    let there = world.blob(&cx("other"), b"shared", Labels::new()).await;
    world.blob(&n(), b"root", labels(&[(ROOT, "x"), (REF, there.as_str())])).await;
    collect(&world).await;
    assert!(!world.has_blob(&cx("other"), &there).await);
}

#[tokio::test]
async fn a_blob_of_two_namespaces_keeps_its_file_until_the_last_lets_go() {
    let (_dir, world, _snapshotter) = world().await;
    let digest = world.blob(&cx("a"), b"shared", labels(&[(ROOT, "x")])).await;
    world.blob(&cx("b"), b"shared", labels(&[(ROOT, "x")])).await;
    world.metadata.content().delete(&cx("a"), &digest).await.unwrap();
    collect(&world).await;
    assert!(world.content.blob_path(&digest).exists());
    world.metadata.content().delete(&cx("b"), &digest).await.unwrap();
    collect(&world).await;
    assert!(!world.content.blob_path(&digest).exists());
}

#[tokio::test]
async fn a_lease_keeps_what_its_resources_refer_to_until_it_is_deleted_or_expires() {
    let (_dir, world, snapshotter) = world().await;
    let child = world.blob(&n(), b"child", Labels::new()).await;
    let parent = world.blob(&n(), b"parent", labels(&[(REF, child.as_str())])).await;
    committed(&snapshotter, &n(), "base", None).await;
    committed(&snapshotter, &n(), "top", Some("base")).await;
    let nonsense = lease(&world, "nonsense", &[(EXPIRE, "tomorrow")]).await;
    let live = lease(&world, "live", &[(EXPIRE, FUTURE)]).await;
    keep(&world, &live, "content", parent.as_str()).await;
    keep(&world, &nonsense, "snapshots/plain", "top").await;
    let expired = lease(&world, "expired", &[(EXPIRE, PAST)]).await;
    let loose = world.blob(&n(), b"loose", Labels::new()).await;
    keep(&world, &expired, "content", loose.as_str()).await;
    assert_eq!(world.metadata.leases().list(&n(), &[]).await.unwrap().len(), 3, "listed until collected");
    let stats = world.metadata.collect().await.unwrap();
    assert_eq!((stats.leases, stats.blobs, stats.snapshots), (1, 1, 0));
    assert!(world.has_blob(&n(), &child).await);
    assert!(!world.has_blob(&n(), &loose).await);
    world.metadata.leases().delete(&n(), &live, false).await.unwrap();
    world.metadata.leases().delete(&n(), &nonsense, true).await.unwrap();
    assert!(!world.has_blob(&n(), &child).await);
    assert!(snapshots(&snapshotter).await.is_empty());
}

#[tokio::test]
async fn a_flat_lease_keeps_content_without_references_and_snapshots_with_parents() {
    let (_dir, world, snapshotter) = world().await;
    let child = world.blob(&n(), b"child", Labels::new()).await;
    let parent = world.blob(&n(), b"parent", labels(&[(REF, child.as_str())])).await;
    let of_snapshot = world.blob(&n(), b"of snapshot", Labels::new()).await;
    committed(&snapshotter, &n(), "base", None).await;
    let top = NewSnapshot { labels: labels(&[(REF, of_snapshot.as_str())]), ..new("top", Some("base")) };
    snapshotter.prepare(&n(), top).await.unwrap();
    let image_child = world.blob(&n(), b"image child", Labels::new()).await;
    let target = world.blob(&n(), b"target", labels(&[(REF, image_child.as_str())])).await;
    put_image(&world, "expired", &target, &[(EXPIRE, PAST)]).await;
    let flat = lease(&world, "flat", &[("containerd.io/gc.flat", "false, but not empty")]).await;
    keep(&world, &flat, "content", parent.as_str()).await;
    keep(&world, &flat, "snapshots/plain", "top").await;
    keep(&world, &flat, "images", "expired").await;
    collect(&world).await;
    assert!(world.has_blob(&n(), &parent).await);
    assert!(world.has_blob(&n(), &target).await);
    for gone in [&child, &of_snapshot, &image_child] {
        assert!(!world.has_blob(&n(), gone).await);
    }
    assert_eq!(snapshots(&snapshotter).await, ["base", "top"]);
}

#[tokio::test]
async fn what_a_flat_lease_keeps_is_kept_whole_for_another_reason() {
    let (_dir, world, _snapshotter) = world().await;
    let child = world.blob(&n(), b"child", Labels::new()).await;
    let parent = world.blob(&n(), b"parent", labels(&[(REF, child.as_str())])).await;
    let flat = lease(&world, "a flat", &[("containerd.io/gc.flat", "1")]).await;
    keep(&world, &flat, "content", parent.as_str()).await;
    put_image(&world, "i", &parent, &[]).await;
    collect(&world).await;
    assert!(world.has_blob(&n(), &child).await);
}

#[tokio::test]
async fn expired_images_go_unless_leased_and_are_told() {
    let (_dir, world, snapshotter) = world().await;
    let target = world.blob(&n(), b"target", Labels::new()).await;
    put_image(&world, "expired", &target, &[(EXPIRE, PAST)]).await;
    put_image(&world, "later", &target, &[(EXPIRE, FUTURE)]).await;
    put_image(&world, "leased", &target, &[(EXPIRE, PAST)]).await;
    let lease = lease(&world, "l", &[]).await;
    keep(&world, &lease, "images", "leased").await;
    snapshotter.prepare(&n(), new("loose", None)).await.unwrap();
    collect(&world).await;
    let images = all(world.metadata.images().list(&n(), &[]).await.unwrap()).await;
    assert_eq!(images.into_iter().map(|image| image.name).collect::<Vec<_>>(), ["later", "leased"]);
    let heard = world.events.heard.lock().unwrap().clone();
    let expected = [
        ("n".to_owned(), Event::ImageDelete { name: "expired".into() }),
        ("n".to_owned(), Event::SnapshotRemove { key: "loose".into(), snapshotter: "plain".into() }),
    ];
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn an_image_reference_keeps_an_expired_image() {
    let (_dir, world, _snapshotter) = world().await;
    let target = world.blob(&n(), b"target", Labels::new()).await;
    put_image(&world, "expired", &target, &[(EXPIRE, PAST)]).await;
    world.blob(&n(), b"root", labels(&[(ROOT, "x"), ("containerd.io/gc.ref.image", "expired")])).await;
    collect(&world).await;
    assert!(world.metadata.images().get(&n(), "expired").await.is_ok());
    assert!(world.has_blob(&n(), &target).await);
}

#[tokio::test]
async fn back_references_keep_as_long_as_the_named_object_lives() {
    let (_dir, world, snapshotter) = world().await;
    let target = world.blob(&n(), b"target", Labels::new()).await;
    put_image(&world, "i", &target, &[]).await;
    let below = world.blob(&n(), b"below", Labels::new()).await;
    let bref = |what: &str, name: &str| (format!("containerd.io/gc.bref.{what}"), name.to_owned());
    let to_image: Labels = [bref("image.signature", "i"), (REF.to_owned(), below.to_string())].into();
    let signature = world.blob(&n(), b"signature", to_image).await;
    let to_content =
        NewSnapshot { labels: [bref("content", target.as_str())].into(), ..new("of content", None) };
    snapshotter.prepare(&n(), to_content).await.unwrap();
    let chained = world.blob(&n(), b"chained", [bref("snapshot.plain", "of content")].into()).await;
    let to_missing = world.blob(&n(), b"missing", [bref("container", "c")].into()).await;
    let elsewhere = world.blob(&cx("other"), b"elsewhere", [bref("image", "i")].into()).await;
    collect(&world).await;
    for kept in [&below, &signature, &chained] {
        assert!(world.has_blob(&n(), kept).await);
    }
    assert!(!world.has_blob(&n(), &to_missing).await);
    assert!(!world.has_blob(&cx("other"), &elsewhere).await);
    let how = DeleteImage { sync: true, if_target: None };
    world.metadata.images().delete(&n(), "i", how).await.unwrap();
    for gone in [&target, &below, &signature, &chained] {
        assert!(!world.has_blob(&n(), gone).await);
    }
    assert!(snapshots(&snapshotter).await.is_empty());
}

#[tokio::test]
async fn conditions_keep_while_the_snapshot_was_used_lately() {
    let (_dir, world, snapshotter) = world().await;
    let used = |at: &str| labels(&[(ROOT, "x"), ("containerd.io/gc.cond.value-usedat", at)]);
    snapshotter.prepare(&n(), NewSnapshot { labels: used(PAST), ..new("old", None) }).await.unwrap();
    snapshotter.prepare(&n(), NewSnapshot { labels: used(FUTURE), ..new("fresh", None) }).await.unwrap();
    let condition = |value: &str| labels(&[("containerd.io/gc.cond.snapshot.plain", value)]);
    let kept = world.blob(&n(), b"kept", condition("usedat<24h|fresh")).await;
    let kept_old = world.blob(&n(), b"kept old", condition("usedat<1s,usedat>24h|old")).await;
    let lost = world.blob(&n(), b"lost", condition("usedat<24h|old")).await;
    collect(&world).await;
    assert!(world.has_blob(&n(), &kept).await);
    assert!(world.has_blob(&n(), &kept_old).await);
    assert!(!world.has_blob(&n(), &lost).await);
}

#[tokio::test]
async fn open_ingests_survive_and_those_of_a_gone_lease_do_not() {
    let (_dir, world, _snapshotter) = world().await;
    let content = world.metadata.content();
    let held = lease(&world, "l", &[]).await;
    let open = async |cx: Context, name: &str| {
        let reference = IngestRef::parse(name).unwrap();
        let mut writer =
            content.writer(&cx, OpenWriter { reference, total_bytes: 0, expected: None }).await.unwrap();
        writer.write(Bytes::from_static(b"data")).await.unwrap();
        writer
    };
    let mut free = open(n(), "free").await;
    drop(open(leased("n", "l"), "held").await);
    collect(&world).await;
    assert_eq!(content.statuses(&n(), &[]).await.unwrap().len(), 2);
    world.metadata.leases().delete(&n(), &held, true).await.unwrap();
    let left = content.statuses(&n(), &[]).await.unwrap();
    assert_eq!(left.iter().map(|status| status.reference.as_str()).collect::<Vec<_>>(), ["free"]);
    assert_eq!(ContentStore::statuses(world.content.as_ref(), &n(), &[]).await.unwrap().len(), 1);
    free.commit(CommitContent::default()).await.unwrap();
}

#[tokio::test]
async fn files_without_record_are_found_by_the_first_collection() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let kept = world.blob(&n(), b"kept", labels(&[(ROOT, "x")])).await;
    let none = Context::background();
    let orphan = |name: &str| OpenWriter {
        reference: IngestRef::parse(name).unwrap(),
        total_bytes: 0,
        expected: None,
    };
    let mut writer = world.content.writer(&none, orphan("n/77/x")).await.unwrap();
    writer.write(Bytes::from_static(b"orphan")).await.unwrap();
    let digest = writer.commit(CommitContent::default()).await.unwrap();
    drop(world.content.writer(&none, orphan("n/78/y")).await.unwrap());
    collect(&world).await;
    assert!(!world.content.blob_path(&digest).exists());
    assert!(ContentStore::statuses(world.content.as_ref(), &none, &[]).await.unwrap().is_empty());
    assert!(world.content.blob_path(&kept).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn collections_beside_writers_lose_nothing_that_is_leased_or_referenced() {
    let (_dir, world, snapshotter) = world().await;
    let world = Arc::new(world);
    let stop = tokio_util::sync::CancellationToken::new();
    let mut collector = tokio::task::JoinSet::new();
    let (collected, stopped) = (Arc::clone(&world), stop.clone());
    collector.spawn(async move {
        let mut rounds = 0_u32;
        while !stopped.is_cancelled() {
            collect(&collected).await;
            rounds += 1;
        }
        rounds
    });
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let (world, snapshotter) = (Arc::clone(&world), snapshotter.clone());
        writers.spawn(async move {
            for round in 0..12 {
                pull_and_run(&world, &snapshotter, &format!("{writer}-{round}")).await;
            }
        });
    }
    writers.join_all().await;
    stop.cancel();
    assert!(collector.join_all().await[0] > 1);
    collect(&world).await;
    let recorded = snapshots(&snapshotter).await.len();
    assert_eq!(recorded, world.driver.ids().unwrap().len());
}

/// What a client does for a container: under a lease content and snapshots, then the image; then the container, and all away.
pub(crate) async fn pull_and_run(world: &World, snapshotter: &MetadataSnapshotter, name: &str) {
    let lease_id = lease(world, name, &[]).await;
    let held = leased("n", name);
    let layer = world.blob(&held, format!("layer {name}").as_bytes(), Labels::new()).await;
    let manifest =
        world.blob(&held, format!("manifest {name}").as_bytes(), labels(&[(REF, layer.as_str())])).await;
    let (active, chain) = (format!("active {name}"), format!("chain {name}"));
    snapshotter.prepare(&held, new(&active, None)).await.unwrap();
    let how = CommitSnapshot { ..commit(&chain, &active) };
    snapshotter.commit(&held, how).await.unwrap();
    let link = labels(&[("containerd.io/gc.ref.snapshot.plain", chain.as_str())]);
    let mask = FieldMask::new(["labels.containerd.io/gc.ref.snapshot.plain"]);
    world.metadata.content().update(&held, &manifest, link, &mask).await.unwrap();
    let mut record = image(name);
    record.target.digest = manifest.clone();
    world.metadata.images().create(&held, record, None).await.unwrap();
    world.metadata.leases().delete(&n(), &lease_id, false).await.unwrap();
    tokio::task::yield_now().await;

    assert!(world.has_blob(&n(), &layer).await && world.content.blob_path(&layer).exists(), "{name}");
    assert!(world.has_blob(&n(), &manifest).await && world.content.blob_path(&manifest).exists(), "{name}");
    let lease_id = lease(world, &format!("run {name}"), &[]).await;
    let held = leased("n", lease_id.as_str());
    let root = format!("root {name}");
    snapshotter.prepare(&held, new(&root, Some(&chain))).await.unwrap();
    let mut container = Container::new(ContainerId::parse(name).unwrap(), "runtime");
    container.snapshotter = "plain".into();
    container.snapshot_key = root.clone();
    world.metadata.containers().create(&held, container).await.unwrap();
    world.metadata.leases().delete(&n(), &lease_id, false).await.unwrap();
    let how = DeleteImage { sync: false, if_target: None };
    world.metadata.images().delete(&n(), name, how).await.unwrap();
    tokio::task::yield_now().await;
    // The container keeps the whole chain.
    snapshotter.mounts(&n(), &key(&root)).await.unwrap();
    snapshotter.stat(&n(), &key(&chain)).await.unwrap();
    world.metadata.containers().delete(&n(), name).await.unwrap();
}

#[tokio::test]
async fn thousands_of_rows_are_swept_in_pieces() {
    let (_dir, world, _snapshotter) = world().await;
    let lease_id = lease(&world, "l", &[]).await;
    let mut makers = tokio::task::JoinSet::new();
    for number in 0..1200 {
        let leases = world.metadata.leases();
        makers.spawn(async move {
            let id = LeaseId::parse(format!("expired {number}")).unwrap();
            leases.create(&n(), Some(id), labels(&[(EXPIRE, PAST)])).await.unwrap();
        });
    }
    makers.join_all().await;
    let stats = world.metadata.collect().await.unwrap();
    assert_eq!(stats.leases, 1200);
    assert_eq!(world.metadata.leases().list(&n(), &[]).await.unwrap()[0].id, lease_id);
}

#[tokio::test]
async fn the_scheduler_collects_after_a_removal_and_when_something_expires() {
    let dir = tempfile::tempdir().unwrap();
    let collection = CollectionConfig { startup_delay: Duration::ZERO, ..CollectionConfig::default() };
    let config = MetadataConfig { collection, ..MetadataConfig::default() };
    let world = World::open_with(dir.path(), config, None).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut running = tokio::task::JoinSet::new();
    let (metadata, stopped) = (world.metadata.clone(), stop.clone());
    running.spawn(async move { metadata.run(stopped.cancelled_owned()).await });
    let gone = async |what: &LeaseId| {
        while world.metadata.leases().resources(&n(), what).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let expires = SystemTime::now() + Duration::from_secs(2);
    let text =
        time::OffsetDateTime::from(expires).format(&time::format_description::well_known::Rfc3339).unwrap();
    let short = lease(&world, "short", &[(EXPIRE, text.as_str())]).await;
    let blob = world.blob(&n(), b"loose", Labels::new()).await;
    let other = lease(&world, "other", &[]).await;
    world.metadata.leases().delete(&n(), &other, false).await.unwrap();
    while world.content.blob_path(&blob).exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(world.metadata.leases().resources(&n(), &short).await.is_ok());
    // Nothing is changed any more: only the clock ends it.
    gone(&short).await;
    assert!(SystemTime::now() >= expires);
    stop.cancel();
    running.join_all().await;
}

#[tokio::test]
async fn one_directory_that_stays_does_not_stop_the_others() {
    let (_dir, world, snapshotter) = world().await;
    for name in ["stays", "goes"] {
        committed(&snapshotter, &n(), name, None).await;
    }
    let digest = world.blob(&n(), b"loose", Labels::new()).await;
    let mut ids = world.driver.ids().unwrap();
    ids.sort_unstable();
    // Retiring renames to this name, which cannot be replaced while something is in it.
    let obstacle = world.driver.root.join(format!("gone-{}", ids[0]));
    std::fs::create_dir_all(obstacle.join("in the way")).unwrap();
    collect(&world).await;
    assert!(snapshots(&snapshotter).await.is_empty(), "the records are gone");
    assert!(world.driver.path(ids[0]).exists() && !world.driver.path(ids[1]).exists());
    assert!(!world.has_blob(&n(), &digest).await);
    let _ = std::fs::remove_dir_all(&obstacle);
    collect(&world).await;
    assert!(!world.driver.path(ids[0]).exists(), "tried again");
}

#[tokio::test]
async fn a_list_shows_an_expired_lease_until_a_collection() {
    let (_dir, world, _snapshotter) = world().await;
    let expired = lease(&world, "l", &[(EXPIRE, PAST)]).await;
    let listed = world.metadata.leases().list(&n(), &[]).await.unwrap();
    assert_eq!(listed.into_iter().map(|lease| lease.id).collect::<Vec<_>>(), [expired]);
    collect(&world).await;
    assert!(world.metadata.leases().list(&n(), &[]).await.unwrap().is_empty());
}
