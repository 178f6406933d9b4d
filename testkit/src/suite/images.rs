//! What every [`ImageStore`] promises.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_core::images::{DeleteImage, Image, ImageStore};
use gantry_core::{Descriptor, Digest, ErrorKind};

use super::{all, cx, filters, labels, mask, refused};

/// Tests that what `$open` opens keeps images as it should.
#[macro_export]
macro_rules! image_store_suite {
    ($module:ident, $open:expr) => {
        $crate::suite_of!(
            $module,
            images,
            $open,
            [
                create_answers_as_stored,
                names_are_any_text,
                targets_are_checked,
                a_taken_name_is_refused,
                lists_come_in_order_and_filtered,
                a_mask_changes_what_it_names,
                delete_heeds_the_target,
                the_epoch_of_the_source_sets_the_time,
            ]
        );
    };
}

type Store = Arc<dyn ImageStore>;

fn digest(digit: char) -> Digest {
    Digest::parse(format!("sha256:{}", digit.to_string().repeat(64))).expect("a valid digest")
}

fn image(name: &str) -> Image {
    let target = Descriptor::new("application/vnd.oci.image.manifest.v1+json", digest('1'), 10);
    Image {
        name: name.to_owned(),
        labels: labels(&[("a", "1")]),
        target,
        created_at: SystemTime::UNIX_EPOCH,
        updated_at: SystemTime::UNIX_EPOCH,
    }
}

#[doc(hidden)]
pub async fn create_answers_as_stored(store: Store) {
    let made = store.create(&cx("one"), image("x"), None).await.expect("create");
    assert!(made.created_at > std::time::UNIX_EPOCH);
    assert_eq!(store.get(&cx("one"), "x").await.expect("get"), made);
    refused(store.get(&cx("two"), "x").await, ErrorKind::NotFound);
}

#[doc(hidden)]
pub async fn names_are_any_text(store: Store) {
    for name in ["with space", "../..", "new\nline", &"x".repeat(300)] {
        store.create(&cx("one"), image(name), None).await.expect("create");
        assert_eq!(store.get(&cx("one"), name).await.expect("get").name, name);
    }
    refused(store.create(&cx("one"), image(""), None).await, ErrorKind::InvalidArgument);
}

#[doc(hidden)]
pub async fn targets_are_checked(store: Store) {
    let mut empty = image("x");
    empty.target.size_bytes = 0;
    refused(store.create(&cx("one"), empty, None).await, ErrorKind::InvalidArgument);
    let mut untyped = image("x");
    untyped.target.media_type.clear();
    refused(store.create(&cx("one"), untyped, None).await, ErrorKind::InvalidArgument);
}

#[doc(hidden)]
pub async fn a_taken_name_is_refused(store: Store) {
    store.create(&cx("one"), image("x"), None).await.expect("create");
    refused(store.create(&cx("one"), image("x"), None).await, ErrorKind::AlreadyExists);
}

#[doc(hidden)]
pub async fn lists_come_in_order_and_filtered(store: Store) {
    for name in ["b", "a/b", "A"] {
        store.create(&cx("one"), image(name), None).await.expect("create");
    }
    let names = |list: Vec<Image>| list.into_iter().map(|image| image.name).collect::<Vec<_>>();
    assert_eq!(names(all(store.list(&cx("one"), &[]).await).await), ["A", "a/b", "b"]);
    assert_eq!(names(all(store.list(&cx("one"), &filters(&["name==b"])).await).await), ["b"]);
    let by_digest = format!("target.digest=={}", digest('1'));
    assert_eq!(all(store.list(&cx("one"), &[by_digest]).await).await.len(), 3);
}

#[doc(hidden)]
pub async fn a_mask_changes_what_it_names(store: Store) {
    let before = store.create(&cx("one"), image("x"), None).await.expect("create");
    let mut changed = image("x");
    changed.target.digest = digest('2');
    changed.labels = labels(&[("b", "2")]);
    let after =
        store.update(&cx("one"), changed.clone().into(), &mask(&["labels.b"]), None).await.expect("update");
    assert_eq!(after.labels, labels(&[("a", "1"), ("b", "2")]));
    assert_eq!((&after.target, after.created_at), (&before.target, before.created_at));
    let after =
        store.update(&cx("one"), changed.clone().into(), &mask(&["target"]), None).await.expect("update");
    assert_eq!(after.target.digest, digest('2'));
    refused(
        store.update(&cx("one"), changed.clone().into(), &mask(&["name"]), None).await,
        ErrorKind::InvalidArgument,
    );
    let after = store.update(&cx("one"), changed.into(), &mask(&[]), None).await.expect("update");
    assert_eq!(after.labels, labels(&[("b", "2")]));
    refused(store.update(&cx("one"), image("y").into(), &mask(&[]), None).await, ErrorKind::NotFound);
}

#[doc(hidden)]
pub async fn delete_heeds_the_target(store: Store) {
    store.create(&cx("one"), image("x"), None).await.expect("create");
    let elsewhere = DeleteImage { sync: false, if_target: Some(digest('2')) };
    refused(store.delete(&cx("one"), "x", elsewhere).await, ErrorKind::NotFound);
    let here = DeleteImage { sync: true, if_target: Some(digest('1')) };
    store.delete(&cx("one"), "x", here).await.expect("delete");
    refused(store.delete(&cx("one"), "x", DeleteImage::default()).await, ErrorKind::NotFound);
}

#[doc(hidden)]
pub async fn the_epoch_of_the_source_sets_the_time(store: Store) {
    let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let made = store.create(&cx("one"), image("x"), Some(epoch)).await.expect("create");
    assert_eq!((made.created_at, made.updated_at), (epoch, epoch));
    let later = epoch + Duration::from_secs(5);
    let after =
        store.update(&cx("one"), image("x").into(), &mask(&["labels"]), Some(later)).await.expect("update");
    assert_eq!((after.created_at, after.updated_at), (epoch, later));
}
