use std::time::{Duration, SystemTime};

use gantry_core::field_mask::FieldMask;
use gantry_core::images::{DeleteImage, Image, ImageStore};
use gantry_core::leases::{LeaseManager, LeaseResource};
use gantry_core::{Descriptor, ErrorKind, Labels, LeaseId};

use crate::support::{World, all, cx, digest_of, labels, leased};

pub(crate) fn image(name: &str) -> Image {
    Image {
        name: name.to_owned(),
        labels: Labels::new(),
        target: Descriptor::new("any/string", digest_of(b"target"), 6),
        created_at: SystemTime::UNIX_EPOCH,
        updated_at: SystemTime::UNIX_EPOCH,
    }
}

async fn world() -> (tempfile::TempDir, World) {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    (dir, world)
}

#[tokio::test]
async fn names_are_any_text_and_targets_are_checked() {
    let (_dir, world) = world().await;
    let images = world.metadata.images();
    let odd = format!("a b/../\n{}", "x".repeat(300));
    images.create(&cx("n"), image(&odd), None).await.unwrap();
    assert_eq!(images.get(&cx("n"), &odd).await.unwrap().name, odd);
    let mut bad = [image(""), image("a"), image("b"), image("c")];
    bad[1].target.media_type.clear();
    bad[2].target.size_bytes = 0;
    bad[3].labels = labels(&[("k", &"v".repeat(4096))]);
    for bad in bad {
        assert_eq!(images.create(&cx("n"), bad, None).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(
        images.create(&cx("n"), image(&odd), None).await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
}

#[tokio::test]
async fn the_epoch_sets_times_and_created_at_never_changes() {
    let (_dir, world) = world().await;
    let images = world.metadata.images();
    let (first, second) = (
        SystemTime::UNIX_EPOCH + Duration::new(5, 7),
        SystemTime::UNIX_EPOCH + Duration::from_secs(300_000_000_000),
    );
    let made = images.create(&cx("n"), image("i"), Some(first)).await.unwrap();
    assert_eq!((made.created_at, made.updated_at), (first, first));
    let updated =
        images.update(&cx("n"), image("i").into(), &FieldMask::default(), Some(second)).await.unwrap();
    assert_eq!((updated.created_at, updated.updated_at), (first, second));
    assert_eq!(images.get(&cx("n"), "i").await.unwrap(), updated);
}

#[tokio::test]
async fn updates_follow_their_mask_and_always_check_the_target() {
    let (_dir, world) = world().await;
    let images = world.metadata.images();
    let mut stored = image("i");
    stored.labels = labels(&[("a", "1")]);
    stored.target.annotations.insert("keep".into(), "1".into());
    images.create(&cx("n"), stored.clone(), None).await.unwrap();
    let mut changed = image("i");
    changed.labels = labels(&[("b", "2")]);
    changed.target.digest = digest_of(b"another");
    changed.target.annotations.insert("x.y".into(), "2".into());
    let mask = FieldMask::new(["labels.b", "annotations.x.y"]);
    let updated = images.update(&cx("n"), changed.clone().into(), &mask, None).await.unwrap();
    assert_eq!(updated.labels, labels(&[("a", "1"), ("b", "2")]));
    assert_eq!(updated.target.digest, stored.target.digest);
    assert_eq!(updated.target.annotations.len(), 2);
    assert_eq!(images.get(&cx("n"), "i").await.unwrap(), updated);
    let updated = images.update(&cx("n"), changed.clone().into(), &FieldMask::default(), None).await.unwrap();
    assert_eq!((updated.labels, updated.target), (changed.labels.clone(), changed.target.clone()));
    changed.target.size_bytes = 0;
    let refused =
        images.update(&cx("n"), changed.clone().into(), &FieldMask::new(["labels"]), None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    let refused =
        images.update(&cx("n"), image("i").into(), &FieldMask::new(["name"]), None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    let missing = images.update(&cx("n"), image("j").into(), &FieldMask::default(), None).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_delete_can_be_bound_to_the_target() {
    let (_dir, world) = world().await;
    let images = world.metadata.images();
    images.create(&cx("n"), image("i"), None).await.unwrap();
    let other = DeleteImage { if_target: Some(digest_of(b"other")), sync: false };
    assert_eq!(images.delete(&cx("n"), "i", other).await.unwrap_err().kind(), ErrorKind::NotFound);
    let same = DeleteImage { if_target: Some(digest_of(b"target")), sync: true };
    images.delete(&cx("n"), "i", same).await.unwrap();
    let missing = images.delete(&cx("n"), "i", DeleteImage::default()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_image_joins_its_lease_if_that_exists() {
    let (_dir, world) = world().await;
    let (images, leases) = (world.metadata.images(), world.metadata.leases());
    images.create(&leased("n", "missing"), image("a"), None).await.unwrap();
    let lease = LeaseId::parse("l").unwrap();
    leases.create(&cx("n"), Some(lease.clone()), Labels::new()).await.unwrap();
    images.create(&leased("n", "l"), image("b"), None).await.unwrap();
    let kept = leases.resources(&cx("n"), &lease).await.unwrap();
    assert_eq!(kept, [LeaseResource { id: "b".into(), kind: "images".into() }]);
    images.delete(&leased("n", "l"), "b", DeleteImage::default()).await.unwrap();
    assert!(leases.resources(&cx("n"), &lease).await.unwrap().is_empty());
}

#[tokio::test]
async fn lists_heed_filters() {
    let (_dir, world) = world().await;
    let images = world.metadata.images();
    for name in ["b", "a", "c"] {
        images.create(&cx("n"), image(name), None).await.unwrap();
    }
    let names = |listed: Vec<Image>| listed.into_iter().map(|image| image.name).collect::<Vec<_>>();
    assert_eq!(names(all(images.list(&cx("n"), &[]).await.unwrap()).await), ["a", "b", "c"]);
    let filters = ["name==c".to_owned(), "name==a,target.mediatype==any/string".to_owned()];
    assert_eq!(names(all(images.list(&cx("n"), &filters).await.unwrap()).await), ["a", "c"]);
}
