use gantry_core::leases::{LeaseManager, LeaseResource};
use gantry_core::{ErrorKind, Labels, LeaseId};

use crate::support::{World, cx, labels};

fn resource(kind: &str, id: &str) -> LeaseResource {
    LeaseResource { id: id.to_owned(), kind: kind.to_owned() }
}

fn id(text: &str) -> LeaseId {
    LeaseId::parse(text).unwrap()
}

async fn world() -> (tempfile::TempDir, World) {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    (dir, world)
}

#[tokio::test]
async fn ids_are_any_text_unique_or_made_up() {
    let (_dir, world) = world().await;
    let leases = world.metadata.leases();
    let long = labels(&[("k", &"v".repeat(5000)), ("none", "")]);
    let made = leases.create(&cx("n"), Some(id("a b/..\n")), long).await.unwrap();
    assert_eq!(made.labels.len(), 1);
    let again = leases.create(&cx("n"), Some(id("a b/..\n")), Labels::new()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    let first = leases.create(&cx("n"), None, Labels::new()).await.unwrap();
    let second = leases.create(&cx("n"), Some(id("")), Labels::new()).await.unwrap();
    assert_ne!(first.id, second.id);
    assert!(!second.id.as_str().is_empty());
    assert_eq!(leases.list(&cx("n"), &[]).await.unwrap().len(), 3);
    let filtered = leases.list(&cx("n"), &[format!("id=={}", first.id)]).await.unwrap();
    assert_eq!(filtered, [first]);
    let key = leases.create(&cx("n"), None, labels(&[("", "v")])).await.unwrap_err();
    assert_eq!(key.kind(), ErrorKind::Unknown);
}

#[tokio::test]
async fn resources_need_not_exist_and_twice_is_once() {
    let (_dir, world) = world().await;
    let leases = world.metadata.leases();
    leases.create(&cx("n"), Some(id("l")), Labels::new()).await.unwrap();
    let kept = resource("snapshots/no-such-snapshotter", "k");
    for _ in 0..2 {
        leases.add_resource(&cx("n"), &id("l"), kept.clone()).await.unwrap();
    }
    assert_eq!(leases.resources(&cx("n"), &id("l")).await.unwrap(), std::slice::from_ref(&kept));
    for _ in 0..2 {
        leases.delete_resource(&cx("n"), &id("l"), kept.clone()).await.unwrap();
    }
    assert!(leases.resources(&cx("n"), &id("l")).await.unwrap().is_empty());
    for (kind, expected) in [
        ("content", ErrorKind::InvalidArgument),
        ("tasks", ErrorKind::Unimplemented),
        ("snapshots/", ErrorKind::Unknown),
    ] {
        let refused = leases.add_resource(&cx("n"), &id("l"), resource(kind, "x")).await.unwrap_err();
        assert_eq!(refused.kind(), expected, "{kind}");
    }
    // The lease is looked for first.
    let missing = leases.add_resource(&cx("n"), &id("m"), resource("tasks", "x")).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(leases.resources(&cx("n"), &id("m")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(leases.delete(&cx("n"), &id("m"), true).await.unwrap_err().kind(), ErrorKind::NotFound);
    leases.delete(&cx("n"), &id("l"), true).await.unwrap();
    assert_eq!(leases.resources(&cx("n"), &id("l")).await.unwrap_err().kind(), ErrorKind::NotFound);
}
