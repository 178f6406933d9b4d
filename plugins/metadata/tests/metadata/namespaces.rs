use gantry_core::containers::{Container, ContainerStore};
use gantry_core::field_mask::FieldMask;
use gantry_core::leases::LeaseManager;
use gantry_core::namespaces::{NamespaceRecord, NamespaceStore};
use gantry_core::{ContainerId, Context, ErrorKind, Labels, Namespace};

use crate::support::{World, cx, labels};

fn named(name: &str, labels: Labels) -> NamespaceRecord {
    NamespaceRecord { name: Namespace::parse(name).unwrap(), labels }
}

async fn world() -> (tempfile::TempDir, World) {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    (dir, world)
}

#[tokio::test]
async fn the_first_write_makes_a_namespace() {
    let (_dir, world) = world().await;
    let none = Context::background();
    world.metadata.leases().create(&cx("made"), None, Labels::new()).await.unwrap();
    let listed = world.metadata.namespaces().list(&none).await.unwrap();
    assert_eq!(listed, [named("made", Labels::new())]);
}

#[tokio::test]
async fn labels_of_a_missing_namespace_are_empty_and_no_error() {
    let (_dir, world) = world().await;
    for name in ["missing", "", "not valid"] {
        let found = world.metadata.namespaces().labels(&Context::background(), name).await.unwrap();
        assert!(found.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn create_answers_empty_labels_and_does_not_store_them() {
    let (_dir, world) = world().await;
    let (namespaces, none) = (world.metadata.namespaces(), Context::background());
    let given = labels(&[("a", ""), ("b", "1")]);
    let made = namespaces.create(&none, named("n", given.clone())).await.unwrap();
    assert_eq!(made.labels, given);
    assert_eq!(namespaces.labels(&none, "n").await.unwrap(), labels(&[("b", "1")]));
    let again = namespaces.create(&none, named("n", Labels::new())).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
}

#[tokio::test]
async fn update_takes_single_labels_or_all_but_no_path_labels() {
    let (_dir, world) = world().await;
    let (namespaces, none) = (world.metadata.namespaces(), Context::background());
    let mask = FieldMask::new(["labels"]);
    let refused = namespaces.update(&none, named("n", Labels::new()), &mask).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    // It need not exist.
    let all = named("n", labels(&[("a", "1"), ("b", "2")]));
    namespaces.update(&none, all, &FieldMask::default()).await.unwrap();
    let mask = FieldMask::new(["labels.a", "labels.c.d"]);
    let some = named("n", labels(&[("a", ""), ("c.d", "3"), ("e", "4")]));
    namespaces.update(&none, some, &mask).await.unwrap();
    assert_eq!(namespaces.labels(&none, "n").await.unwrap(), labels(&[("b", "2"), ("c.d", "3")]));
}

#[tokio::test]
async fn a_label_too_long_is_unknown_in_update_and_invalid_in_create() {
    let (_dir, world) = world().await;
    let (namespaces, none) = (world.metadata.namespaces(), Context::background());
    let long = labels(&[("k", &"v".repeat(4096))]);
    let create = namespaces.create(&none, named("n", long.clone())).await.unwrap_err();
    assert_eq!(create.kind(), ErrorKind::InvalidArgument);
    let update = namespaces.update(&none, named("n", long), &FieldMask::default()).await.unwrap_err();
    assert_eq!(update.kind(), ErrorKind::Unknown);
    let empty = namespaces.create(&none, named("n", labels(&[("", "v")]))).await.unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::Unknown);
}

#[tokio::test]
async fn delete_names_what_is_left_and_drops_leases_ingests_and_sandboxes() {
    let (_dir, world) = world().await;
    let (namespaces, none) = (world.metadata.namespaces(), Context::background());
    let name = Namespace::parse("n").unwrap();
    assert_eq!(namespaces.delete(&none, &name).await.unwrap_err().kind(), ErrorKind::NotFound);
    let container = Container::new(ContainerId::parse("c").unwrap(), "runtime");
    world.metadata.containers().create(&cx("n"), container).await.unwrap();
    let digest = world.blob(&cx("n"), b"x", Labels::new()).await;
    let refused = namespaces.delete(&none, &name).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    assert!(refused.to_string().contains("must be empty, but it still has blobs, containers"), "{refused}");
    world.metadata.containers().delete(&cx("n"), "c").await.unwrap();
    gantry_core::content::ContentStore::delete(&world.metadata.content(), &cx("n"), &digest).await.unwrap();
    world.metadata.leases().create(&cx("n"), None, Labels::new()).await.unwrap();
    namespaces.delete(&none, &name).await.unwrap();
    assert!(namespaces.list(&none).await.unwrap().is_empty());
    assert!(world.metadata.leases().list(&cx("n"), &[]).await.unwrap().is_empty());
}
