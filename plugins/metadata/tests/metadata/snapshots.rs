use std::time::Duration;

use gantry_core::field_mask::FieldMask;
use gantry_core::leases::{LeaseManager, LeaseResource};
use gantry_core::mount::Mount;
use gantry_core::snapshots::{CommitSnapshot, NewSnapshot, SnapshotDriver, SnapshotKind, Snapshotter};
use gantry_core::{Context, ErrorKind, Labels, LeaseId, Result};
use gantry_metadata::{LastStop, MetadataConfig, MetadataSnapshotter, SnapshotName};

use crate::support::{World, all, cx, key, labels, leased};

pub(crate) fn new(name: &str, parent: Option<&str>) -> NewSnapshot {
    NewSnapshot { key: key(name), parent: parent.map(key), labels: Labels::new() }
}

pub(crate) fn commit(name: &str, active: &str) -> CommitSnapshot {
    CommitSnapshot { name: key(name), key: key(active), labels: Labels::new(), parent: None }
}

/// Makes a committed snapshot.
pub(crate) async fn committed(
    snapshotter: &MetadataSnapshotter,
    cx: &Context,
    name: &str,
    parent: Option<&str>,
) {
    let active = format!("making {name}");
    snapshotter.prepare(cx, new(&active, parent)).await.unwrap();
    snapshotter.commit(cx, commit(name, &active)).await.unwrap();
}

async fn world() -> (tempfile::TempDir, World, MetadataSnapshotter) {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    (dir, world, snapshotter)
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.err().unwrap().kind()
}

fn parents(mounts: &[Mount]) -> usize {
    mounts[0].options.len() - 1
}

#[tokio::test]
async fn a_chain_is_built_and_driven_by_directory() {
    let (_dir, world, snapshotter) = world().await;
    committed(&snapshotter, &cx("n"), "one", None).await;
    committed(&snapshotter, &cx("n"), "two", Some("one")).await;
    let mounts = snapshotter.prepare(&cx("n"), new("k", Some("two"))).await.unwrap();
    assert_eq!(parents(&mounts), 2);
    assert_eq!(snapshotter.mounts(&cx("n"), &key("k")).await.unwrap(), mounts);
    let view = snapshotter.view(&cx("n"), new("v", None)).await.unwrap();
    assert_eq!(view[0].options, ["view"]);
    let info = snapshotter.stat(&cx("n"), &key("k")).await.unwrap();
    assert_eq!((info.kind, info.parent), (SnapshotKind::Active, Some(key("two"))));
    let names: Vec<_> = all(snapshotter.list(&cx("n"), &[]).await.unwrap()).await;
    assert_eq!(names.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["k", "one", "two", "v"]);
    let filter = ["kind==committed,parent==one".to_owned()];
    assert_eq!(all(snapshotter.list(&cx("n"), &filter).await.unwrap()).await.len(), 1);
    assert_eq!(world.driver.ids().unwrap().len(), 4);
    assert_eq!(kind(snapshotter.cleanup(&cx("n")).await), ErrorKind::Unimplemented);
}

#[tokio::test]
async fn a_parent_that_is_removed_while_its_child_is_made_is_what_the_error_names() {
    let (_dir, world, snapshotter) = world().await;
    let n = cx("n");
    committed(&snapshotter, &n, "base", None).await;
    let (removing, handle) = (snapshotter.clone(), tokio::runtime::Handle::current());
    let remove = move || handle.block_on(removing.remove(&cx("n"), &key("base"))).unwrap();
    *world.driver.before_create.lock().unwrap() = Some(Box::new(remove));
    let error = snapshotter.prepare(&n, new("k", Some("base"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("parent snapshot base does not exist"), "{error}");
    assert!(all(snapshotter.list(&n, &[]).await.unwrap()).await.is_empty());
    assert!(world.driver.ids().unwrap().is_empty());
}

#[tokio::test]
async fn wrong_states_are_refused_as_containerd_does() {
    let (_dir, world, snapshotter) = world().await;
    let n = cx("n");
    committed(&snapshotter, &n, "base", None).await;
    snapshotter.prepare(&n, new("active", Some("base"))).await.unwrap();
    snapshotter.view(&n, new("view", Some("base"))).await.unwrap();
    let before = world.driver.ids().unwrap().len();
    use ErrorKind::*;
    assert_eq!(kind(snapshotter.prepare(&n, new("x", Some("active"))).await), InvalidArgument);
    assert_eq!(kind(snapshotter.view(&n, new("x", Some("view"))).await), InvalidArgument);
    assert_eq!(kind(snapshotter.prepare(&n, new("x", Some("missing"))).await), NotFound);
    assert_eq!(kind(snapshotter.prepare(&n, new("active", None)).await), AlreadyExists);
    assert_eq!(kind(snapshotter.commit(&n, commit("c", "view")).await), FailedPrecondition);
    assert_eq!(kind(snapshotter.commit(&n, commit("c", "base")).await), FailedPrecondition);
    assert_eq!(kind(snapshotter.commit(&n, commit("active", "active")).await), AlreadyExists);
    assert_eq!(kind(snapshotter.commit(&n, commit("base", "active")).await), AlreadyExists);
    assert_eq!(kind(snapshotter.commit(&n, commit("c", "missing")).await), NotFound);
    assert_eq!(kind(snapshotter.remove(&n, &key("base")).await), FailedPrecondition);
    assert_eq!(kind(snapshotter.remove(&n, &key("missing")).await), NotFound);
    assert_eq!(kind(snapshotter.mounts(&n, &key("base")).await), FailedPrecondition);
    assert_eq!(kind(snapshotter.stat(&cx("other"), &key("base")).await), NotFound);
    // A committed name of another namespace is no parent.
    assert_eq!(kind(snapshotter.prepare(&cx("other"), new("x", Some("base"))).await), NotFound);
    assert_eq!(kind(snapshotter.prepare(&leased("n", "missing"), new("x", None)).await), NotFound);
    assert_eq!(world.driver.ids().unwrap().len(), before, "nothing refused leaves a directory");
}

#[tokio::test]
async fn labels_of_prepare_are_not_carried_over_by_commit() {
    let (_dir, _world, snapshotter) = world().await;
    let n = cx("n");
    let prepared = NewSnapshot { labels: labels(&[("a", "1"), ("none", "")]), ..new("k", None) };
    snapshotter.prepare(&n, prepared).await.unwrap();
    assert_eq!(snapshotter.stat(&n, &key("k")).await.unwrap().labels, labels(&[("a", "1")]));
    let how = CommitSnapshot { labels: labels(&[("b", "2")]), ..commit("c", "k") };
    snapshotter.commit(&n, how).await.unwrap();
    assert_eq!(snapshotter.stat(&n, &key("c")).await.unwrap().labels, labels(&[("b", "2")]));
    assert_eq!(kind(snapshotter.stat(&n, &key("k")).await), ErrorKind::NotFound);
    let mask = FieldMask::new(["labels.c"]);
    let updated = snapshotter.update(&n, &key("c"), labels(&[("c", "3")]), &mask).await.unwrap();
    assert_eq!(updated.labels, labels(&[("b", "2"), ("c", "3")]));
    let refused = snapshotter.update(&n, &key("c"), Labels::new(), &FieldMask::new(["parent"])).await;
    assert_eq!(kind(refused), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_snapshot_ref_that_is_there_is_already_exists_and_joins_the_lease() {
    let (_dir, world, snapshotter) = world().await;
    let lease = LeaseId::parse("l").unwrap();
    let leases = world.metadata.leases();
    leases.create(&cx("n"), Some(lease.clone()), Labels::new()).await.unwrap();
    committed(&snapshotter, &cx("n"), "chain", None).await;
    let target = labels(&[("containerd.io/snapshot.ref", "chain")]);
    let wanted = NewSnapshot { labels: target.clone(), ..new("k", None) };
    assert_eq!(kind(snapshotter.prepare(&leased("n", "l"), wanted).await), ErrorKind::AlreadyExists);
    let kept = leases.resources(&cx("n"), &lease).await.unwrap();
    assert_eq!(kept, [LeaseResource { id: "chain".into(), kind: "snapshots/plain".into() }]);
    // Not there in another namespace.
    snapshotter.prepare(&cx("other"), NewSnapshot { labels: target, ..new("k", None) }).await.unwrap();
}

#[tokio::test]
async fn a_lease_follows_the_snapshot_from_key_to_name() {
    let (_dir, world, snapshotter) = world().await;
    let lease = LeaseId::parse("l").unwrap();
    let leases = world.metadata.leases();
    leases.create(&cx("n"), Some(lease.clone()), Labels::new()).await.unwrap();
    let kept = async || {
        let kept = leases.resources(&cx("n"), &lease).await.unwrap();
        kept.into_iter().map(|resource| resource.id).collect::<Vec<_>>()
    };
    snapshotter.prepare(&leased("n", "l"), new("k", None)).await.unwrap();
    assert_eq!(kept().await, ["k"]);
    snapshotter.commit(&leased("n", "l"), commit("c", "k")).await.unwrap();
    assert_eq!(kept().await, ["c"]);
    snapshotter.remove(&leased("n", "l"), &key("c")).await.unwrap();
    assert!(kept().await.is_empty());
}

#[tokio::test]
async fn a_commit_can_rebase_what_has_no_parent() {
    let (_dir, world, snapshotter) = world().await;
    let n = cx("n");
    committed(&snapshotter, &n, "one", None).await;
    snapshotter.prepare(&n, new("k", None)).await.unwrap();
    // The later parent has a higher number than the snapshot.
    committed(&snapshotter, &n, "two", Some("one")).await;
    let how = CommitSnapshot { parent: Some(key("two")), ..commit("three", "k") };
    snapshotter.commit(&n, how).await.unwrap();
    assert_eq!(snapshotter.stat(&n, &key("three")).await.unwrap().parent, Some(key("two")));
    assert_eq!(parents(&snapshotter.view(&n, new("v", Some("three"))).await.unwrap()), 3);
    let missing = CommitSnapshot { parent: Some(key("missing")), ..commit("x", "k2") };
    snapshotter.prepare(&n, new("k2", None)).await.unwrap();
    assert_eq!(kind(snapshotter.commit(&n, missing).await), ErrorKind::NotFound);
    snapshotter.remove(&n, &key("v")).await.unwrap();
    // Collected children first, whatever their numbers.
    let stats = world.metadata.collect().await.unwrap();
    assert_eq!(stats.snapshots, 4);
    assert!(world.driver.ids().unwrap().is_empty());
}

#[tokio::test]
async fn removal_takes_record_and_directory_and_numbers_are_not_used_again() {
    let (dir, world, snapshotter) = world().await;
    snapshotter.prepare(&cx("n"), new("k", None)).await.unwrap();
    let first = world.driver.ids().unwrap();
    snapshotter.remove(&cx("n"), &key("k")).await.unwrap();
    assert!(world.driver.ids().unwrap().is_empty());
    world.metadata.close(Duration::from_secs(5)).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(&world.driver.root).unwrap().collect();
    assert!(left.is_empty(), "deleted in the background, at the latest by the close");
    drop((world, snapshotter));
    let world = World::open(dir.path()).await;
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    snapshotter.prepare(&cx("n"), new("k", None)).await.unwrap();
    assert!(world.driver.ids().unwrap()[0] > first[0]);
}

#[tokio::test]
async fn directories_without_record_go_at_the_next_start_and_missing_ones_are_reported() {
    let (dir, world, snapshotter) = world().await;
    snapshotter.prepare(&cx("n"), new("lost", None)).await.unwrap();
    let lost = world.driver.ids().unwrap()[0];
    snapshotter.prepare(&cx("n"), new("kept", None)).await.unwrap();
    world.metadata.close(Duration::from_secs(5)).await.unwrap();
    std::fs::create_dir(world.driver.path(900)).unwrap();
    std::fs::remove_dir(world.driver.path(lost)).unwrap();
    drop((world, snapshotter));
    let world = World::open(dir.path()).await;
    assert_eq!(world.metadata.recovery().orphans, 1);
    let name =
        |key: &str| SnapshotName { snapshotter: "plain".into(), namespace: "n".into(), key: key.into() };
    assert_eq!(world.metadata.recovery().missing, [name("lost")]);
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    snapshotter.prepare(&cx("n"), new("next", None)).await.unwrap();
    assert_eq!(world.driver.ids().unwrap().into_iter().max(), Some(901));
}

#[tokio::test]
async fn usage_of_a_committed_snapshot_is_measured_once() {
    let (_dir, world, snapshotter) = world().await;
    let n = cx("n");
    snapshotter.prepare(&n, new("k", None)).await.unwrap();
    let id = world.driver.ids().unwrap()[0];
    assert_eq!(snapshotter.usage(&n, &key("k")).await.unwrap().inodes, 0);
    std::fs::write(world.driver.path(id).join("f"), "x").unwrap();
    assert_eq!(snapshotter.usage(&n, &key("k")).await.unwrap().inodes, 1);
    snapshotter.commit(&n, commit("c", "k")).await.unwrap();
    let measured = snapshotter.usage(&n, &key("c")).await.unwrap();
    std::fs::write(world.driver.path(id).join("g"), "x").unwrap();
    assert_eq!(snapshotter.usage(&n, &key("c")).await.unwrap(), measured);
}

#[tokio::test]
async fn after_an_unclean_boot_unsynced_committed_snapshots_are_suspect() {
    let dir = tempfile::tempdir().unwrap();
    let open =
        async |boot: &'static str| World::open_with(dir.path(), MetadataConfig::default(), Some(boot)).await;
    let world = open("first").await;
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    committed(&snapshotter, &cx("n"), "a", None).await;
    snapshotter.prepare(&cx("n"), new("active", None)).await.unwrap();
    // A clean stop makes it durable.
    world.metadata.close(Duration::from_secs(5)).await.unwrap();
    drop((world, snapshotter));
    let world = open("second").await;
    assert_eq!(world.metadata.boot().last, LastStop::Clean);
    assert!(world.metadata.recovery().suspect.is_empty());
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    committed(&snapshotter, &cx("n"), "b", Some("a")).await;
    // No time is left to sync.
    world.metadata.close(Duration::ZERO).await.unwrap();
    drop((world, snapshotter));
    let world = open("second").await;
    assert_eq!(world.metadata.boot().last, LastStop::SameBoot);
    assert!(world.metadata.recovery().suspect.is_empty(), "the machine did not stop");
    world.metadata.close(Duration::ZERO).await.unwrap();
    drop(world);
    let world = open("third").await;
    assert_eq!(world.metadata.boot().last, LastStop::Unclean);
    let suspect = &world.metadata.recovery().suspect;
    assert_eq!(suspect.iter().map(|name| name.key.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn a_new_database_does_not_take_what_is_there_for_garbage() {
    let (dir, world, snapshotter) = world().await;
    committed(&snapshotter, &cx("n"), "precious", None).await;
    world.metadata.close(Duration::from_secs(5)).await.unwrap();
    drop((world, snapshotter));
    std::fs::remove_dir_all(dir.path().join("gantry")).unwrap();
    for _ in 0..2 {
        let refused = World::try_open(dir.path(), MetadataConfig::default(), None).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    }
    assert_eq!(std::fs::read_dir(dir.path().join("snapshots")).unwrap().count(), 1);
}
