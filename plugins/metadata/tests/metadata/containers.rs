use std::time::SystemTime;

use gantry_core::containers::{Container, ContainerStore};
use gantry_core::field_mask::FieldMask;
use gantry_core::{Any, ContainerId, Context, ErrorKind, Labels};

use crate::support::{World, all, cx, labels, leased};

fn container(id: &str) -> Container {
    Container::new(ContainerId::parse(id).unwrap(), "io.containerd.runc.v2")
}

async fn world() -> (tempfile::TempDir, World) {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    (dir, world)
}

#[tokio::test]
async fn everything_stored_comes_back_and_times_are_the_stores() {
    let (_dir, world) = world().await;
    let containers = world.metadata.containers();
    let mut new = container("c");
    new.labels = labels(&[("a", "1"), ("gone", "")]);
    new.image = "image".into();
    new.runtime.options = Some(Any::new("options", "o"));
    new.spec = Some(Any::new("spec", "{}"));
    new.snapshotter = "nobody-has-it".into();
    new.snapshot_key = "k".into();
    new.sandbox = "no-such-sandbox".into();
    new.extensions.insert("e".into(), Any::new("t", ""));
    new.created_at = SystemTime::UNIX_EPOCH;
    let made = containers.create(&cx("n"), new.clone()).await.unwrap();
    assert_eq!(made.created_at, made.updated_at);
    assert_ne!(made.created_at, SystemTime::UNIX_EPOCH);
    assert_eq!(made.labels, labels(&[("a", "1")]));
    assert_eq!(containers.get(&cx("n"), "c").await.unwrap(), made);
    assert_eq!(
        Container {
            labels: new.labels.clone(),
            created_at: new.created_at,
            updated_at: new.updated_at,
            ..made
        },
        new
    );
    assert_eq!(containers.create(&cx("n"), new).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(containers.get(&cx("other"), "c").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_call_without_namespace_is_a_failed_precondition() {
    let (_dir, world) = world().await;
    let refused = world.metadata.containers().get(&Context::background(), "c").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
}

#[tokio::test]
async fn a_runtime_is_required_and_a_snapshot_needs_its_snapshotter() {
    let (_dir, world) = world().await;
    let containers = world.metadata.containers();
    let mut bad = container("c");
    bad.runtime.name.clear();
    assert_eq!(containers.create(&cx("n"), bad).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let mut bad = container("c");
    bad.snapshot_key = "k".into();
    assert_eq!(containers.create(&cx("n"), bad).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let mut bad = container("c");
    bad.labels = labels(&[("k", &"v".repeat(4096))]);
    assert_eq!(containers.create(&cx("n"), bad).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    // Neither a specification nor an existing lease is needed.
    containers.create(&leased("n", "no such lease"), container("c")).await.unwrap();
}

#[tokio::test]
async fn a_mask_changes_only_what_it_names_and_checks_no_immutable_field() {
    let (_dir, world) = world().await;
    let containers = world.metadata.containers();
    let mut stored = container("c");
    stored.labels = labels(&[("a", "1"), ("b", "2")]);
    stored.image = "before".into();
    containers.create(&cx("n"), stored).await.unwrap();
    let mut changed = container("c");
    changed.runtime.name = "another".into();
    changed.snapshotter = "s".into();
    changed.snapshot_key = "k".into();
    changed.image = "after".into();
    changed.labels = labels(&[("b", ""), ("x.y", "3")]);
    changed.extensions.insert("e".into(), Any::new("t", "v"));
    let mask = FieldMask::new(["labels.b", "labels.x.y", "extensions.e", "image"]);
    let updated = containers.update(&cx("n"), changed.clone(), &mask).await.unwrap();
    assert_eq!(updated.labels, labels(&[("a", "1"), ("x.y", "3")]));
    assert_eq!(updated.image, "after");
    assert_eq!(updated.runtime.name, "io.containerd.runc.v2");
    assert_eq!(updated.snapshot_key, "");
    assert_eq!(updated.extensions, changed.extensions);
    assert!(updated.updated_at > updated.created_at);
    assert_eq!(containers.get(&cx("n"), "c").await.unwrap(), updated);
    for path in ["snapshot_key", "runtime", "snapshotter", "bogus"] {
        let refused =
            containers.update(&cx("n"), changed.clone(), &FieldMask::new([path])).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{path}");
    }
    // A snapshot without snapshotter is refused in an update as well.
    let refused = containers.update(&cx("n"), changed, &FieldMask::new(["snapshotkey"])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn without_mask_runtime_and_snapshotter_are_immutable_and_the_rest_is_replaced() {
    let (_dir, world) = world().await;
    let containers = world.metadata.containers();
    let mut stored = container("c");
    stored.labels = labels(&[("a", "1")]);
    stored.snapshotter = "s".into();
    containers.create(&cx("n"), stored.clone()).await.unwrap();
    let everything = FieldMask::default();
    let mut changed = stored.clone();
    changed.runtime.name = "another".into();
    let refused = containers.update(&cx("n"), changed, &everything).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    let mut changed = stored.clone();
    changed.snapshotter.clear();
    let refused = containers.update(&cx("n"), changed, &everything).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    let mut changed = stored;
    changed.labels = Labels::new();
    changed.spec = Some(Any::new("spec", "{}"));
    let updated = containers.update(&cx("n"), changed.clone(), &everything).await.unwrap();
    assert!(updated.labels.is_empty());
    assert_eq!(updated.spec, changed.spec);
    let missing = containers.update(&cx("n"), container("missing"), &everything).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn lists_come_in_byte_order_over_many_pages_and_heed_filters() {
    let (_dir, world) = world().await;
    let containers = world.metadata.containers();
    let mut expected = Vec::new();
    for number in 0..150 {
        let name = if number % 2 == 0 { format!("a{number}") } else { format!("B{number}") };
        let mut new = container(&name);
        new.labels = labels(&[("odd", if number % 2 == 0 { "no" } else { "yes" })]);
        containers.create(&cx("n"), new).await.unwrap();
        expected.push(name);
    }
    expected.sort();
    containers.create(&cx("other"), container("z")).await.unwrap();
    let listed = all(containers.list(&cx("n"), &[]).await.unwrap()).await;
    assert_eq!(listed.iter().map(|container| container.id.as_str()).collect::<Vec<_>>(), expected);
    let odd = all(containers.list(&cx("n"), &["labels.odd==yes".to_owned()]).await.unwrap()).await;
    assert_eq!(odd.len(), 75);
    let refused = containers.list(&cx("n"), &["labels.a-b".to_owned()]).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_deleted_container_leaves_no_labels_to_the_next_of_its_name() {
    let (_dir, world) = world().await;
    let containers = world.metadata.containers();
    let mut first = container("c");
    first.labels = labels(&[("a", "1")]);
    first.extensions.insert("e".into(), Any::new("t", "v"));
    containers.create(&cx("n"), first).await.unwrap();
    containers.delete(&cx("n"), "c").await.unwrap();
    assert_eq!(containers.delete(&cx("n"), "c").await.unwrap_err().kind(), ErrorKind::NotFound);
    let second = containers.create(&cx("n"), container("c")).await.unwrap();
    assert_eq!(containers.get(&cx("n"), "c").await.unwrap(), second);
    assert!(second.labels.is_empty() && second.extensions.is_empty());
}

#[tokio::test]
async fn every_kind_of_filter_finds_over_all_pages_what_it_matches() {
    let (_dir, world) = world().await;
    let containers = world.metadata.containers();
    let mut stored = Vec::new();
    for number in 0..300 {
        let mut new = container(&format!("c{number:03}"));
        new.labels = labels(&[("even", if number % 2 == 0 { "yes" } else { "no" })]);
        new.spec = Some(Any::new("spec", format!("{number}")));
        new.extensions.insert("e".into(), Any::new("t", format!("{number}")));
        stored.push(containers.create(&cx("n"), new).await.unwrap());
    }
    containers.create(&cx("other"), container("c000")).await.unwrap();
    let list = async |filters: &[&str]| {
        let filters: Vec<String> = filters.iter().map(ToString::to_string).collect();
        all(containers.list(&cx("n"), &filters).await.unwrap()).await
    };
    assert_eq!(list(&[]).await, stored);
    let even: Vec<_> = stored.iter().step_by(2).cloned().collect();
    assert_eq!(list(&["labels.even==yes"]).await, even);
    assert_eq!(list(&["id~=^c2[0-9]+$"]).await, stored[200..]);
    assert_eq!(list(&["id==c007", "id==c299"]).await, [stored[7].clone(), stored[299].clone()]);
    assert_eq!(
        list(&["id==c007,labels.even==yes", "id==c008,labels.even==yes", "id==x"]).await,
        stored[8..9]
    );
    let every: Vec<String> = stored.iter().map(|one| format!("id=={}", one.id)).collect();
    assert_eq!(list(&every.iter().map(String::as_str).collect::<Vec<_>>()).await, stored);
}
